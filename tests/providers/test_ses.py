"""Amazon SES is heard: its messages one by one, each person on its own, and what an account must say."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.errors import Forged, Misconfigured
from mailprefs.links import Links
from mailprefs.providers import listen
from mailprefs.providers.base import Credential, Delivery, Heard
from mailprefs.providers.ses import GREETING, SES
from mailprefs.words import Kind, Stream

from .amazon import amazon
from .case_ses import CASE, TOLD
from .cases import PAYLOADS, RECEIVED
from .sns_sender import ASKING_NAMES, TOPIC, asking, notification, posted, signed

BASIC = {"webhook_user": "mailprefs", "webhook_password": "first-password"}
ODD: tuple[object, ...] = (None, True, 0, -1, 10**400, 1.5, "", " ", "x", "a@example.com", [], [[]], ["x"], {}, {"a": []}, [{}], [None])
NAMED = dict(zip(SES.kinds, TOLD, strict=True))


def payload(name: str) -> Any:
    return json.loads((PAYLOADS / "ses" / name).read_bytes())


def heard(told: object) -> Heard:
    """Return what a message of SES says."""
    return SES().parse(posted(notification(told if isinstance(told, str) else json.dumps(told))))


def said(told: object) -> list[tuple[str | None, Kind, str | None, str | None, str]]:
    return [(e.address, e.kind, e.token, e.group, e.detail) for e in heard(told).events]


def changed(told: Any, value: object, *path: str | int) -> Any:
    """Return a copy of a message with another value at a path."""
    fresh = copy.deepcopy(told)
    at = fresh
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return fresh


# People


def test_each_who_bounced_is_on_its_own_and_who_did_not_is_left_alone() -> None:
    told = payload("several-bounced.json")
    assert said(told) == [
        ("jane@example.com", Kind.BOUNCED_HARD, None, None, "5.1.1"),
        ("richard@example.com", Kind.BOUNCED_HARD, None, None, ""),
    ]
    assert not heard(told).kept
    assert len({event.id for event in heard(told).events}) == 2


def test_a_recipient_that_cannot_be_read_costs_the_others_nothing() -> None:
    told = payload("several-bounced.json")
    others: list[object] = [None, {}, {"emailAddress": None}, {"emailAddress": "redacted"}, "mary@example.com", [], 7]
    for odd in others:
        once_more = changed(told, [*told["bounce"]["bouncedRecipients"], odd], "bounce", "bouncedRecipients")
        assert [event.address for event in heard(once_more).events] == ["jane@example.com", "richard@example.com"]
        assert [kept.reason for kept in heard(once_more).kept] == ["no_recipient"]


def test_a_complaint_that_lists_everyone_at_a_domain_stops_nobody() -> None:
    told = payload("several-complained.json")
    assert said(told) == []
    [kept] = heard(told).kept
    assert (kept.reason, json.loads(kept.raw)) == ("several_recipients", told)
    alone = changed(told, [{"emailAddress": "Jane@Example.com"}, {"emailAddress": "jane@example.com"}], "complaint", "complainedRecipients")
    assert said(alone) == [("jane@example.com", Kind.COMPLAINED, None, None, "")]  # the control: one person, twice


def test_our_token_tells_whose_complaint_it_is(links: Links, addresses: Addresses, shared_catalogue: Catalogue) -> None:
    told = payload("several-complained.json")
    topic, jane = next(topic for topic in shared_catalogue.topics if topic.stream is Stream.MARKETING), addresses.read("jane@example.com")
    minted, value = links.token(jane.key, topic), links.mint(jane.key, topic).headers["List-Unsubscribe"]
    for headers in ([{"name": "List-Unsubscribe", "value": value}], [{"name": "LIST-UNSUBSCRIBE", "value": value}, None, {"name": 7}]):
        assert said(changed(told, headers, "mail", "headers")) == [(None, Kind.COMPLAINED, minted, None, "")]
    assert said(changed(told, [{"name": "X-Mailprefs", "value": minted}], "mail", "headers")) == [(None, Kind.COMPLAINED, minted, None, "")]
    assert said(changed(told, {"mailprefs": [minted]}, "mail", "tags")) == [(None, Kind.COMPLAINED, minted, None, "")]
    others: list[object] = [{"mailprefs": []}, {"mailprefs": [minted, minted]}, {"mailprefs": minted}, {"other": [minted]}]
    for odd in others:
        assert said(changed(told, odd, "mail", "tags")) == []


def test_a_token_is_whoever_it_went_to_and_nobody_else() -> None:
    """A mail to several holds the token of one of them at most: it says nothing of who bounced."""
    headers = [{"name": "X-Mailprefs", "value": "our-token"}]
    several = changed(payload("several-bounced.json"), headers, "mail", "headers")
    assert [event.token for event in heard(several).events] == [None, None]
    one = changed(several, several["bounce"]["bouncedRecipients"][:1], "bounce", "bouncedRecipients")
    assert [event.token for event in heard(one).events] == [None]
    alone = changed(one, ["jane@example.com"], "mail", "destination")
    assert [event.token for event in heard(alone).events] == ["our-token"]  # the control


def test_where_nobody_is_named_a_sole_destination_is_meant_and_several_are_not() -> None:
    for name in ("Bounce/Permanent/General", "Complaint"):
        part, people = ("bounce", "bouncedRecipients") if name.startswith("Bounce") else ("complaint", "complainedRecipients")
        unnamed: list[list[dict[str, str]]] = [[{"emailAddress": ""}], [{"emailAddress": "redacted"}], [{}]]
        for listed in unnamed:
            nobody = changed(NAMED[name], listed, part, people)
            assert [event.address for event in heard(nobody).events] == ["recipient@example.com"]
            several = changed(nobody, ["a@example.com", "b@example.com"], "mail", "destination")
            assert heard(several).events == ()
            assert [kept.reason for kept in heard(several).kept] == ["no_recipient"]


# Kinds


@pytest.mark.parametrize(
    ("type_", "subtype", "recipient", "kind"),
    [
        ("Permanent", "UnsubscribedRecipient", {}, Kind.BLOCKED),
        ("Permanent", "Whatever", {"status": "5.7.1"}, Kind.BLOCKED),
        ("Permanent", None, {"status": "5.1.1"}, Kind.BOUNCED_HARD),
        ("Permanent", "Whatever", {"status": "5.1.1"}, Kind.BOUNCED_HARD),
        ("Permanent", "Whatever", {"diagnosticCode": "smtp; 550 5.1.10 no such user"}, Kind.BOUNCED_HARD),
        ("Permanent", "Whatever", {"diagnosticCode": "smtp; 550 user unknown"}, Kind.BLOCKED),
        ("Transient", "Whatever", {"status": "5.1.1"}, Kind.BOUNCED_SOFT),
        ("Transient", None, {}, Kind.BOUNCED_SOFT),
        ("Undetermined", None, {}, Kind.BOUNCED_SOFT),
    ],
)
def test_an_unknown_subtype_is_hard_only_on_evidence_against_the_address(type_: str, subtype: object, recipient: Any, kind: Kind) -> None:
    told = changed(NAMED["Bounce/Permanent/General"], [{"emailAddress": "a@example.com"} | recipient], "bounce", "bouncedRecipients")
    told = changed(changed(told, type_, "bounce", "bounceType"), subtype, "bounce", "bounceSubType")
    assert [event.kind for event in heard(told).events] == [kind]


def test_an_unknown_type_of_bounce_is_kept() -> None:
    others: list[object] = ["Other", "", None, 7, []]
    for odd in others:
        told = heard(changed(NAMED["Bounce/Permanent/General"], odd, "bounce", "bounceType"))
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_an_echo_of_the_account_list_is_no_new_stop() -> None:
    for name in ("Bounce/Permanent/OnAccountSuppressionList", "Bounce/Permanent/Suppressed", "Complaint/OnAccountSuppressionList"):
        told = heard(NAMED[name])
        assert (told.events, told.kept, dict(told.counted)) == ((), (), {"dropped": 1})


def test_not_spam_takes_a_complaint_back() -> None:
    assert [event.kind for event in heard(NAMED["Complaint/not-spam"]).events] == [Kind.COMPLAINT_RETRACTED]
    others: list[object] = ["abuse", "fraud", "virus", "other", "auth-failure", "", None, 7, [], "NOT-SPAM?"]
    for feedback in others:
        told = changed(NAMED["Complaint/not-spam"], feedback, "complaint", "complaintFeedbackType")
        assert [event.kind for event in heard(told).events] == [Kind.COMPLAINED]


def test_a_notification_of_an_identity_says_the_same_as_an_event() -> None:
    for name in ("Bounce/Permanent/General", "Complaint", "Delivery"):
        told = {("notificationType" if key == "eventType" else key): value for key, value in NAMED[name].items()}
        assert heard(told) == heard(NAMED[name]) != heard(NAMED["Open"])


def test_the_same_fact_told_by_two_topics_has_one_name() -> None:
    told = json.dumps(NAMED["Bounce/Permanent/General"])
    deliveries = [posted(notification(told, MessageId=id_)) for id_ in ("m-1", "m-2")]
    assert len({event.id for delivery in deliveries for event in SES().parse(delivery).events}) == 1
    nameless = json.dumps(changed(NAMED["Bounce/Permanent/General"], None, "bounce", "feedbackId"))
    deliveries = [posted(notification(nameless, MessageId=id_)) for id_ in ("m-1", "m-1", "m-2")]
    assert len({event.id for delivery in deliveries for event in SES().parse(delivery).events}) == 2


def test_no_address_stands_in_an_events_name() -> None:
    events = [event for told in TOLD for event in heard(told).events]
    assert len(events) >= 12
    assert not [event for event in events if "@" in event.id or "example" in event.id]


def test_happened_at_is_the_time_of_the_feedback_and_not_of_the_message() -> None:
    [event] = heard(NAMED["Bounce/Permanent/General"]).events
    assert event.happened_at == datetime(2026, 11, 20, 0, 41, 2, 669_000, tzinfo=UTC)


# Preferences


def test_a_change_of_preferences_is_told_topic_by_topic() -> None:
    told = payload("preferences.json")
    who = "recipient@example.com"
    assert said(told) == [
        (who, Kind.UNSUBSCRIBED, None, None, ""),
        (who, Kind.UNSUBSCRIBED, None, "newsletter", ""),
        (who, Kind.RESUBSCRIBED, None, "offers", ""),  # surveys were left before; events were not there
    ]
    assert len({event.id for event in heard(told).events}) == 3
    assert not heard(told).kept


def test_without_what_was_before_every_opt_out_counts_and_nothing_is_joined() -> None:
    before: list[object] = [None, {}, [], "x", {"topicSubscriptionStatus": None}]
    for old in before:
        told = changed(payload("preferences.json"), old, "subscription", "oldTopicPreferences")
        assert [(kind, group) for _, kind, _, group, _ in said(told)] == [
            (Kind.UNSUBSCRIBED, None),
            (Kind.UNSUBSCRIBED, "newsletter"),
            (Kind.UNSUBSCRIBED, "surveys"),
        ]


def test_the_spelling_of_the_api_is_read_as_well() -> None:
    told = payload("preferences.json")
    spelt = json.loads(json.dumps(told).replace("OptOut", "OPT_OUT").replace("OptIn", "OPT_IN"))
    assert said(spelt) == said(told)


def test_all_marketing_may_be_left_and_joined() -> None:
    told = NAMED["Subscription/unsubscribeAll"]
    assert [(kind, group) for _, kind, _, group, _ in said(told)] == [(Kind.UNSUBSCRIBED, None)]
    back = changed(changed(told, False, "subscription", "newTopicPreferences", "unsubscribeAll"), True, *OLD, "unsubscribeAll")
    assert [(kind, group) for _, kind, _, group, _ in said(back)] == [(Kind.RESUBSCRIBED, None)]


OLD, NEW = ("subscription", "oldTopicPreferences"), ("subscription", "newTopicPreferences")


def test_a_preference_that_cannot_be_read_is_kept_and_a_topic_without_name_stops_all() -> None:
    told = NAMED["Subscription/OptOut"]
    for name in ("", " ", None, 7):
        assert said(changed(told, name, *NEW, "topicSubscriptionStatus", 0, "topicName")) == [
            ("recipient@example.com", Kind.UNSUBSCRIBED, None, "", "")
        ]
    strange: list[tuple[object, tuple[str | int, ...]]] = [
        ("Maybe", ("topicSubscriptionStatus", 0, "subscriptionStatus")),
        (None, ("topicSubscriptionStatus", 0)),
        ("true", ("unsubscribeAll",)),
        (1, ("unsubscribeAll",)),
    ]
    for odd, path in strange:
        assert [kept.reason for kept in heard(changed(told, odd, *NEW, *path)).kept] == ["unknown_preference"]
    none: list[object] = [None, [], "x", 7]
    for odd in none:
        told_nothing = heard(changed(told, odd, *NEW))
        assert (told_nothing.events, [kept.reason for kept in told_nothing.kept]) == ((), ["unknown_preference"])


# What is no event


def test_a_greeting_says_nothing() -> None:
    for message in (GREETING, GREETING + "\n"):
        told = heard(message)
        assert (told.events, told.kept, dict(told.counted)) == ((), (), {"greeting": 1})
    assert [kept.reason for kept in heard(GREETING[:-2]).kept] == ["unreadable"]  # the control


async def test_a_subscription_is_kept_for_the_operator_and_never_asked_for(tmp_path: Path) -> None:
    credential = Credential("ses-main", {}, {"topic_arns": (TOPIC,)})
    async with amazon(tmp_path, "sns.us-east-1.amazonaws.com") as (server, http):
        for type_, reason in (
            ("SubscriptionConfirmation", "subscription_confirmation"),
            ("UnsubscribeConfirmation", "unsubscribe_confirmation"),
        ):
            for url in (asking()["SubscribeURL"], f"https://127.0.0.1:{server.port}/confirm", "https://example.com/", "file:///etc/passwd"):
                delivery = posted(signed(asking(type_, SubscribeURL=url), ASKING_NAMES))
                told = await listen(SES(), credential, delivery, http)
                assert (told.events, dict(told.counted)) == ((), {})
                assert [(kept.reason, kept.raw) for kept in told.kept] == [(reason, delivery.body)]
        assert len(server.served) == 8
        assert all(".pem" in each for each in server.served)  # the certificate, for each new provider, and nothing else
        with pytest.raises(Forged):
            await listen(SES(), credential, posted(signed(asking(), ASKING_NAMES) | {"Token": "x"}), http)


def test_a_message_with_a_line_end_behind_it_is_read() -> None:
    assert heard(json.dumps(NAMED["Complaint"]) + "\n").events == heard(NAMED["Complaint"]).events


def test_poison_inside_a_message_is_kept_and_proven() -> None:
    """Most poison is proven: it stands in the message, which is a text of its own."""
    event = json.dumps(NAMED["Complaint"])
    for poison in ('"x": NaN, ', '"x": 1, "x": 1, ', '"x": "\\u0000", ', '"x": "\\ud800", ', '"x": ' + "[" * 10_000, "<html>"):
        delivery = CASE.sign(event.replace("{", "{" + poison, 1).encode())
        CASE.provider.verify(CASE.credential, delivery)
        told = CASE.provider.parse(delivery)
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unreadable"])


# Whatever comes


def places(told: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value in a message."""
    if path:
        yield path
    inside = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    for step, value in inside:
        yield from places(value, (*path, step))


