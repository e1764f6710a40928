"""What mail systems report: each recipient on its own, hard only where a code says that there is no such mailbox."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes

import pytest
from flufl.bounce import all_failures

from mailprefs import reports
from mailprefs.letters import Letter, opened
from mailprefs.links import KeyRing
from mailprefs.providers.base import Heard
from mailprefs.words import Kind

from .postbox import ENTRIES, FOLDER, Postbox

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, Kind.BOUNCED_HARD) for code in ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10")),
        *((code, Kind.BLOCKED) for code in ("5.3.4", "5.6.0", "5.7.1", "5.7.26", "5.7.515")),
        *((code, Kind.BOUNCED_SOFT) for code in ("5.0.0", "5.1.0", "5.1.4", "5.1.7", "5.1.8", "5.1.9", "5.2.0", "5.2.1", "5.2.2", "5.4.1")),
        *((code, Kind.BOUNCED_SOFT) for code in ("4.1.1", "4.4.7", "4.7.1", "5.1.11", "5.11.1", "2.0.0", "")),
    ],
)
def test_only_a_code_that_blames_the_address_is_a_hard_bounce(code: str, kind: Kind) -> None:
    assert reports.severity(code) is kind


def read(letter: Letter, ring: KeyRing) -> Heard | None:
    top = opened(letter)
    report = reports.read(top, now=NOW)
    return reports.heard(top, report, letter.recipient, ring) if report else None


def heard(ring: KeyRing, *groups: str, head: str = "") -> list[tuple[Kind, str | None, str]]:
    raw = f"{head}Return-Path: <>\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n" + "\n\n".join(groups)
    found = read(Letter(raw.encode(), sender=""), ring)
    assert found is not None
    return [(event.kind, event.address, event.detail) for event in found.events]


@pytest.mark.parametrize(
    ("status", "diagnosis", "detail"),
    [
        ("5.1.1", "", "5.1.1"),
        ("5.1.1 (no such user)", "smtp; 550 5.7.1 go away", "5.1.1"),
        ("5.0.0", "smtp; 550 5.1.1 no such user", "5.1.1"),
        ("5.0.0", "smtp; 550 no such user at 192.5.1.1", "5.0.0"),
        ("", "smtp; 550 #5.1.1 no such user", "5.1.1"),
        ("5.0.0", "", "5.0.0"),
        ("nonsense", "nonsense", ""),
    ],
)
def test_the_diagnosis_counts_where_the_status_says_nothing(ring: KeyRing, status: str, diagnosis: str, detail: str) -> None:
    group = f"Final-Recipient: rfc822; a@example.org\nAction: Failed (permanently)\nStatus: {status}\nDiagnostic-Code: {diagnosis}"
    assert heard(ring, group) == [(reports.severity(detail), "a@example.org", detail)]


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ("Original-Recipient: rfc822;a@example.org\nFinal-Recipient: rfc822;b@example.org", "a@example.org"),
        ("Original-Recipient: unknown;x\nFinal-Recipient: rfc822;b@example.org", "b@example.org"),
        ("Final-Recipient: rfc822; <a@example.org>", "a@example.org"),
        ("Final-Recipient: RFC822;\n a@example.org", "a@example.org"),
        ("Final-Recipient: a@example.org", "a@example.org"),
        ("Final-Recipient: utf-8; jos\\x{E9}@example.org", "josé@example.org"),
        ("Final-Recipient: rfc822; jos\\x{E9}@example.org", "jos\\x{E9}@example.org"),
    ],
)
def test_whose_bounce_it_is_stands_in_the_original_recipient_first(ring: KeyRing, fields: str, address: str) -> None:
    assert heard(ring, f"{fields}\nAction: failed\nStatus: 5.1.1") == [(Kind.BOUNCED_HARD, address, "5.1.1")]


def test_a_recipient_that_cannot_be_read_costs_no_other_one(ring: KeyRing) -> None:
    groups = [f"Final-Recipient: {each}\nAction: failed\nStatus: 5.1.1" for each in ("x400; /S=x/", "rfc822; a@example.org", "rfc822; b b")]
    assert heard(ring, *groups) == [(Kind.BOUNCED_HARD, "a@example.org", "5.1.1")]


def test_what_comes_back_to_a_token_is_about_the_one_whom_it_names_or_nobody(box: Postbox, ring: KeyRing) -> None:
    group = "Final-Recipient: rfc822; victim@example.net\nAction: failed\nStatus: 5.1.1\n\n"
    raw = f"Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n{group}"
    forged = box.token[:-2] + ("AA" if box.token[-2:] != "AA" else "QQ")
    for recipient, many, tokens, kept in (
        (f"bounces+{box.token}@go.example.com", 1, [box.token], []),
        (f"bounces+{box.token}@go.example.com", 2, [], ["token_unreadable"]),
        (f"bounces+{forged}@go.example.com", 1, [], ["token_unreadable"]),
        (f"bounces+{box.token.lower()}@go.example.com", 1, [], ["token_unreadable"]),
        ("bounces@go.example.com", 1, [None], []),  # the control
    ):
        found = read(Letter((raw + group * (many - 1)).encode(), recipient, ""), ring)
        assert found
        assert [event.token for event in found.events] == tokens
        assert [one.reason for one in found.kept] == kept


def test_the_trap_is_there_flufl_bounce_calls_an_expired_message_permanent_and_we_do_not(box: Postbox, ring: KeyRing) -> None:
    entry = next(entry for entry in ENTRIES if entry["file"] == "bounce-postfix-expired.eml")
    raw = (FOLDER / entry["file"]).read_bytes()
    assert all_failures(message_from_bytes(raw)) == (frozenset(), frozenset({b"jane@example.org"}))
    found = read(box.letter(entry), ring)
    assert found
    assert [event.kind for event in found.events] == [Kind.BOUNCED_SOFT]


def test_every_repetition_of_a_report_has_the_same_names_whatever_its_trace(box: Postbox, ring: KeyRing) -> None:
    for entry in ENTRIES:
        letter = box.letter(entry)
        again = Letter(b"Received: by another\n" + letter.raw, letter.recipient, letter.sender)
        names = [{event.id for event in found.events} if (found := read(each, ring)) else set() for each in (letter, again)]
        assert names[0] == names[1] or "qmail" in entry["file"]  # which has no Message-ID
        assert all(len(name) < 100 for name in names[0])
