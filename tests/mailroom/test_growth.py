"""What a letter costs grows as the letter does, and hardly with the number of those whom it came to."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import pairwise

import pytest

from mailprefs import letters
from mailprefs.letters import Letter
from mailprefs.mailroom import Mailroom

from .postbox import Postbox

SIZES = [letters.READ // 64, letters.READ // 16, letters.READ // 4, letters.READ]  # octets, each four times the one before it
STEEP = 9  # times as long: what is linear takes four times, what takes the square sixteen
NOISE = 0.004  # seconds below which nothing can be said of growth

WISH = b"From: jane@example.org\nTo: u@go.example.com\n"
HTML = WISH + b"Content-Type: text/html\n\n"
REPORT = b"From: MAILER-DAEMON@mx.example.net\nTo: bounces@go.example.com\n"
GROUPS = b"Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n"
MARKS = "\u0315\u0300".encode()  # their order is put right, pair by pair

SHAPES: dict[str, tuple[bytes, bytes]] = {  # a head, and what is said again and again
    "open styles": (HTML, b"<style "),
    "open styles of each kind": (HTML, b"<style <script <title "),
    "closed styles": (HTML, b"<style></style>"),
    "brackets": (HTML, b"<"),
    "ends without tags": (HTML, b"</style"),
    "references": (HTML, b"&#"),
    "digits": (HTML + b"&#", b"9"),
    "quotations": (HTML, b"class=gmail "),
    "parts with open styles": (
        WISH + b"Content-Type: multipart/mixed; boundary=b\n\n",
        b"--b\nContent-Type: text/html\n\n" + b"<style " * 50 + b"\n",
    ),
    "marks on a letter": (WISH + b"Content-Type: text/plain; charset=utf-8\n\na", MARKS),
    "parts with marks": (
        WISH + b"Content-Type: multipart/mixed; boundary=b\n\n",
        b"--b\nContent-Type: text/plain; charset=utf-8\n\na" + MARKS * 100 + b"\n",
    ),
    "parameters": (WISH + b"Content-Type: text/html", b";a=b"),
    "parameters with a quote": (WISH + b'Content-Type: text/html;"', b";"),
    "parameters of a multipart": (WISH + b'Content-Type: multipart/mixed;"', b";"),
    "parameters of a disposition": (WISH + b'Content-Disposition: inline;"', b";"),
    "parameters in a returned head": (REPORT + b'Content-Type: text/rfc822-headers\n\nContent-Type: text/plain;"', b";"),
    "lists": (WISH + b"\n", b"off off "),
    "attributions": (WISH + b"\n", b"on on on "),
    "lines": (WISH + b"\n", b"_"),
    "signatures": (WISH + b"\n", b"von meinem "),
    "refusals": (WISH + b"\n", b"do not do "),
    "links": (WISH + b"\n", b"a@/"),
    "stops": (WISH + b"\n", b"a."),
    "tokens": (WISH + b"\n", b"a" * 26 + b"." + b"a" * 18 + b" "),
    "subject": (b"Subject: ", b"=?x?q?"),
    "subjects": (WISH, b"Subject: " + b"=?x?q?" * 100 + b"\n"),
    "senders": (b"From: ", b"a"),
    "quotes": (b"From: ", b'"'),
    "results": (WISH + b"Authentication-Results: mx.example.com; ", b"("),
    "codes": (REPORT + b"\n", b"5.1."),
    "addresses": (REPORT + b"\n", b"a@"),
    "lines of addresses": (REPORT + b"\n", b"<a@example.org>: user unknown\n"),
    "groups": (GROUPS, b"Final-Recipient: rfc822; a@example.org\nAction: failed\nStatus: 5.1.1\n\n"),
    "blank lines": (GROUPS, b"\n \t \n"),
    "a diagnosis": (GROUPS + b"Final-Recipient: rfc822; a@b\nAction: failed\nDiagnostic-Code: ", b"5.1."),
    "a redacted recipient": (REPORT + b"Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nOriginal-Rcpt-To: ", b"a@a."),
}


def took(action: Callable[[], object]) -> float:
    """Return the processor time in seconds of the quickest of some runs."""
    return min(_once(action) for _ in range(3))


def _once(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


def is_steep(times: list[float]) -> bool:
    return any(after > STEEP * max(before, NOISE) for before, after in pairwise(times))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_four_times_the_letter_takes_about_four_times_as_long(room: Mailroom, now: datetime, shape: tuple[bytes, bytes]) -> None:
    head, again = shape
    raws = [head + again * ((size - len(head)) // len(again)) for size in SIZES]
    assert not is_steep([took(partial(room.read, Letter(raw, "u@go.example.com"), now=now)) for raw in raws])


def test_what_takes_the_square_is_seen() -> None:
    """The control: a pattern that seeks an end from each of many beginnings."""
    seek = re.compile(r"<s.*?</s")
    assert is_steep([took(partial(seek.sub, "", "<s" * many)) for many in (500, 2000, 8000)])
    assert not is_steep([took(partial(seek.sub, "", "<s</s" * many)) for many in (500, 2000, 8000)])


def test_a_letter_to_a_hundred_is_read_once(room: Mailroom, box: Postbox, now: datetime) -> None:
    raw = HTML + b"<p>hello</p> " * 18_000
    read = room.opened(Letter(raw, sender="jane@example.org"), now=now)
    recipients = [f"u+a{n}@go.example.com" for n in range(100)]
    once = took(lambda: room.opened(Letter(raw, sender="jane@example.org"), now=now))
    each = took(lambda: [room.said(read, recipient) for recipient in recipients]) / len(recipients)
    assert each < once / 4
    assert room.said(read, f"u+{box.token}@go.example.com").stops  # the control: they differ in whom they are for
    assert not room.said(read, recipients[0]).stops
