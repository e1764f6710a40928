"""What comes by mail: each letter changes what it says and nothing else, and none is lost."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zlib import crc32

import asyncpg
import pytest
import structlog
from prometheus_client import REGISTRY

from mailprefs import ledger
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Brand, Catalogue
from mailprefs.letters import Letter
from mailprefs.links import KeyRing, KeyState, Links
from mailprefs.mailroom import Mailroom
from mailprefs.words import Cause, Change, Door, Effect

from .postbox import ENTRIES, FOLDER, MARKETING, NEWSLETTER, ROOT, Postbox, aside, counted, rows, soft

ENTRY = {entry["file"].removesuffix(".eml"): entry for entry in ENTRIES}
SECOND = 513  # the marketing of a second brand


async def sent(conn: asyncpg.Connection, room: Mailroom, letter: Letter, now: datetime) -> None:
    await room.record(conn, room.read(letter, now=now), now=now)


async def stops(conn: asyncpg.Connection, key: UUID) -> list[int] | None:
    found: list[int] | None = await conn.fetchval("select stops from address where key = $1", key)
    return found


@pytest.fixture
def jane(addresses: Addresses) -> UUID:
    return addresses.read("jane@example.org").key


@pytest.fixture
def two_brands(shared_catalogue: Catalogue) -> Catalogue:
    first = shared_catalogue.brand[0]
    second = Brand(
        name="other",
        title="Other",
        number=2,
        link_host="go.example.net",
        mailto="leave@go.example.net",
        postal_address="2 Side Street",
        topic=({"name": "tips", "title": "Tips", "number": 16},),
    )
    return Catalogue(brand=(first, second))


async def known(conn: asyncpg.Connection, catalogue: Catalogue) -> None:
    """Make the database know a catalogue's scopes."""
    for scope in catalogue.scopes:
        await conn.execute(
            "insert into scope (scope, path, name, stream) values ($1, $2, $3, $4) on conflict do nothing",
            scope.number,
            list(scope.path),
            scope.name,
            scope.stream,
        )


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
async def test_every_letter_of_the_corpus_does_what_it_says_and_nothing_else(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, entry: Mapping[str, Any]
) -> None:
    await sent(conn, room, box.letter(entry), now)
    assert await rows(conn) == box.expected(entry)
    assert await soft(conn) == {box.addresses.heard(whose).key for whose in entry.get("soft", ())}
    assert await aside(conn) == ([entry["aside"]] if "aside" in entry else [])
    found = await counted(conn)
    assert {kind: found.get(kind, 0) for kind in entry.get("counted", {})} == entry.get("counted", {})


async def test_the_corpus_twice_and_backwards_is_the_corpus_once(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime
) -> None:
    for entry in (*ENTRIES, *ENTRIES[::-1]):
        await sent(conn, room, box.letter(entry), now)
    assert await rows(conn) == {row for entry in ENTRIES for row in box.expected(entry)}
    assert await ledger.differing(conn) == 0
    once = await conn.fetchval("select count(*) from consent")
    for entry in ENTRIES:
        await sent(conn, room, box.letter(entry), now + timedelta(days=30))
    assert await conn.fetchval("select count(*) from consent") == once


async def test_everything_that_is_kept_aside_raises_an_alarm(conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime) -> None:
    kept = [entry for entry in ENTRIES if "aside" in entry]
    before = _alarms()
    with structlog.testing.capture_logs() as lines:
        for entry in kept:
            await sent(conn, room, box.letter(entry), now)
    assert sorted(line["reason"] for line in lines if line["event"] == "kept_aside") == sorted({entry["aside"] for entry in kept})
    assert _alarms() == before + len(kept), "each reason is said once, and every one is counted"
    assert not [line for line in lines if "example.org" in repr(line) or box.token in repr(line)]


def _alarms() -> float:
    return REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": "kept_aside", "account": "mail"}) or 0


# A person's wish


def wish(recipient: str, body: str = "", *, sender: str = "jane@example.org") -> Letter:
    raw = f"From: {sender}\nTo: {recipient}\nMessage-ID: <{crc32((recipient + body + sender).encode())}@example.org>\n\n{body}\n"
    return Letter(raw.encode(), recipient, sender)


