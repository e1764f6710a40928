"""Mandrill is heard: the address it signs, its empty trial, its denylist's echoes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote_plus

import pytest

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers.base import Delivery, Heard
from mailprefs.providers.mandrill import FIRST_KEY, SIGNATURE, Mandrill
from mailprefs.words import Event, Kind

from .case_mandrill import CASE, KEY, URL
from .posting import signer

MANDRILL = Mandrill()


def heard(*events: object) -> list[Event]:
    return list(MANDRILL.parse(CASE.sign(CASE.body([json.dumps(event).encode() for event in events]))).events)


def told(word: str, **message: object) -> dict[str, object]:
    return {"event": word, "ts": 1763801234, "_id": "m", "msg": {"email": "alex@example.com", **message}}


def accepted(delivery: Delivery, **options: object) -> bool:
    try:
        MANDRILL.verify(replace(CASE.credential, options={"public_url": URL, **options}), delivery)
    except Forged:
        return False
    return True


def test_what_is_signed_is_the_address_as_it_was_entered() -> None:
    delivery = CASE.sign(CASE.body([CASE.tokened]))
    assert accepted(replace(delivery, url="https://elsewhere.example.net/other?x=1"))  # what a proxy makes of it is not looked at
    for other in (URL.replace("hooks:pass@", ""), URL.partition("?")[0], URL + "/", URL.upper(), URL.replace("https", "http"), "", None, 7):
        assert not accepted(delivery, public_url=other)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "go.example.com/hooks",
        "/hooks/x",
        "ftp://example.com",
        "https://",
        "https://a b",
        "https://é.example.com",
        "https://example.com/#x",
        7,
    ],
)
def test_without_the_whole_address_it_refuses_to_start(url: object) -> None:
    MANDRILL.check(CASE.credential)
    with pytest.raises(Misconfigured, match=r"'mandrill-main': public_url .*Post To URL"):
        MANDRILL.check(replace(CASE.credential, options={"public_url": url}))
    with pytest.raises(Misconfigured, match="public_url"):
        MANDRILL.check(replace(CASE.credential, options={}))


def test_mandrill_may_greet_before_there_is_a_key() -> None:
    assert MANDRILL.answers.greets == {"HEAD"}


def test_the_trial_post_is_accepted_and_nothing_else_under_its_key() -> None:
    trial = signer(SIGNATURE, FIRST_KEY, URL)
    assert accepted(trial(b"mandrill_events=%5B%5D"))
    assert MANDRILL.parse(trial(b"mandrill_events=%5B%5D")) == Heard()
    for body in (
        CASE.body([CASE.tokened]),
        b"mandrill_events=%5B%5D&x=1",
        b"mandrill_events=%5B+%5D",
        b"mandrill_events=",
        b"",
        b"x=%5B%5D",
    ):
        assert not accepted(trial(body))
    assert accepted(signer(SIGNATURE, KEY, URL)(b"mandrill_events=%5B%5D"))


def test_a_signature_over_the_address_alone_proves_nothing() -> None:
    for body in (b"", b"x=1", b"&", b"mandrill_events"):
        assert not accepted(CASE.sign(body))


def test_a_form_in_parts_is_read_as_well() -> None:
    events = b"[" + CASE.tokened + b"]"
    plain = CASE.sign(b"mandrill_events=" + quote_plus(events).encode())
    parts = b'--b\r\nContent-Disposition: form-data; name="mandrill_events"\r\n\r\n' + events + b"\r\n--b--\r\n"
    headers = [("Content-Type", "multipart/form-data; boundary=b"), (SIGNATURE, plain.header(SIGNATURE) or "")]
    delivery = replace(plain, headers=headers, body=parts)
    assert accepted(delivery)
    assert not accepted(replace(delivery, body=parts.replace(b"spam", b"open")))
    assert MANDRILL.parse(delivery) == MANDRILL.parse(plain)
    assert len(MANDRILL.parse(plain).events) == 1


def test_two_different_arrays_in_one_form_are_kept_and_none_is_heard() -> None:
    one = CASE.body([CASE.tokened])
    doubled = CASE.sign(one + b"&" + one)  # says the same twice
    assert MANDRILL.parse(doubled) == MANDRILL.parse(CASE.sign(one))
    both = MANDRILL.parse(CASE.sign(one + b"&mandrill_events=%5B%5D"))
    assert (both.events, [kept.reason for kept in both.kept]) == ((), ["no_events"])


def test_its_own_lists_are_an_echo_whatever_was_done_to_them() -> None:
    for type_, word in (("blacklist", "dropped"), ("whitelist", "whitelist")):
        for action in ("add", "remove", "change", None):
            for reason in ("unsub", "spam", "hard-bounce", "custom"):
                change = {"type": type_, "action": action, "reject": {"email": "alex@example.com", "reason": reason}}
                found = MANDRILL.parse(CASE.sign(CASE.body([json.dumps(change).encode()])))
                assert (found.events, found.kept, dict(found.counted)) == ((), (), {word: 1})


def test_a_bounce_keeps_its_status_and_nothing_else_of_what_the_server_said() -> None:
    hard, soft = heard(
        told("hard_bounce", diag="smtp;550 5.1.1 alex@example.com does not exist"), told("soft_bounce", diag="mailbox of Alex is full")
    )
    assert (hard.kind, hard.detail, soft.kind, soft.detail) == (Kind.BOUNCED_HARD, "5.1.1", Kind.BOUNCED_SOFT, "")


def test_an_unsubscribe_leaves_all_marketing_whatever_the_message_was_tagged_with() -> None:
    [event] = heard(told("unsub", subaccount="marketing", tags=["newsletter"]))
    assert (event.kind, event.group, event.address) == (Kind.UNSUBSCRIBED, None, "alex@example.com")
    assert event.happened_at == datetime(2025, 11, 22, 8, 47, 14, tzinfo=UTC)


def test_events_are_told_apart_by_message_kind_time_and_person() -> None:
    event = told("spam")
    others = [event | change for change in ({"_id": "n"}, {"ts": 1763801235}, {"event": "unsub"}, {"msg": {"email": "kim@example.com"}})]
    ids = [each.id for each in heard(event, event | {"ip": "192.0.2.1"}, *others)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 1 + len(others)


def test_without_recipient_it_is_kept_unless_our_token_came_back() -> None:
    nobody: tuple[object, ...] = ({}, None, [], {"email": " "}, {"email": 1, "metadata": []})
    for message in nobody:
        found = MANDRILL.parse(CASE.sign(CASE.body([json.dumps({"event": "unsub", "msg": message}).encode()])))
        assert (found.events, [kept.reason for kept in found.kept]) == ((), ["no_recipient"])
    [event] = heard({"event": "unsub", "msg": {"metadata": {"mailprefs": "our-token"}}})
    assert (event.address, event.token) == (None, "our-token")
