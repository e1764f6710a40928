"""Brevo is heard: both of its spellings, its times, and its campaigns."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mailprefs.errors import Forged
from mailprefs.providers.base import Delivery, Heard
from mailprefs.providers.brevo import Brevo
from mailprefs.words import Event, Kind

from .basic import PASSWORD, PASSWORD_NEXT
from .case_brevo import CASE
from .cases import PAYLOADS, RECEIVED

BREVO = Brevo()
BOUNCE = {"event": "hard_bounce", "email": "gone@example.com", "message-id": "<1@example.org>", "ts_epoch": 1700000000000}


def heard(told: object) -> Heard:
    return BREVO.parse(Delivery([], json.dumps(told).encode(), RECEIVED))


def event(told: object) -> Event:
    [found] = heard(told).events
    return found


def test_one_event_alone_says_what_it_says_in_an_array() -> None:
    assert heard(BOUNCE) == heard([BOUNCE])
    assert len(heard([BOUNCE, BOUNCE | {"email": "b@example.com"}]).events) == 2


@pytest.mark.parametrize(
    ("configured", "posted"),
    [
        ("hardBounce", "hard_bounce"),
        ("softBounce", "soft_bounce"),
        ("listAddition", "list_addition"),
        ("invalidEmail", "invalid_email"),
        ("Unsubscribed", "unsubscribed"),
    ],
)
def test_an_event_is_the_same_in_both_spellings(configured: str, posted: str) -> None:
    assert event(BOUNCE | {"event": configured}) == event(BOUNCE | {"event": posted})


def test_a_block_is_an_echo_and_an_error_nobodys_fault() -> None:
    told = heard([BOUNCE | {"event": "blocked", "reason": "blocked : due to blacklist user"}, BOUNCE | {"event": "error"}])
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {"dropped": 1, "error": 1})


def test_happened_at_is_the_time_that_is_utc_in_milliseconds_or_seconds() -> None:
    moment = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    for epoch in (1700000000000, 1700000000, 1700000000000.0):  # Brevo's own samples write seconds where its text says milliseconds
        assert event(BOUNCE | {"ts_epoch": epoch, "ts_event": 1690000000, "ts": 1690000000}).happened_at == moment
    assert event(BOUNCE | {"ts_epoch": 1700000000123}).happened_at == moment + timedelta(milliseconds=123)


def test_without_a_time_that_is_utc_an_event_never_counts_as_before_it_can_have_happened() -> None:
    campaign = {"event": "unsubscribe", "email": "a@example.com", "camp_id": 1}
    then = int((RECEIVED - timedelta(days=30)).timestamp())
    assert event(campaign | {"ts_event": then}).happened_at == RECEIVED - timedelta(days=30) + timedelta(hours=14)
    assert event(campaign | {"ts_event": int(RECEIVED.timestamp()) - 60}).happened_at == RECEIVED
    for odd in (None, "soon", True, 0, -1, 10**400, 1e300):
        assert event(campaign | {"ts_event": odd}).happened_at == RECEIVED


def test_the_events_of_a_campaign_are_told_apart_by_what_they_say() -> None:
    told = json.loads((PAYLOADS / "brevo" / "marketing.json").read_bytes())
    found = heard(told)
    assert [(e.kind, e.group, e.detail) for e in found.events] == [
        (Kind.COMPLAINED, None, ""),
        (Kind.UNSUBSCRIBED, None, ""),
        (Kind.BOUNCED_HARD, None, "5.1.1"),
        (Kind.BOUNCED_SOFT, None, ""),
    ]
    assert dict(found.counted) == {"opened": 1, "click": 1}
    assert len({e.id for e in found.events}) == 4
    assert [e.id for e in heard(told).events] == [e.id for e in found.events]
    assert event(told[0] | {"camp_id": 13}).id != event(told[0]).id


def test_who_unsubscribes_leaves_all_marketing_whatever_list_the_message_was_sent_to() -> None:
    for lists in ([3], [3, 22], [], 3, "3", None):
        assert event(BOUNCE | {"event": "unsubscribe", "list_id": lists}).group is None


def test_our_token_is_read_from_text_or_object_and_from_nothing_else() -> None:
    for custom in ('{"mailprefs": "our-token"}', {"mailprefs": "our-token"}, ' {"mailprefs": "our-token", "x": [1]}'):
        found = event(BOUNCE | {"X-Mailin-custom": custom, "email": ""})
        assert (found.address, found.token) == (None, "our-token")
    for nothing in ("our-token", '{"mailprefs": 7}', '{"mailprefs": "a", "mailprefs": "b"}', "[", None, 7, ["mailprefs"]):
        assert event(BOUNCE | {"X-Mailin-custom": nothing}).token is None


def test_an_event_without_recipient_is_kept() -> None:
    for nobody in (None, "", " ", ["a@example.com"], 7):
        assert [kept.reason for kept in heard(BOUNCE | {"email": nobody}).kept] == ["no_recipient"]


def test_received_mail_is_kept_and_stops_nobody() -> None:
    told = heard({"items": [{"From": {"Address": "a@example.com"}}]})
    assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_the_password_is_accepted_as_a_bearer_too() -> None:
    signed = CASE.sign(b"[]")

    def bearing(token: str) -> Delivery:
        return replace(signed, headers=[("Authorization", token)])

    BREVO.verify(CASE.credential, bearing(f"Bearer {PASSWORD}"))
    BREVO.verify(CASE.rotated, bearing(f"Bearer {PASSWORD_NEXT}"))
    for other in (
        f"Bearer {PASSWORD_NEXT}",
        f"bearer {PASSWORD}",
        f"Bearer  {PASSWORD}",
        f"Bearer {PASSWORD} ",
        "Bearer ",
        "Bearer é",
        PASSWORD,
    ):
        with pytest.raises(Forged):
            BREVO.verify(CASE.credential, bearing(other))
