"""Mailchimp Marketing is heard: by the secret of its address, and event by event."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers.base import Credential, Delivery, Heard
from mailprefs.providers.mailchimp import SIGNATURE, Mailchimp
from mailprefs.words import Event, Kind

from .case_mailchimp import CASE, FIRST, NEXT, signer, url
from .cases import RECEIVED
from .posting import FORM

MAILCHIMP = Mailchimp()
UNSIGNED = Credential("mailchimp-main", {"url_secret": FIRST["url_secret"]})
LEFT = {"type": "unsubscribe", "fired_at": "2026-11-20 09:15:30", "data[list_id]": "a6b5da1054", "data[email]": "alex@example.com"}


def listen(fields: dict[str, str], received_at: datetime = RECEIVED) -> Heard:
    return MAILCHIMP.parse(Delivery([("Content-Type", FORM)], urlencode(fields).encode(), received_at))


def only(fields: dict[str, str]) -> Event:
    heard = listen(fields)
    [event] = heard.events
    assert not heard.kept
    return event


def aside(fields: dict[str, str]) -> list[str]:
    heard = listen(fields)
    assert not heard.events
    return [kept.reason for kept in heard.kept]


def accepted(credential: Credential, delivery: Delivery) -> bool:
    try:
        MAILCHIMP.verify(credential, delivery)
    except Forged:
        return False
    return True


def test_the_secret_of_the_address_is_enough_where_no_signing_secret_is_set() -> None:
    delivery = Delivery([], b"type=campaign", RECEIVED, url=url(FIRST["url_secret"]))
    assert accepted(UNSIGNED, delivery)
    assert accepted(UNSIGNED, replace(delivery, url=delivery.url + "&more=1"))
    assert accepted(UNSIGNED, replace(delivery, url=delivery.url.replace("?", "?more=1&")))
    for other in (
        "/hooks/mailchimp-main",
        url(),
        url(""),
        url("x"),
        url(FIRST["url_secret"], FIRST["url_secret"]),
        url(FIRST["url_secret"], "x"),
        url(FIRST["url_secret"].upper()),
        url(FIRST["url_secret"][:-1]),
        url(FIRST["url_secret"]).replace("secret=", "Secret="),
        url(FIRST["url_secret"]).replace("?", "/"),
        url("%66" + FIRST["url_secret"][1:]),  # one spelling alone
    ):
        assert not accepted(UNSIGNED, replace(delivery, url=other))
    assert not accepted(replace(UNSIGNED, secrets={}), replace(delivery, url=url("")))


def test_where_a_signing_secret_is_set_the_address_alone_is_not_enough_and_nor_is_the_signature() -> None:
    signed = CASE.sign(b"type=campaign")
    assert accepted(CASE.credential, signed)
    assert not accepted(CASE.credential, replace(signed, headers=[]))
    assert not accepted(CASE.credential, replace(signed, url=url("another-secret-of-the-address")))
    assert accepted(UNSIGNED, signed)  # a signature that nobody asked for is not looked at
    assert not accepted(CASE.rotated, signer(FIRST["url_secret"], "nobodys-signing-secret")(b"type=campaign"))
    assert accepted(CASE.rotated, signer(FIRST["url_secret"], NEXT["webhook_key_next"])(b"type=campaign"))


def test_no_dot_can_be_moved_between_time_and_body() -> None:
    signed = CASE.sign(b"1.type=campaign")
    proof = (signed.header(SIGNATURE) or "").replace("t=1763801240", "t=1763801240.1")
    assert not accepted(CASE.credential, replace(signed, headers=[(SIGNATURE, proof)], body=b"type=campaign"))


@pytest.mark.parametrize(
    "secret",
    [
        "with a space-0123456789",
        "with/slash-0123456789abcd",
        "with+plus-0123456789abcdef",
        "with%41-0123456789abcdefgh",
        "with&and-0123456789abcdefg",
    ],
)
def test_a_secret_that_an_address_may_spell_in_two_ways_refuses_to_start(secret: str) -> None:
    MAILCHIMP.check(UNSIGNED)
    for name in ("url_secret", "url_secret_next"):
        with pytest.raises(Misconfigured, match=f"the secret {name} "):
            MAILCHIMP.check(replace(UNSIGNED, secrets=FIRST | {name: secret}))


def test_half_a_pair_of_signing_secrets_refuses_to_start() -> None:
    for wrong in ({"webhook_key": "short"}, {"webhook_key_next": NEXT["webhook_key_next"]}, {"webhook_key": ""}):
        with pytest.raises(Misconfigured, match="the secret webhook_key "):
            MAILCHIMP.check(replace(UNSIGNED, secrets=dict(UNSIGNED.secrets) | wrong))


def test_mailchimp_may_greet_and_post_nothing_while_the_address_is_entered() -> None:
    assert MAILCHIMP.answers.greets == {"GET", "HEAD"}
    empty = Delivery([], b"", RECEIVED, url=url(FIRST["url_secret"]))
    assert accepted(UNSIGNED, empty)
    assert MAILCHIMP.parse(empty) == Heard()


def test_who_leaves_has_left_the_audience_and_who_was_archived_has_not() -> None:
    event = only(LEFT | {"data[action]": "unsub", "data[reason]": "manual"})
    assert (event.kind, event.group, event.address) == (Kind.UNSUBSCRIBED, "a6b5da1054", "alex@example.com")
    for odd in ({}, {"data[action]": "vanish"}, {"data[action]": "unsub", "data[reason]": "who knows"}):
        assert only(LEFT | odd).kind is Kind.UNSUBSCRIBED
    archived = listen(LEFT | {"data[action]": "delete", "data[reason]": "manual"})
    assert (archived.events, archived.kept, dict(archived.counted)) == ((), (), {"unsubscribe/delete": 1})
    assert only({name: text for name, text in LEFT.items() if name != "data[list_id]"}).group == ""


def test_abuse_is_a_complaint_whatever_else_was_done() -> None:
    for more in ({"data[action]": "unsub"}, {"data[action]": "delete"}, {}, {"type": "cleaned"}):
        event = only(LEFT | {"data[reason]": "abuse"} | more)
        assert (event.kind, event.group) == (Kind.COMPLAINED, None)


def test_a_cleaned_address_is_a_hard_bounce_only_where_it_says_so() -> None:
    assert only(LEFT | {"type": "cleaned", "data[reason]": "hard"}).kind is Kind.BOUNCED_HARD
    for reason in ({}, {"data[reason]": ""}, {"data[reason]": "soft"}, {"data[reason]": "Hard "}):
        assert aside(LEFT | {"type": "cleaned"} | reason) == ["unknown_kind"]


def test_an_address_that_took_anothers_place_carries_an_opt_out_over_where_it_is_told() -> None:
    moved = {
        "type": "upemail",
        "fired_at": "2026-11-20 09:15:30",
        "data[list_id]": "a6b5da1054",
        "data[new_email]": "new@example.com",
        "data[old_email]": "old@example.com",
    }
    event = only(moved | {"data[status]": "unsubscribed"})
    assert (event.kind, event.address, event.group) == (Kind.UNSUBSCRIBED, "new@example.com", "a6b5da1054")
    for status in ({}, {"data[status]": "subscribed"}, {"data[status]": "cleaned"}):
        heard = listen(moved | status)
        assert (heard.events, [kept.reason for kept in heard.kept]) == ((), ["upemail"])
        assert b"old%40example.com" in heard.kept[0].raw  # whoever reads it can look both up
    assert aside({"type": "upemail", "data[status]": "unsubscribed"}) == ["no_recipient"]


def test_a_profile_that_shows_interest_groups_is_kept_and_any_other_is_counted() -> None:
    profile = LEFT | {"type": "profile"}
    assert dict(listen(profile).counted) == {"profile": 1}
    assert aside(profile | {"data[merges][INTERESTS]": "Offers"}) == ["preferences"]
    assert aside(profile | {"data[merges][GROUPINGS][0][groups]": ""}) == ["preferences"]


def test_a_time_without_a_zone_is_taken_at_its_latest_and_never_after_its_receipt() -> None:
    for fired_at, moment in (
        ("2026-11-20 09:15:30", datetime(2026, 11, 20, 21, 15, 30, tzinfo=UTC)),
        ("2026-11-22 00:00:00", RECEIVED),
        ("2026-11-21 23:59:59", RECEIVED - timedelta(seconds=1)),
        ("2026-11-22 11:59:59", RECEIVED),
        ("2026-11-22 23:00:00", RECEIVED),
    ):
        assert only(LEFT | {"fired_at": fired_at}).happened_at == moment


def test_events_are_told_apart_by_kind_audience_person_and_time() -> None:
    others = [
        {"fired_at": "2026-11-20 09:15:31"},
        {"data[list_id]": "b"},
        {"data[email]": "kim@example.com"},
        {"type": "subscribe"},
        {"data[reason]": "abuse"},
    ]
    ids = [only(LEFT | more).id for more in ({}, {"data[ip_opt]": "192.0.2.9"}, *others)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 1 + len(others)


def test_our_token_comes_back_in_a_merge_field() -> None:
    event = only({"type": "unsubscribe", "data[merges][MAILPREFS]": "our-token"})
    assert (event.address, event.token) == (None, "our-token")
    assert aside({"type": "unsubscribe"}) == ["no_recipient"]


def test_a_kind_cannot_be_spelt_out_in_one_field() -> None:
    for type_ in ("unsubscribe/delete", "unsubscribe/abuse", "cleaned/hard", "/", ""):
        assert aside(LEFT | {"type": type_}) == ["unknown_kind"]
    assert json.loads(CASE.documented["unsubscribe/delete"])["type"] == "unsubscribe"  # the control
