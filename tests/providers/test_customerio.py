"""Customer.io is heard: what it signs, whom its events are about, and which topics were turned off."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers.base import Delivery, Heard
from mailprefs.providers.customerio import PREFERENCES, TIMESTAMP, CustomerIo
from mailprefs.words import Event, Kind

from .case_customerio import CASE, KEY, signer
from .cases import RECEIVED, with_header

CUSTOMERIO = CustomerIo()
PERSON = {"email_address": "alex@example.com", "identifiers": {"email": "old@example.com"}}


def listen(told: object) -> Heard:
    return CUSTOMERIO.parse(Delivery([], json.dumps(told).encode(), RECEIVED))


def told(of: str | None, metric: str, **about: object) -> dict[str, object]:
    return {"event_id": "e-1", "object_type": of, "metric": metric, "timestamp": 1763801234, "data": about}


def changed(content: object) -> Heard:
    return listen(told(None, PREFERENCES, content=content if isinstance(content, str) else json.dumps(content), **PERSON))


def only(heard: Heard) -> Event:
    [event] = heard.events
    assert not heard.kept
    return event


def test_no_colon_can_be_moved_between_timestamp_and_body() -> None:
    body = b'{"a": 1}'
    CUSTOMERIO.verify(CASE.credential, signer(KEY, "1763801240")(body))  # the control
    for timestamp in ("1763801240:", ":", "", "1763801240:1", "\uff11", "-1", "1.5", "1763801240 ", "9" * 19):
        with pytest.raises(Forged):
            CUSTOMERIO.verify(CASE.credential, signer(KEY, timestamp)(body))
    whole = signer(KEY, "1763801240")(b"5:" + body)
    with pytest.raises(Forged):
        CUSTOMERIO.verify(CASE.credential, with_header(replace(whole, body=body), TIMESTAMP, "1763801240:5"))


def test_whatever_is_kept_is_a_200_so_that_nothing_waits_behind_it() -> None:
    assert (CUSTOMERIO.answers.kept, CUSTOMERIO.answers.trouble) == (200, 503)
    for strange in (b"", b"[]", b"null", b"{", b'{"metric": "teleported"}', b"\xff"):
        heard = CUSTOMERIO.parse(Delivery([], strange, RECEIVED))
        assert (heard.events, len(heard.kept)) == ((), 0 if strange == b"[]" else 1)


def test_a_bounce_is_hard_only_where_the_address_itself_is_to_blame() -> None:
    for message, kind, status in (
        ("550 5.1.1 no such user", Kind.BOUNCED_HARD, "5.1.1"),
        ("5.1.10 null MX", Kind.BOUNCED_HARD, "5.1.10"),
        ("552 5.2.2 over quota", Kind.BOUNCED_SOFT, "5.2.2"),
        ("550 5.7.1 blocked", Kind.BOUNCED_SOFT, "5.7.1"),
        ("permanent failure", Kind.BOUNCED_SOFT, ""),
        (None, Kind.BOUNCED_SOFT, ""),
        (["5.1.1"], Kind.BOUNCED_SOFT, ""),
    ):
        event = only(listen(told("email", "bounced", recipient="alex@example.com", failure_message=message)))
        assert (event.kind, event.detail) == (kind, status)


def test_each_topic_that_was_turned_off_is_left_and_no_other() -> None:
    heard = changed({"topics": {"topic_7": False, "topic_8": True, "topic_9": False}})
    assert [(event.kind, event.group, event.id) for event in heard.events] == [
        (Kind.UNSUBSCRIBED, "topic_7", "e-1/topic_7"),
        (Kind.UNSUBSCRIBED, "topic_9", "e-1/topic_9"),
    ]
    assert {event.address for event in heard.events} == {"alex@example.com"}
    assert heard.events[0].happened_at == datetime(2025, 11, 22, 8, 47, 14, tzinfo=UTC)
    assert (heard.kept, dict(heard.counted)) == ((), {})


def test_a_topic_that_cannot_be_read_is_left_as_an_unreadable_one() -> None:
    assert [event.group for event in changed({"topics": {"Newsletter": False, "topic_7x": False, "topic_8": True}}).events] == ["", ""]
    odd_ones: tuple[object, ...] = (None, "false", 0, {"email": False}, [])  # anything but true is off
    for odd in odd_ones:
        assert only(changed({"topics": {"topic_7": odd}})).group == "topic_7"


def test_the_whole_channel_turned_off_is_everything() -> None:
    assert only(changed({"topics": {"topic_7": True}, "channels": {"email": False, "sms": False}})).group is None
    assert not changed({"topics": {"topic_7": True}, "channels": {"email": True, "sms": False}}).events


def test_a_change_that_turns_nothing_off_is_counted() -> None:
    heard = changed({"topics": {"topic_7": True, "topic_8": True}})
    assert (heard.events, heard.kept, dict(heard.counted)) == ((), (), {PREFERENCES: 1})


@pytest.mark.parametrize(
    "content",
    ["", "null", "[]", "{}", '{"topics": {}}', '{"topics": null}', '{"topics": {"topic_7": NaN}}', "\\", '{"topics": ["topic_7"]}'],
)
def test_a_change_without_its_topics_is_kept_with_an_alarm(content: str) -> None:
    heard = changed(content)
    assert (heard.events, [kept.reason for kept in heard.kept]) == ((), ["no_topics"])


def test_a_change_without_body_content_is_kept_with_an_alarm() -> None:
    for about in (PERSON, {**PERSON, "content": None}, {**PERSON, "content": {"topics": {"topic_7": False}}}):
        heard = listen(told("customer", PREFERENCES, **about))
        assert (heard.events, [kept.reason for kept in heard.kept]) == ((), ["no_topics"])


@pytest.mark.parametrize("of", ["customer", "email", "sms", "push", "in_app", "whatsapp", None, "new-channel"])
def test_a_person_who_leaves_everything_has_left_whichever_channel_it_came_by(of: str | None) -> None:
    event = only(listen(told(of, "unsubscribed", **PERSON)))
    assert (event.kind, event.group, event.address) == (Kind.UNSUBSCRIBED, None, "alex@example.com")
    assert only(listen(told(of, PREFERENCES, content='{"topics":{"topic_7":false}}', **PERSON))).group == "topic_7"


def test_an_event_is_about_the_recipient_of_the_message_before_anybody_else() -> None:
    everywhere = {"recipient": "to@example.com", **PERSON}
    assert only(listen(told("email", "spammed", **everywhere))).address == "to@example.com"
    assert only(listen(told("email", "spammed", **PERSON))).address == "alex@example.com"
    assert only(listen(told("email", "spammed", identifiers={"email": "old@example.com"}))).address == "old@example.com"


def test_a_number_is_no_address_of_this_account_and_is_kept_aside() -> None:
    heard = listen(told("sms", "unsubscribed", recipient="+12025550123"))
    assert (heard.events, [kept.reason for kept in heard.kept]) == ((), ["other_channel"])
    nobodies: tuple[dict[str, object], ...] = ({}, {"identifiers": []}, {"recipient": 7}, {"identifiers": {"id": "42"}})
    for nobody in nobodies:
        heard = listen(told("email", "spammed", **nobody))
        assert (heard.events, [kept.reason for kept in heard.kept]) == ((), ["no_recipient"])


def test_an_event_without_an_id_is_known_by_what_it_says() -> None:
    event = told("email", "spammed", recipient="alex@example.com", delivery_id="d") | {"event_id": None}
    others = [
        event | {"timestamp": 1763801235},
        event | {"metric": "unsubscribed"},
        told("email", "spammed", recipient="kim@example.com") | {"event_id": ""},
    ]
    ids = [only(listen(each)).id for each in (event, event | {"more": 1}, *others)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 1 + len(others)


@pytest.mark.parametrize("group", ["7", "newsletter", "", "topic_", "topic_7 ", "topic_\uff17", "topic_7/x"])
def test_a_topic_without_its_identifier_refuses_to_start(group: str) -> None:
    with pytest.raises(Misconfigured, match="topic_7"):
        CUSTOMERIO.check(replace(CASE.credential, options={"scopes": {"newsletter": "topic_1", "offers": group}}))
