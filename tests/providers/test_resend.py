"""Resend is heard: its events one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers.base import Credential, Heard
from mailprefs.providers.resend import Resend
from mailprefs.words import Kind

from .case_resend import CASE, TOLD
from .cases import PAYLOADS, RECEIVED
from .svix_sender import SECRET, SECRETS, posted

NAMED = dict(zip(Resend.kinds, TOLD, strict=True))
RESEND = Resend()


def heard(told: Any, age: timedelta = timedelta(0)) -> Heard:
    return RESEND.parse(posted(json.dumps(told).encode(), at=RECEIVED - age))


def said(told: Any) -> list[tuple[str | None, Kind, str | None, str]]:
    return [(e.address, e.kind, e.token, e.detail) for e in heard(told).events]


def with_part(name: str, **part: object) -> Any:
    """Return a documented event with other values in its ``data``."""
    told = NAMED[name]
    return told | {"data": told["data"] | part}


def test_who_is_named_with_a_name_is_known_by_the_address() -> None:
    for written in ("delivered@example.com", "Jane <delivered@example.com>", '"Jane, J." <delivered@example.com> '):
        assert said(with_part("email.complained", to=[written])) == [("delivered@example.com", Kind.COMPLAINED, None, "")]


def test_of_several_recipients_nobody_is_stopped() -> None:
    several = ["a@example.com", "b@example.com"]
    for name in ("email.complained", "email.bounced/Permanent/General", "email.bounced/Transient/General"):
        told = heard(with_part(name, to=several))
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["several_recipients"])
        assert len(heard(with_part(name, to=["a@example.com", "A@example.com"])).events) == 1  # the control: one person, twice


def test_of_several_our_token_tells_who_complained_and_not_who_bounced() -> None:
    tags: list[object] = [{"mailprefs": "our-token"}, [{"name": "mailprefs", "value": "our-token"}]]
    for tag in tags:
        several = {"to": ["a@example.com", "b@example.com"], "tags": tag}
        assert said(with_part("email.complained", **several)) == [(None, Kind.COMPLAINED, "our-token", "")]
        assert said(with_part("email.bounced/Permanent/General", **several)) == []
        alone = {"to": ["a@example.com"], "tags": tag}
        assert [token for _, _, token, _ in said(with_part("email.bounced/Permanent/General", **alone))] == ["our-token"]


def test_nobody_is_kept() -> None:
    nobody: list[object] = [None, [], [None], [""], {}, 7, ""]
    for to in nobody:
        told = heard(with_part("email.complained", to=to, tags={}))
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["no_recipient"])


def test_a_bounce_without_type_is_hard_only_on_evidence() -> None:
    told = json.loads((PAYLOADS / "resend" / "bounces-without-type.json").read_bytes())
    assert [[kind for _, kind, _, _ in said(each)] for each in told] == [
        [Kind.BOUNCED_HARD],
        [],
        [Kind.BOUNCED_SOFT],
        [Kind.BOUNCED_HARD],
    ]
    assert dict(heard(told[1]).counted) == {"dropped": 1}


@pytest.mark.parametrize(
    ("bounce", "kind"),
    [
        ({"type": "Permanent", "subType": "MessageRejected"}, Kind.BLOCKED),
        ({"type": "Permanent", "subType": "Other", "diagnosticCode": ["smtp; 550 5.1.1 no such user"]}, Kind.BOUNCED_HARD),
        ({"type": "Permanent", "subType": "Other", "diagnosticCode": "smtp; 550 5.1.1 no such user"}, Kind.BOUNCED_HARD),
        ({"type": "Permanent", "subType": "Other", "diagnosticCode": ["smtp; 550 5.7.1 policy"]}, Kind.BLOCKED),
        ({"type": "Temporary", "subType": "General"}, Kind.BOUNCED_SOFT),
        ({"type": "Temporary", "subType": "ContentRejected"}, Kind.BLOCKED),
        ({"type": "Undetermined"}, Kind.BOUNCED_SOFT),
    ],
)
def test_an_unknown_subtype_is_hard_only_on_evidence_against_the_address(bounce: dict[str, object], kind: Kind) -> None:
    assert [each for _, each, _, _ in said(with_part("email.bounced/Permanent/General", bounce=bounce))] == [kind]


def test_a_bounce_of_an_unknown_type_is_kept() -> None:
    told = heard(with_part("email.bounced/Permanent/General", bounce={"type": "Eventual"}))
    assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_the_status_is_found_in_what_the_server_answered() -> None:
    bounce = {"type": "Transient", "subType": "MailboxFull", "diagnosticCode": [None, 7, "x", "smtp; 552 5.2.2 mailbox full"]}
    assert said(with_part("email.bounced/Transient/MailboxFull", bounce=bounce))[0][3] == "5.2.2"


def test_a_contact_says_its_state_and_no_other_kind_of_true_is_one() -> None:
    assert said(NAMED["contact.updated/unsubscribed"]) == [("steve@example.com", Kind.UNSUBSCRIBED, None, "")]
    assert said(NAMED["contact.created/unsubscribed"]) == [("steve@example.com", Kind.UNSUBSCRIBED, None, "")]
    assert said(NAMED["contact.updated/subscribed"]) == [("steve@example.com", Kind.RESUBSCRIBED, None, "")]
    strange: list[object] = [None, 1, 0, "true", "false", [], {}]
    for odd in strange:
        told = heard(with_part("contact.updated/unsubscribed", unsubscribed=odd))
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_a_change_of_several_topics_is_an_event_for_each_of_them() -> None:
    one, two = "b6d24b8e-af0b-4c3c-be0c-359bbd97381e", "07d84122-7224-4881-9c31-1c048e204602"
    topics = [{"id": one, "subscription": "opt_out"}, {"id": two, "subscription": "opt_in"}, {"id": two, "subscription": "opt_out"}]
    told = heard(with_part("contact.topics.updated/opt_out", topics=topics))
    assert [(e.kind, e.group, e.address) for e in told.events] == [
        (Kind.UNSUBSCRIBED, one, "steve@example.com"),
        (Kind.RESUBSCRIBED, two, "steve@example.com"),
        (Kind.UNSUBSCRIBED, two, "steve@example.com"),
    ]
    assert len({e.id for e in told.events}) == 3
    late = heard(with_part("contact.topics.updated/opt_out", topics=topics), timedelta(minutes=6))
    assert ([e.kind for e in late.events], [kept.reason for kept in late.kept]) == ([Kind.UNSUBSCRIBED] * 2, ["stale"])


@pytest.mark.parametrize(
    "topics", [None, [], {}, 7, [None], [{}], [{"id": "x", "subscription": "maybe"}], [{"id": "x", "subscription": None}]]
)
def test_a_change_of_topics_that_says_nothing_we_know_is_kept(topics: object) -> None:
    told = heard(with_part("contact.topics.updated/opt_out", topics=topics))
    assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_a_topic_that_cannot_be_read_is_none_that_is_mapped() -> None:
    told = heard(with_part("contact.topics.updated/opt_out", topics=[{"id": 7, "subscription": "opt_out"}]))
    assert [(e.kind, e.group) for e in told.events] == [(Kind.UNSUBSCRIBED, "")]


def test_what_is_late_may_stop_and_nothing_else() -> None:
    late = timedelta(minutes=6)
    for name in ("contact.updated/unsubscribed", "email.complained", "email.bounced/Permanent/NoEmail"):
        assert heard(NAMED[name], late) == heard(NAMED[name])
    told = heard(NAMED["contact.updated/subscribed"], late)
    assert (told.events, [kept.reason for kept in told.kept]) == ((), ["stale"])
    assert heard(NAMED["contact.updated/subscribed"], timedelta(minutes=4)).events  # the control


def test_the_same_message_is_one_event_however_often_it_is_tried() -> None:
    told = json.dumps(NAMED["email.complained"]).encode()
    tries = [posted(told, id_=id_, at=RECEIVED - timedelta(seconds=n)) for n, id_ in enumerate(["msg_1", "msg_1", "msg_2"])]
    assert len({event.id for each in tries for event in RESEND.parse(each).events}) == 2
    [event] = RESEND.parse(tries[0]).events
    assert event.happened_at == datetime(2026, 11, 20, 23, 41, 12, 126_000, tzinfo=UTC)


def test_the_other_names_of_the_headers_are_heard_as_well() -> None:
    delivery = posted(b"{}", prefix="webhook")
    RESEND.verify(CASE.credential, delivery)
    with pytest.raises(Forged):
        RESEND.verify(CASE.credential, replace(delivery, body=b"[]"))


def test_a_secret_of_something_else_refuses_to_start() -> None:
    RESEND.check(Credential("resend-main", SECRETS))
    for strange in ("re_0123456789abcdefghijklmnopqrstuvwx", SECRET.replace("whsec_", "whsk_"), SECRET[:-1] + "!"):
        with pytest.raises(Misconfigured, match="Signing Secret"):
            RESEND.check(Credential("resend-main", {"webhook_secret": strange}))