def test_any_value_at_any_two_places_of_a_message_raises_nothing() -> None:
    random, events = Random(5), 0
    for told in TOLD:
        paths = list(places(told))
        for _ in range(400):
            odd = told
            for path in random.sample(paths, 2):
                try:
                    odd = changed(odd, random.choice(ODD), *path)
                except (TypeError, IndexError, KeyError):
                    continue  # the first change took away the place of the second
            result = heard(odd)
            assert len(result.events) + len(result.kept) + sum(result.counted.values()) >= 1
            assert all(event.address or event.token for event in result.events)
            events += len(result.events)
    assert events > 2_000  # the control


def test_a_broken_envelope_that_is_read_all_the_same_raises_nothing() -> None:
    others: list[object] = [{}, [], None, 7, {"Type": "Notification"}, {"Message": 7}, {"Type": [], "Message": "{}"}]
    for odd in others:
        told = SES().parse(Delivery([], json.dumps(odd).encode(), RECEIVED))
        assert (told.events, len(told.kept)) == ((), 1)


# Who may start


@pytest.mark.parametrize(
    "topics",
    [
        None,
        (),
        [],
        "",
        TOPIC,
        (7,),
        ("",),
        ("ses-events",),
        (TOPIC, "arn:aws:sqs:us-east-1:123456789012:ses-events"),
        ("arn:aws:sns:us-east-1:1234:ses-events",),
        ("arn:aws:sns:*:123456789012:ses-events",),
        ("arn:aws:sns:us-east-1:123456789012:*",),
        ("arn:aws:sns:example.com/:123456789012:ses-events",),
        (TOPIC + "\n",),
    ],
)
def test_an_account_without_sound_topics_refuses_to_start(topics: object) -> None:
    with pytest.raises(Misconfigured, match="Account 'ses-main': topic_arns") as refused:
        SES().check(Credential("ses-main", {}, {"topic_arns": topics}))
    assert "arn:aws:sns:us-east-1:123456789012:ses-events" in str(refused.value)
    SES().check(Credential("ses-main", {}, {"topic_arns": (TOPIC,)}))  # the control: no secret is needed


def test_half_a_password_or_a_short_one_refuses_to_start() -> None:
    sound = Credential("ses-main", BASIC, {"topic_arns": [TOPIC]})
    SES().check(sound)
    for name, value in BASIC.items():
        for secrets in ({name: value}, BASIC | {name: "x"}, {f"{name}_next": "long-enough-for-it"}):
            with pytest.raises(Misconfigured, match="webhook_"):
                SES().check(replace(sound, secrets=secrets))


def test_a_group_that_is_no_name_of_a_topic_refuses_to_start() -> None:
    for group in ("", "news letter", "news/letter", "x" * 65, "é"):
        with pytest.raises(Misconfigured, match="no name of a topic"):
            SES().check(replace(CASE.credential, options=dict(CASE.credential.options) | {"scopes": {"newsletter": group}}))
