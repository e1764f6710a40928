"""SparkPost is heard: its bounces by class, its suppressions, and its pings."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mailprefs.providers.base import Delivery, Heard
from mailprefs.providers.sparkpost import SparkPost
from mailprefs.words import Event, Kind

from .case_sparkpost import CASE, HULLS
from .cases import RECEIVED

SPARKPOST = SparkPost()
BOUNCE = {
    "type": "bounce",
    "bounce_class": "10",
    "error_code": "550",
    "event_id": "84345317653491230",
    "raw_rcpt_to": "Gone@example.com",
    "rcpt_to": "gone@example.com",
    "raw_reason": "550 5.1.1 <Gone@example.com>: Recipient address rejected: User unknown",
    "timestamp": "1700000000",
}


def heard(*hulls: object) -> Heard:
    return SPARKPOST.parse(Delivery([], json.dumps([{"msys": hull} for hull in hulls]).encode(), RECEIVED))


def event(told: dict[str, Any], cls: str = "message_event") -> Event:
    [found] = heard({cls: told}).events
    return found


def test_a_hard_bounce_says_who_when_and_why() -> None:
    assert event(BOUNCE) == Event(
        Kind.BOUNCED_HARD, "84345317653491230", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "Gone@example.com", detail="5.1.1"
    )


def test_every_documented_event_says_the_same_under_its_own_class() -> None:
    told = heard(*HULLS)
    assert told == CASE.heard(list(CASE.documented.values()))
    assert len({next(iter(hull)) for hull in HULLS}) > 4


def test_a_ping_says_nothing_and_is_counted() -> None:
    told = SPARKPOST.parse(Delivery([], b'[{"msys":{}}]', RECEIVED))
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {"ping": 1})
    assert SPARKPOST.parse(Delivery([], b"[]", RECEIVED)) == Heard()


def test_a_suppressed_address_is_an_echo_whoever_suppressed_it() -> None:
    for policy in ("customer", "system"):
        reason = f"554 5.7.1 [internal] Recipient address was suppressed due to {policy} policy"
        told = heard({"message_event": BOUNCE | {"bounce_class": "25", "error_code": "554", "raw_reason": reason}})
        assert (told.events, told.kept, dict(told.counted)) == ((), (), {"dropped": 1})


def test_a_class_is_read_as_number_or_text() -> None:
    for code in (90, "90"):
        assert event(BOUNCE | {"bounce_class": code}).kind is Kind.UNSUBSCRIBED


@pytest.mark.parametrize("code", ["31", "11", "0", "", None, [], 10.0, True, "٣٠", " 10"])
def test_a_class_that_is_not_known_is_hard_only_on_evidence(code: object) -> None:
    told = BOUNCE | {"bounce_class": code}
    assert event(told).kind is Kind.BOUNCED_HARD
    for reason in ("550 5.7.1 refused", "550 refused", "550 5.2.1 closed for now", None, 7):
        assert event(told | {"raw_reason": reason}).kind is Kind.BOUNCED_SOFT


def test_an_automatic_answer_moves_nothing() -> None:
    told = heard(
        {"message_event": BOUNCE | {"bounce_class": "60"}}, {"message_event": BOUNCE | {"type": "out_of_band", "bounce_class": "100"}}
    )
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {"bounce": 1, "out_of_band": 1})


@pytest.mark.parametrize(
    ("given", "group"),
    [({}, None), ({"list_id": None}, None), ({"list_id": "newsletter.example.com"}, "newsletter.example.com"), ({"list_id": 7}, "")],
)
def test_an_unsubscribe_says_from_which_list_or_from_all(given: dict[str, object], group: str | None) -> None:
    for word in ("list_unsubscribe", "link_unsubscribe"):
        assert event(BOUNCE | {"type": word} | given, "unsubscribe_event").group == group


@pytest.mark.parametrize(
    "hull", [None, 7, [], "x", {"message_event": None}, {"message_event": []}, {"message_event": BOUNCE, "track_event": BOUNCE}]
)
def test_what_is_no_event_of_one_class_is_kept(hull: object) -> None:
    told = heard(hull)
    assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_received_mail_is_kept_and_stops_nobody() -> None:
    told = heard({"relay_message": {"content": {"to": ["a@example.com"]}, "rcpt_to": "a@example.com"}})
    assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_an_event_is_known_by_its_number_or_uuid_or_by_what_it_says() -> None:
    assert event(BOUNCE | {"event_id": 84345317653491230}).id == event(BOUNCE).id
    assert event(BOUNCE | {"event_id": "7e1b0ac5-2a4f-4b4e-9a4e-1d8b6a1f2c3d"}).id == "7e1b0ac5-2a4f-4b4e-9a4e-1d8b6a1f2c3d"
    nameless = {key: BOUNCE[key] for key in BOUNCE if key != "event_id"}
    assert event(nameless).id == event(nameless | {"user_agent": "x"}).id
    assert (
        len(
            {
                event(nameless | change).id
                for change in ({}, {"rcpt_to": "b@example.com"}, {"timestamp": "1700000001"}, {"bounce_class": "30"})
            }
        )
        == 4
    )


def test_happened_at_is_read_from_seconds_or_iso() -> None:
    moment = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    for written in ("1700000000", 1700000000, "2023-11-14T22:13:20.000+00:00", "2023-11-14T22:13:20.000Z"):
        assert event(BOUNCE | {"timestamp": written}).happened_at == moment


def test_an_event_without_recipient_is_kept_unless_it_has_our_token() -> None:
    nobody = BOUNCE | {"raw_rcpt_to": "", "rcpt_to": None}
    assert [kept.reason for kept in heard({"message_event": nobody}).kept] == ["no_recipient"]
    assert event(nobody | {"rcpt_meta": {"mailprefs": "our-token"}}).token == "our-token"
    assert event(BOUNCE | {"raw_rcpt_to": None}).address == "gone@example.com"
