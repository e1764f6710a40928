"""Letters bent out of shape by the thousand: none raises, none takes long, and none stops anybody whom it does not name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from random import Random

import asyncpg
import pytest

from mailprefs import ledger, letters, links
from mailprefs.errors import Forged, Unreadable
from mailprefs.letters import Letter
from mailprefs.links import KeyRing
from mailprefs.mailroom import Mailroom, Said

from .postbox import ENTRIES, Postbox, aside

LETTERS = 6000
RECORDED = 400
LONGEST = 3.0  # seconds of processor time that one letter may take, on a machine that others use too

NASTY = [
    *(b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\r", b'"', b"(((((", b"<<<<", b";;;;", b"%", b"=\n", b"9" * 400, b"5.1.1", b"From: "),
    *(
        b"=?utf-8?b?////?=",
        b"=?x?q?=?=",
        b"base64",
        b"quoted-printable",
        b"x-uuencode",
        b"begin 666 x\n",
        b"--=_b1\n",
        b"<![",
        b"<!DOCTYPE [",
    ),
    *(b"multipart/mixed; boundary=x", b'boundary=""', b'charset="\0"', b"charset=idna", b"charset=punycode", b"charset=rot13"),
    *(b"charset=undefined", b"charset=zlib", b"utf-8''", b"Content-Transfer-Encoding: base64\n", b"Content-Type: message/rfc822\n\n"),
    *(b"Content-Type: message/delivery-status\n\n", b"Content-Type: text/html\n\n", b"Original-Rcpt-To: x@example.org\n"),
    *(b"Content-Disposition: attachment; filename*=x'y'%ff\n", b"Date: Mon, 32 Foo 99999 99:99:99 +99999\n"),
]
ENCODED = ("\\x{", "base64", "quoted-printable")
PLACES = [b"Content-Type", b"boundary", b"7bit", b"us-ascii", b"utf-8", b"rfc822", b"message/", b"\n\n", b": ", b"@"]


def bent(random: Random, raw: bytes, others: list[bytes]) -> bytes:
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        raw = _bent_once(random, raw, others)
    return raw


def _bent_once(random: Random, raw: bytes, others: list[bytes]) -> bytes:
    start = random.randrange(len(raw) + 1)
    end = min(len(raw), start + random.choice((1, 2, 10, 100)))
    before, piece, after = raw[:start], raw[start:end], raw[end:]
    match random.randrange(8):
        case 0:
            return before + bytes([random.randrange(256)]) + after
        case 1:
            return before + after
        case 2:
            return before + piece * random.choice((2, 3, 50)) + after
        case 3:
            return before + random.choice(NASTY) + piece + after
        case 4:
            lines = raw.split(b"\n")
            random.shuffle(lines[: random.randrange(len(lines)) + 1])
            a, b = random.randrange(len(lines)), random.randrange(len(lines))
            lines[a], lines[b] = lines[b], lines[a]
            return b"\n".join(lines)
        case 5:
            other = random.choice(others)
            at = random.randrange(len(other))
            return before + other[at : at + random.choice((20, 200, 2000))] + after
        case 6:
            return raw.replace(random.choice(PLACES), random.choice(NASTY), random.choice((1, -1)))
        case _:
            return raw.replace(b"\n", random.choice((b"\r\n", b"\r", b"\n\n", b"\n ")), random.choice((1, -1)))


def letters_bent(box: Postbox, many: int, seed: int) -> Iterator[Letter]:
    random = Random(seed)
    whole = [box.letter(entry) for entry in ENTRIES]
    raws = [letter.raw for letter in whole]
    for _ in range(many):
        letter = random.choice(whole)
        yield Letter(bent(random, letter.raw, raws), letter.recipient, letter.sender)


def test_no_letter_raises_or_takes_long(room: Mailroom, box: Postbox, now: datetime) -> None:
    """The reading itself, without the net that is spread below it."""
    unread = 0
    for letter in letters_bent(box, LETTERS, 1):
        started = time.process_time()
        try:
            room._said(room._opened(letter, now), letter.recipient)
        except (Unreadable, ValueError):  # what the mail library says of an odd charset
            unread += 1
        assert time.process_time() - started < LONGEST, letter.raw
    assert unread < LETTERS / 100


def test_no_letter_stops_anybody_whom_it_does_not_name(room: Mailroom, box: Postbox, ring: KeyRing, now: datetime) -> None:
    stopped = proofless = 0
    for letter in letters_bent(box, LETTERS, 2):
        said = room.read(letter, now=now)
        text = f"{letter.raw.decode('utf-8', 'replace')}\n{letter.recipient}\n"
        whole = text + text.replace("=\n", "").replace("=\r\n", "")
        tokens = [word for word in letters.tokenish(whole) if is_ours(ring, word)]
        lowered = box.token.lower() in whole.lower()
        if not tokens and not lowered and b"mx.example.com" not in letter.raw.lower():
            assert said.stops == (), letter.raw
            proofless += 1
        for change in said.stops:
            assert (change.scope, change.effect) in ((272, "stop"), (257, "stop"))
        for address in addressed(said):
            assert address in whole or any(word in whole for word in ENCODED), (address, letter.raw)
        stopped += bool(said.stops)
    assert stopped > LETTERS / 50
    assert proofless > LETTERS / 50


def is_ours(ring: KeyRing, word: str) -> bool:
    try:
        return bool(links.read(ring, word))
    except Forged:
        return False


def addressed(said: Said) -> Iterator[str]:
    """Whom the reports in a letter name, where it is not our token that does."""
    for _, heard in said.heard:
        for event in heard.events:
            if event.address and not event.token:
                yield event.address


async def test_every_letter_can_be_recorded(conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime) -> None:
    for letter in letters_bent(box, RECORDED, 3):
        await room.record(conn, room.read(letter, now=now), now=now)
    assert "not_recorded" not in await aside(conn)
    assert await ledger.differing(conn) == 0


BIG = letters.READ
HEAD = b"Return-Path: <>\nFrom: MAILER-DAEMON@mx.example.net\nTo: bounces@go.example.com\nSubject: failure\n"
WISH = b"From: jane@example.org\nTo: u@go.example.com\n"
GROUP = b"Final-Recipient: rfc822; a@example.org\nAction: failed\nStatus: 5.1.1\n\n"
SPITEFUL = {
    "brackets": HEAD + b"\n" + b"<" * BIG,
    "lines of brackets": HEAD + b"\n" + (b"<a@b" * 249 + b"\n") * 260,
    "ats": HEAD + b"\n" + b"a@" * BIG,
    "a recipient without end": b"Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822;" + b"a@" * BIG,
    "a status without end": b"Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@b\nAction: failed\nStatus: "
    + b"5.1." * BIG,
    "groups": b"Content-Type: message/delivery-status\n\n" + GROUP * 4000,
    "blank groups": b"Content-Type: message/feedback-report\n\n" + b"\n \t \n" * 50000,
    "recipients": b"Content-Type: message/feedback-report\n\nFeedback-Type: abuse\n" + (b"Original-Rcpt-To: " + b"a," * 2000 + b"\n") * 60,
    "addresses": WISH + (b"To: " + b"a@" * 2000 + b"\n") * 60 + b"\n",
    "comments": b"Authentication-Results: mx.example.com; " + b"(" * 2000 + b")" * 2000 + b"\n" + WISH + b"\n",
    "results": (b"Authentication-Results: x; " + b"a=b " * 1000 + b"\n") * 60 + WISH + b"\n",
    "quotes": b"From: " + b'"' * 4000 + b"\nTo: u@go.example.com\n\n",
    "words": WISH + b"\n" + b"opt opted opting no more not " * 9000,
    "one word": WISH + b"\n" + b"a" * BIG,
    "attributions": WISH + b"\n" + b"on x\n" * 50000,
    "tags": WISH + b"Content-Type: text/html\n\n" + b"<a " * (BIG // 3),
    "scripts": WISH + b"Content-Type: text/html\n\n" + b"<script" * (BIG // 7),
    "encoded words": b"Subject: " + b"=?utf-8?q?" * 400 + b"\n" + WISH + b"\n",
    "tokens": WISH + (b"To: u+" + b"a" * 26 + b"." + b"a" * 18 + b"@go.example.com\n") * 3000 + b"\n",
    "parts": b'Content-Type: multipart/mixed; boundary="b"\n\n' + b"--b\n\n" * (BIG // 5),
    "parts in parts": b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n) for n in range(24)) + b"\n" * BIG,
    "messages in messages": b"Content-Type: message/rfc822\n\n" * 8000,
    "fields": b"".join(b"X%d: a\n" % n for n in range(30000)),
    "dates": WISH + b"Date: " + b"(" * 4000 + b"\n\n",
}


@pytest.mark.parametrize("raw", SPITEFUL.values(), ids=SPITEFUL)
def test_a_letter_that_is_meant_to_hurt_takes_a_moment_and_stops_nobody(room: Mailroom, now: datetime, raw: bytes) -> None:
    started = time.process_time()
    said = room.read(Letter(raw, "bounces@go.example.com", None), now=now)
    assert time.process_time() - started < LONGEST
    assert said.stops == ()
    assert said.heard
