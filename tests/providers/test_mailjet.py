"""Mailjet is heard: its bounces by the table of errors, and the lists that were left."""

from __future__ import annotations

import json

import pytest

from mailprefs.providers.base import Delivery, Heard
from mailprefs.providers.mailjet import Mailjet
from mailprefs.words import Event, Kind

from .cases import PAYLOADS, RECEIVED

MAILJET = Mailjet()
SPAM = {"event": "spam", "time": 1700000000, "MessageID": 19421777835146490, "email": "alex@example.com", "Payload": ""}


def heard(told: object) -> Heard:
    return MAILJET.parse(Delivery([], json.dumps(told).encode(), RECEIVED))


def event(told: object) -> Event:
    [found] = heard(told).events
    return found


def test_a_single_event_says_what_it_says_in_an_array() -> None:
    assert heard(SPAM) == heard([SPAM])
    assert len(heard([SPAM, SPAM | {"MessageID": 2}]).events) == 2


def test_a_bounce_is_hard_only_if_it_is_permanent_and_the_address_to_blame() -> None:
    told = json.loads((PAYLOADS / "mailjet" / "bounces.json").read_bytes())
    hard = [
        (bounce.get("error_related_to"), bounce.get("error"))
        for bounce in told
        if [e.kind for e in heard(bounce).events] == [Kind.BOUNCED_HARD]
    ]
    assert hard == [
        ("recipient", "user unknown"),
        ("recipient", "mailbox inactive"),
        ("domain", "invalid domain"),
        ("domain", "no mail host"),
        ("domain", "relay/access denied"),
        (None, None),
        ("", ""),
    ]


@pytest.mark.parametrize(("related", "kind"), [("spam", Kind.BLOCKED), ("system", Kind.BOUNCED_SOFT), ("weather", Kind.BOUNCED_SOFT)])
def test_a_permanent_fault_that_is_not_the_addresss_is_not_hard(related: str, kind: Kind) -> None:
    told = [
        bounce for bounce in json.loads((PAYLOADS / "mailjet" / "bounces.json").read_bytes()) if bounce.get("error_related_to") == related
    ]
    assert any(bounce["hard_bounce"] is True for bounce in told)
    assert {e.kind for e in heard(told).events} == {kind}


def test_what_mailjet_held_back_is_an_echo_whatever_its_error() -> None:
    errors = ("user unknown", "preblocked", "duplicate in campaign", "typofix", "content blocked", None)
    told = heard([SPAM | {"event": "blocked", "hard_bounce": True, "error_related_to": "recipient", "error": error} for error in errors])
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {"dropped": len(errors)})


@pytest.mark.parametrize(
    ("number", "group"),
    [
        (1, "1"),
        ("1", "1"),
        (10**12, "1000000000000"),
        (0, None),
        (None, None),
        (-1, ""),
        ("", ""),
        ("x", ""),
        (1.5, ""),
        ([1], ""),
        (True, ""),
    ],
)
def test_an_unsubscribe_says_from_which_list(number: object, group: str | None) -> None:
    found = event(SPAM | {"event": "unsub", "mj_list_id": number})
    assert (found.kind, found.group) == (Kind.UNSUBSCRIBED, group)


def test_a_message_sent_to_no_list_is_left_with_all_marketing() -> None:
    assert event(SPAM | {"event": "unsub"}).group is None


def test_a_number_beyond_those_of_javascript_keeps_its_last_digit() -> None:
    assert event(SPAM).id == event(dict(SPAM)).id
    assert event(SPAM | {"MessageID": 19421777835146491}).id != event(SPAM).id


def test_our_token_is_read_from_the_payload_and_from_nothing_else() -> None:
    found = event(SPAM | {"Payload": '{"mailprefs": "our-token"}', "email": ""})
    assert (found.address, found.token) == (None, "our-token")
    for nothing in ("", "our-token", '{"mailprefs": 7}', "{", None, ["mailprefs"]):
        assert event(SPAM | {"Payload": nothing}).token is None
        assert [kept.reason for kept in heard(SPAM | {"Payload": nothing, "email": ""}).kept] == ["no_recipient"]


def test_only_200_means_kept_to_mailjet() -> None:
    assert MAILJET.answers.kept == 200
