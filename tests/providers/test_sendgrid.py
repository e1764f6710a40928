"""SendGrid is heard: its own signature vector, and its events one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers.base import Credential, Delivery
from mailprefs.providers.sendgrid import SIGNATURE, TIMESTAMP, SendGrid
from mailprefs.words import Kind

from .case_sendgrid import CASE
from .cases import PAYLOADS, RECEIVED

SENDGRID = SendGrid()


def payload(name: str) -> bytes:
    return (PAYLOADS / "sendgrid" / name).read_bytes()


def heard(events: object) -> list[tuple[str | None, Kind, str | None, str]]:
    """Return what our events say of a batch: address, kind, group, detail."""
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    return [(e.address, e.kind, e.group, e.detail) for e in SENDGRID.parse(Delivery([], body, RECEIVED)).events]


def vector(body: bytes, timestamp: str) -> tuple[Credential, Delivery]:
    given = json.loads(payload("vector.json"))
    headers = [(SIGNATURE, given["signature"]), (TIMESTAMP, timestamp)]
    return Credential("sendgrid-main", {"webhook_key": given["webhook_key"]}), Delivery(headers, body, RECEIVED)


def test_sendgrids_own_vector_is_accepted_and_is_an_echo() -> None:
    credential, delivery = vector(payload("vector.body"), "1600112502")
    SENDGRID.check(credential)
    SENDGRID.verify(credential, delivery)
    told = SENDGRID.parse(delivery)
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {"dropped": 1})


def test_a_digit_moved_between_timestamp_and_body_is_forged() -> None:
    body = payload("vector.body")
    for timestamp, moved in [("160011250", b"2" + body), ("1600112502[", body[1:]), ("", b"1600112502" + body), ("１６", body)]:
        with pytest.raises(Forged):
            SENDGRID.verify(*vector(moved, timestamp))
    SENDGRID.verify(*vector(body, "1600112502"))  # the control


def test_a_bounce_is_hard_only_on_evidence() -> None:
    assert heard(payload("bounces.json")) == [
        ("no-type@example.com", Kind.BOUNCED_HARD, None, "5.0.0"),
        ("no-type-soft@example.com", Kind.BOUNCED_SOFT, None, "4.2.2"),
        ("no-type-reputation@example.com", Kind.BOUNCED_SOFT, None, "5.7.1"),
        ("no-status@example.com", Kind.BLOCKED, None, ""),
        ("unknown-type@example.com", Kind.BOUNCED_SOFT, None, "5.7.9"),
        ("unknown-type-evidence@example.com", Kind.BOUNCED_HARD, None, "5.1.1"),
    ]


def test_an_unsubscribe_says_from_what() -> None:
    assert heard(payload("scopes.json")) == [
        ("int@example.com", Kind.UNSUBSCRIBED, "12345", ""),
        ("text@example.com", Kind.UNSUBSCRIBED, "12345", ""),
        ("none@example.com", Kind.UNSUBSCRIBED, "", ""),
        ("odd@example.com", Kind.UNSUBSCRIBED, "", ""),
        ("all@example.com", Kind.UNSUBSCRIBED, None, ""),
        ("sent-with-group@example.com", Kind.UNSUBSCRIBED, None, ""),
    ]


def test_a_drop_is_counted_whatever_its_reason() -> None:
    told = SENDGRID.parse(Delivery([], payload("drops.json"), RECEIVED))
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {"dropped": 8})


def test_a_trouble_with_the_account_is_kept_for_the_operator() -> None:
    [kept] = SENDGRID.parse(Delivery([], CASE.body([CASE.documented["account_status_change"]]), RECEIVED)).kept
    assert kept.reason == "account_change"


def test_a_ping_says_nothing() -> None:
    told = SENDGRID.parse(Delivery([], b"[]", RECEIVED))
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {})


def test_an_event_without_recipient_is_kept_unless_it_has_our_token() -> None:
    for nobody in ({}, {"email": ""}, {"email": " "}, {"email": None}, {"email": ["a@example.com"]}):
        told = SENDGRID.parse(Delivery([], json.dumps([{"event": "unsubscribe"} | nobody]).encode(), RECEIVED))
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["no_recipient"])
        told = SENDGRID.parse(Delivery([], json.dumps([{"event": "unsubscribe", "mailprefs": "our-token"} | nobody]).encode(), RECEIVED))
        assert [(event.address, event.token) for event in told.events] == [(None, "our-token")]


def test_events_without_an_id_are_told_apart_by_what_they_say() -> None:
    event = {"event": "group_unsubscribe", "email": "a@example.com", "timestamp": 1700000000, "sg_message_id": "m", "asm_group_id": 1}
    others = [
        event | change for change in ({"email": "b@example.com"}, {"timestamp": 1700000001}, {"sg_message_id": "n"}, {"asm_group_id": 2})
    ]
    body = json.dumps([event, event | {"useragent": "x"}, *others]).encode()
    ids = [event.id for event in SENDGRID.parse(Delivery([], body, RECEIVED)).events]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 1 + len(others)


def test_happened_at_is_sendgrids_time_as_number_or_text() -> None:
    for timestamp in (1700000000, "1700000000", 1700000000.0):
        body = json.dumps([{"event": "spamreport", "email": "a@example.com", "timestamp": timestamp}]).encode()
        [event] = SENDGRID.parse(Delivery([], body, RECEIVED)).events
        assert event.happened_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_a_group_that_is_no_number_refuses_to_start() -> None:
    for group in ("newsletter", "", "12345/../1", "１", "-1"):
        with pytest.raises(Misconfigured, match="known by its number"):
            SENDGRID.check(replace(CASE.credential, options={"scopes": {"newsletter": "12345", "offers": group}}))