async def test_the_address_that_stops_stops_whatever_the_letter_says(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, jane: UUID
) -> None:
    odd = [
        b"",
        b"\0\xff",
        b"\n\n",
        b"Content-Type: multipart/mixed; boundary=\n\n",
        b"Content-Type: message/rfc822\n\n" * 3000,
        b"x: boundary" * 60,
    ]
    for raw in odd:
        async with conn.transaction():
            await sent(conn, room, Letter(raw, f"u+{box.token}@go.example.com", "x@example.net"), now)
            assert await rows(conn) == {(jane, NEWSLETTER, "choice", "stop")}, raw[:40]
            await conn.execute("truncate consent, address, event")


async def test_an_unsubscribe_outranks_a_choice_that_a_clock_dated_later(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, jane: UUID
) -> None:
    address = box.addresses.read("jane@example.org")
    ahead = now + timedelta(hours=1)
    await ledger.record(conn, [Change(address, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", ahead)], now=ahead)
    await sent(conn, room, wish(f"u+{box.token}@go.example.com"), now)
    assert await stops(conn, jane) == [NEWSLETTER]


async def test_a_letter_that_is_delivered_again_does_not_stop_what_was_chosen_since(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, jane: UUID
) -> None:
    address = box.addresses.read("jane@example.org")
    letter = wish(f"u+{box.token}@go.example.com")
    await sent(conn, room, letter, now)
    await ledger.record(conn, [Change(address, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", now)], now=now)
    await sent(conn, room, replace(letter, raw=b"Received: again\n" + letter.raw), now + timedelta(days=3))
    assert await stops(conn, jane) is None
    await sent(conn, room, wish(f"u+{box.token}@go.example.com", "unsubscribe"), now + timedelta(days=4))  # a new one does
    assert await stops(conn, jane) == [NEWSLETTER]


async def test_a_token_of_any_key_of_the_ring_stops_in_small_letters_too(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, ring: KeyRing, now: datetime
) -> None:
    turned = ring.renewed(date(2027, 1, 1)).retired(1, KeyState.COMPROMISED)
    addresses = Addresses(ring.digest)
    room = Mailroom(shared_catalogue, addresses, turned)
    for topic in ("newsletter", "recovery"):
        scope = shared_catalogue.topic(topic)
        for each in (ring, turned):
            token = Links(each, "go.example.com", "u@go.example.com").token(addresses.read("jane@example.org").key, scope)
            async with conn.transaction():
                await sent(conn, room, wish(f"u+{token.lower()}@go.example.com"), now)
                assert {row[1] for row in await rows(conn)} == {scope.number}
                await conn.execute("truncate consent, address")


async def test_small_letters_stop_nobody_but_the_sender_whose_token_they_are(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime
) -> None:
    token = box.token.lower()
    flipped = token[:-5] + ("a" if token[-5] != "a" else "b") + token[-4:]
    for letter in (
        wish(f"u+{token}@go.example.com", sender="other@example.org"),
        wish(f"u+{flipped}@go.example.com"),
        wish(f"u+{token.upper()}@go.example.com"),
    ):
        await sent(conn, room, letter, now)
    assert await rows(conn) == set()
    assert await aside(conn) == ["sender_not_proven"] * 3


async def test_without_a_configured_server_nobody_is_proven(conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime) -> None:
    await sent(conn, replace(room, authserv=None), box.letter(ENTRY["wish-proven-sender"]), now)
    assert await rows(conn) == set()
    assert await aside(conn) == ["sender_not_proven"]


async def test_a_token_of_a_topic_nobody_knows_stops_all_marketing_of_its_brand(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, jane: UUID
) -> None:
    newsletter = box.catalogue.topic("newsletter")
    for number, expected in ((256 + 200, {MARKETING}), (99 * 256 + 16, {MARKETING}), (288, {MARKETING})):
        token = box.links.token(jane, replace(newsletter, number=number))
        async with conn.transaction():
            await sent(conn, room, wish(f"u+{token}@go.example.com"), now)
            assert {row[1] for row in await rows(conn)} == expected
            await conn.execute("truncate consent, address")


async def test_a_proven_sender_leaves_the_brand_that_was_written_to(
    conn: asyncpg.Connection, two_brands: Catalogue, addresses: Addresses, ring: KeyRing, box: Postbox, now: datetime, jane: UUID
) -> None:
    await known(conn, two_brands)
    room = Mailroom(two_brands, addresses, ring, "mx.example.com")
    proven = box.letter(ENTRY["wish-proven-sender"]).raw
    for recipient, raw, expected in (
        ("u@go.example.com", proven, {MARKETING}),
        ("leave@go.example.net", proven, {SECOND}),
        ("", proven.replace(b"To: u@go.example.com", b"To: <leave@go.example.net>"), {SECOND}),  # a pipe that tells no recipient
        ("", proven.replace(b"To: u@go.example.com", b"To: us"), {MARKETING, SECOND}),  # the doubt is how much to stop
    ):
        async with conn.transaction():
            await sent(conn, room, Letter(raw, recipient, None), now)
            assert await rows(conn) == {(jane, scope, "choice", "stop") for scope in expected}
            await conn.execute("truncate consent, address")


@pytest.mark.parametrize("words", ["subscribe me", "resubscribe", "START", "yes", "I want to get your newsletter again"])
async def test_no_letter_turns_anything_on(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, jane: UUID, words: str
) -> None:
    address = box.addresses.read("jane@example.org")
    await ledger.record(conn, [Change(address, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.MAIL, "s", now)], now=now)
    proven = box.letter(ENTRY["wish-proven-sender"])
    raw = proven.raw.replace(b"Please unsubscribe me", words.encode()).replace(b"Subject: unsubscribe", b"Subject: hello")
    for recipient in ("u@go.example.com", f"u+{box.token}@go.example.com"):
        await sent(conn, room, replace(proven, raw=raw, recipient=recipient), now)
    assert {effect for *_, effect in await rows(conn)} == {"stop"}
    assert NEWSLETTER in (await stops(conn, jane) or [])
    assert await aside(conn) == ["words"]


async def test_a_notice_of_absence_that_says_it_is_none_stops_nobody(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime
) -> None:
    """It comes to the return path and quotes the newsletter, link and all."""
    quoted = f"I am on holiday until Monday.\n\n> Leave: https://go.example.com/u/{box.token}"
    await sent(conn, room, wish(f"bounces+{box.token}@go.example.com", quoted), now)
    assert await rows(conn) == set()
    assert await aside(conn) == ["words"]


async def test_a_brand_that_is_written_to_at_bounces_is_left_there(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing, box: Postbox, now: datetime, jane: UUID
) -> None:
    brand = shared_catalogue.brand[0].model_copy(update={"mailto": "bounces@go.example.com"})
    room = Mailroom(shared_catalogue.model_copy(update={"brand": (brand,)}), addresses, ring)
    await sent(conn, room, wish(f"bounces+{box.token}@go.example.com"), now)
    assert await rows(conn) == {(jane, NEWSLETTER, "choice", "stop")}


async def test_a_token_in_an_encoded_subject_stops(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, jane: UUID
) -> None:
    encoded = b64encode(f"unsubscribe {box.token}".encode()).decode()
    raw = f"From: x@example.net\nSubject: =?utf-8?b?{encoded}?=\n\n"
    await sent(conn, room, Letter(raw.encode(), "u@go.example.com", "x@example.net"), now)
    assert await rows(conn) == {(jane, NEWSLETTER, "choice", "stop")}


# Bounces and complaints


async def test_a_late_bounce_by_mail_does_not_outrank_a_correction_by_staff(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, jane: UUID
) -> None:
    """The report is of 08:05; staff corrected the address at 11:00; it arrives at 12:00."""
    address = box.addresses.read("jane@example.org")
    eleven = now - timedelta(hours=1)
    await ledger.record(conn, [Change(address, ROOT, Cause.BOUNCE, Effect.GO, Door.STAFF, "ticket", eleven)], now=eleven)
    await sent(conn, room, box.letter(ENTRY["bounce-postfix-no-such-mailbox"]), now)
    assert await stops(conn, jane) is None
    later = box.letter(ENTRY["bounce-sendmail"])
    raw = later.raw.replace(b"Sun, 22 Nov 2026 08:0", b"Sun, 22 Nov 2026 11:3").replace(b"<dsn.1@", b"<dsn.2@")
    await sent(conn, room, replace(later, raw=raw), now)
    assert await stops(conn, jane) == [ROOT]


async def test_a_date_that_cannot_be_is_the_time_of_receipt(conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime) -> None:
    letter = box.letter(ENTRY["complaint-yahoo"])
    for n, said in enumerate(
        ("Sun, 22 Nov 2099 08:00:00 +0000", "Thu, 1 Jan 1970 00:00:00 +0000", "yesterday", "", "Mon, 99 Foo 20 99:99")
    ):
        raw = letter.raw.replace(b"Sun, 22 Nov 2026 09:10:00 +0000", said.encode()).replace(b"<arf.1@", f"<{n}@".encode())
        await sent(conn, room, replace(letter, raw=raw), now)
    assert {row["at"] for row in await conn.fetch("select at from consent")} == {now}
    assert await conn.fetchval("select count(*) from consent") == 5


async def test_soft_bounces_by_mail_come_to_a_hold_that_ends(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, jane: UUID
) -> None:
    letter = box.letter(ENTRY["bounce-postfix-expired"])
    for n in range(room.catalogue.soft_bounces.threshold):
        assert await rows(conn) == set()
        await sent(conn, room, replace(letter, raw=letter.raw.replace(b"<dsn.1@", f"<dsn.{n}@".encode())), now)
    assert await rows(conn) == {(jane, ROOT, "soft", "stop")}
    assert await conn.fetchval("select until < 'infinity' from consent")


async def test_a_complaint_whose_brand_nobody_can_tell_is_one_about_every_brand(
    conn: asyncpg.Connection, two_brands: Catalogue, addresses: Addresses, ring: KeyRing, box: Postbox, now: datetime, jane: UUID
) -> None:
    await known(conn, two_brands)
    room = Mailroom(two_brands, addresses, ring)
    for name, recipient, expected in (
        ("complaint-original-recipient", "leave@go.example.net", {SECOND}),
        ("complaint-original-recipient", "", {MARKETING}),  # its To field is an address of the first brand
        ("complaint-original-recipient", "abuse", {MARKETING, SECOND}),
        ("complaint-yahoo", "leave@go.example.net", {MARKETING}),  # our token says which
    ):
        letter = replace(box.letter(ENTRY[name]), recipient=recipient)
        raw = letter.raw.replace(b"To: bounces@go.example.com\n", b"To: us\n") if recipient == "abuse" else letter.raw
        async with conn.transaction():
            await sent(conn, room, replace(letter, raw=raw), now)
            assert await rows(conn) == {(jane, scope, "complaint", "stop") for scope in expected}, (name, recipient)
            await conn.execute("truncate consent, address")


async def test_a_report_about_more_recipients_than_a_message_has_stops_none(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime
) -> None:
    letter = box.letter(ENTRY["bounce-encoded-report"])
    for many, expected in ((100, 100), (101, 0)):
        groups = "".join(f"\nFinal-Recipient: rfc822; p{n}@example.org\nAction: failed\nStatus: 5.1.1\n" for n in range(many))
        raw = f"Return-Path: <>\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; x\n{groups}"
        async with conn.transaction():
            await sent(conn, room, replace(letter, raw=raw.encode()), now)
            assert len(await rows(conn)) == expected
            await conn.execute("truncate consent, address")
    assert await aside(conn) == ["too_many_recipients"]


async def test_a_report_that_names_one_person_a_hundred_times_is_one_row(
    conn: asyncpg.Connection, room: Mailroom, addresses: Addresses, now: datetime
) -> None:
    """However it spells that person, and soft bounces too: else one letter would come to the hold that several days should."""
    spelled = ("jane@example.org", "Jane@example.org", "jane@EXAMPLE.org", "JANE@Example.Org")
    for code in ("5.1.1", "5.2.2"):
        groups = "".join(f"\nFinal-Recipient: rfc822; {spelled[n % 4]}\nAction: failed\nStatus: {code}\n" for n in range(99))
        groups += "\nFinal-Recipient: rfc822; other@example.org\nAction: failed\nStatus: 5.1.1\n"
        raw = f"Message-ID: <{code}@example.net>\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; x\n{groups}"
        await sent(conn, room, Letter(raw.encode(), "bounces@go.example.com", ""), now)
    jane, other = (addresses.heard(whose).key for whose in ("jane@example.org", "other@example.org"))
    assert sorted(row[0] for row in await conn.fetch("select key from consent")) == sorted([jane, other, other])  # a row for each letter
    assert await conn.fetchval("select count(*) from soft_bounce where key = $1", jane) == 1
    assert await aside(conn) == []


async def test_a_letter_touches_no_transactional_mail_unless_the_mailbox_is_gone(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime
) -> None:
    for entry in ENTRIES:
        await sent(conn, room, box.letter(entry), now)
    reached = {(scope, cause) for _, scope, cause, _ in await rows(conn)}
    assert {scope for scope, cause in reached if cause in ("choice", "complaint")} <= {MARKETING, NEWSLETTER}
    assert {cause for scope, cause in reached if scope == ROOT} == {"bounce"}


def files() -> Iterable[str]:
    return (entry["file"] for entry in ENTRIES)


def test_the_corpus_is_whole() -> None:
    assert sorted(files()) == sorted(path.name for path in FOLDER.glob("*.eml"))
