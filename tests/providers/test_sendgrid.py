"""SendGrid is heard: its own signature vector, and its events one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers import reading
from mailprefs.providers.base import Credential, Delivery, Heard
from mailprefs.providers.sendgrid import PASSING, SIGNATURE, TIMESTAMP, SendGrid
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


# Most of a delivery changes nothing, and is only counted


def compact(*events: object) -> bytes:
    return json.dumps(events, separators=(",", ":")).encode()


def whole(body: bytes) -> Heard:
    """Return what a body says when all of it is read: with a space where SendGrid writes none."""
    return SENDGRID.parse(Delivery([], b"[ " + body[1:], RECEIVED))


def quick(body: bytes) -> Heard:
    return SENDGRID.parse(Delivery([], body, RECEIVED))


def opened(**more: object) -> dict[str, object]:
    return {
        "email": "jane@example.com",
        "timestamp": 1763812800,
        "event": "open",
        "sg_event_id": "o-1",
        "url": "https://example.com/?a",
        **more,
    }


LEFT = {"email": "alex@example.com", "timestamp": 1763812800, "event": "unsubscribe", "sg_event_id": "u-1", "useragent": "x"}


def test_a_delivery_says_the_same_whether_it_is_sifted_or_read_whole() -> None:
    documented = json.loads(payload("documented.json"))
    body = compact(*documented, *[opened(sg_event_id=f"o-{n}") for n in range(60)])
    assert reading.batch(body, PASSING).passed["open"] > 60  # the control: it was sifted
    assert not reading.batch(b"[ " + body[1:], PASSING).passed
    assert quick(body) == whole(body)
    assert len(quick(body).events) > 5


def test_a_delivery_that_begins_otherwise_than_it_goes_on_says_the_same() -> None:
    """What it begins with decides how it is read, and nothing else."""
    bounces = [{**LEFT, "event": "bounce", "type": "bounce", "sg_event_id": f"b-{n}"} for n in range(200)]
    for body in (compact(*bounces, *[opened()] * 900), compact(*[opened()] * 200, *bounces, *[opened()] * 500)):
        assert quick(body) == whole(body)
        assert len(quick(body).events) == 200
    assert reading.batch(body, PASSING).passed["open"] == 700  # the control: the second was sifted


@pytest.mark.parametrize(
    "strange",
    [
        compact(LEFT | {"useragent": "},{"}),
        compact(LEFT | {"useragent": '},{"event":"open"},{'}),
        compact(opened(useragent='},{"event":"open"'), LEFT),
        compact(LEFT | {"custom": [{"a": 1}, {"event": "open"}, {"b": 1}]}),
        compact({"custom": [{"event": "open"}, {"event": "open"}]} | LEFT),
        compact({"custom": {"event": "open"}} | LEFT, {"email": "x@example.com"}),
        compact(opened(custom={"event": "open"}), LEFT, opened(), {"email": "x@example.com"}),
        compact(opened(custom={"event": "open"}), LEFT, LEFT | {"sg_event_id": "u-2"}, {"email": "x@example.com"}),
        compact(LEFT).replace(b'"event":', b'"event" : '),
        compact(LEFT | {"custom": {"event": "open"}}).replace(b'"event":"unsubscribe"', b'"\\u0065vent":"unsubscribe"'),
        compact({'a"event': "open"} | LEFT),
        compact(LEFT).replace(b'"event":"unsubscribe"', b'"event":"unsubscri\\u0062e"'),
    ],
)
def test_no_stop_is_passed_over_however_strange_its_neighbours_and_its_spelling(strange: bytes) -> None:
    body = compact(*[opened(sg_event_id=f"o-{n}") for n in range(20)])[:-1] + b"," + strange[1:]
    assert quick(body).events == whole(body).events
    assert {event.address for event in quick(body).events} == {"alex@example.com"}


def test_no_stop_is_passed_over_in_deliveries_that_are_broken_at_random() -> None:
    random, sifted = Random(5), 0
    seed = compact(
        *[opened(sg_event_id=f"o-{n}") for n in range(12)], LEFT, opened(custom=[{"event": "open"}, {"b": 1}]), LEFT | {"url": "u"}
    )
    bits = [b"},{", b'"event":"open",', b'"event":', b'"event"', b'"', b"{", b"}", b"\\", b"[", b"]", b",", b'"unsubscribe"', b" "]
    for _ in range(4_000):
        body = bytearray(seed)
        for _ in range(random.randint(1, 4)):
            at = random.randrange(2, len(body))
            body[at : at + random.choice((0, 0, 1, 12))] = random.choice(bits)
        sifted += bool(reading.batch(bytes(body), PASSING).passed)
        assert set(whole(bytes(body)).events) <= set(quick(bytes(body)).events)
    assert sifted > 400  # the control
