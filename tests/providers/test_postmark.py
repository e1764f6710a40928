"""Postmark is heard: its bounces by type, and the changes of its streams."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from mailprefs.providers.base import Delivery, Heard
from mailprefs.providers.postmark import Postmark
from mailprefs.words import Event, Kind

from .case_postmark import CASE
from .cases import PAYLOADS, RECEIVED

POSTMARK = Postmark()
BOUNCE = {
    "RecordType": "Bounce",
    "ID": 901542550,
    "Type": "HardBounce",
    "MessageID": "2706ee8a-737c-4285-b032-ccd317af53ed",
    "Details": "smtp;550 5.1.1 The email account that you tried to reach does not exist.",
    "Email": "gone@example.com",
    "BouncedAt": "2026-04-27T16:28:50.3963933-04:00",
    "MessageStream": "outbound",
}


def heard(told: object) -> Heard:
    return POSTMARK.parse(Delivery([], json.dumps(told).encode(), RECEIVED))


def event(told: object) -> Event:
    [found] = heard(told).events
    return found


def test_a_hard_bounce_says_who_when_and_why() -> None:
    found = event(BOUNCE)
    assert (found.kind, found.address, found.group, found.detail) == (Kind.BOUNCED_HARD, "gone@example.com", None, "5.1.1")
    assert found.happened_at == datetime(2026, 4, 27, 20, 28, 50, 396393, tzinfo=UTC)


def test_a_change_of_a_stream_is_an_opt_out_only_if_the_recipient_made_it() -> None:
    changes = json.loads((PAYLOADS / "postmark" / "changes.json").read_bytes())
    told = [heard(change) for change in changes]
    assert [(e.address, e.kind, e.group) for each in told for e in each.events] == [
        ("left@example.com", Kind.UNSUBSCRIBED, "broadcasts"),
        ("no-origin@example.com", Kind.UNSUBSCRIBED, "broadcasts"),
        ("new-origin@example.com", Kind.UNSUBSCRIBED, "broadcasts"),
        ("no-stream@example.com", Kind.UNSUBSCRIBED, ""),
        ("odd-stream@example.com", Kind.UNSUBSCRIBED, ""),
        ("back@example.com", Kind.RESUBSCRIBED, "broadcasts"),
        ("bounced@example.com", Kind.BOUNCED_HARD, None),
        ("complained@example.com", Kind.COMPLAINED, None),
    ]
    assert [dict(each.counted) for each in told if each.counted] == [{"dropped": 1}] * 2
    assert not any(each.kept for each in told)


def test_a_bounce_that_is_told_twice_is_one_fact() -> None:
    change = {
        "RecordType": "SubscriptionChange",
        "MessageID": BOUNCE["MessageID"],
        "Recipient": "gone@example.com",
        "SuppressSending": True,
        "SuppressionReason": "HardBounce",
        "Origin": "Recipient",
        "ChangedAt": "2026-04-27T20:28:51Z",
        "MessageStream": "outbound",
    }
    assert event(change).id == event(BOUNCE).id
    others = (change | {"SuppressionReason": "SpamComplaint"}, change | {"Recipient": "b@example.com"}, change | {"MessageID": "2"})
    assert len({event(other).id for other in (*others, BOUNCE)}) == 4


def test_a_complaint_that_is_told_three_ways_is_one_fact() -> None:
    ways = (
        BOUNCE | {"Type": "SpamComplaint"},
        BOUNCE | {"RecordType": "SpamComplaint", "ID": 7},
        {key: BOUNCE[key] for key in ("MessageID",)}
        | {"RecordType": "SubscriptionChange", "Recipient": BOUNCE["Email"], "SuppressSending": True, "SuppressionReason": "SpamComplaint"},
    )
    assert {event(way).kind for way in ways} == {Kind.COMPLAINED}
    assert len({event(way).id for way in ways}) == 1


def test_a_stream_that_was_left_twice_was_left_twice() -> None:
    change = json.loads((PAYLOADS / "postmark" / "changes.json").read_bytes())[0]
    later = change | {"ChangedAt": "2026-11-21T17:17:32Z"}
    assert event(change).id == event(dict(change)).id != event(later).id
    assert event(change | {"MessageStream": "other"}).id != event(change).id


def test_a_change_that_says_neither_is_kept() -> None:
    change = json.loads((PAYLOADS / "postmark" / "changes.json").read_bytes())[0]
    for odd in ({"SuppressSending": None}, {"SuppressSending": "true"}, {"SuppressionReason": None}, {"SuppressionReason": "Weather"}):
        told = heard(change | odd)
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_an_unknown_type_of_bounce_is_no_bounce() -> None:
    for type_ in ("PermanentFailure", "hardbounce", None, 1, ["HardBounce"]):
        told = heard(BOUNCE | {"Type": type_, "Inactive": True})
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_a_spam_filter_is_nobodys_complaint() -> None:
    assert event(BOUNCE | {"Type": "SpamNotification"}).kind is Kind.BLOCKED


def test_received_mail_is_kept_and_stops_nobody() -> None:
    for told in ({"FromFull": {"Email": "from@example.org"}, "To": "x@example.com"}, {"RecordType": "Inbound", "Email": "x@example.com"}):
        assert not heard(told).events
        assert [kept.reason for kept in heard(told).kept] == ["unknown_kind"]


def test_an_event_without_recipient_is_kept_unless_it_has_our_token() -> None:
    for nobody in (None, "", " ", ["a@example.com"]):
        assert [kept.reason for kept in heard(BOUNCE | {"Email": nobody}).kept] == ["no_recipient"]
        found = event(BOUNCE | {"Email": nobody, "Metadata": {"mailprefs": "our-token"}})
        assert (found.address, found.token) == (None, "our-token")


def test_a_change_names_its_recipient_by_another_field_than_a_bounce() -> None:
    assert event({key: BOUNCE[key] for key in BOUNCE if key != "Email"} | {"Recipient": "b@example.com"}).address == "b@example.com"


def test_a_moment_after_its_receipt_is_the_receipt() -> None:
    ahead = (RECEIVED + timedelta(seconds=1)).isoformat()
    assert event(BOUNCE | {"BouncedAt": ahead}).happened_at == RECEIVED


def test_postmark_is_never_answered_403() -> None:
    assert 403 not in (POSTMARK.answers.forged, POSTMARK.answers.trouble, POSTMARK.answers.kept)  # it would end all retries
    assert POSTMARK.answers.challenge["WWW-Authenticate"].startswith("Basic ")


def test_postmark_says_which_stream_in_the_catalogues_words() -> None:
    assert set(CASE.credential.groups) == {event(json.loads((PAYLOADS / "postmark" / "changes.json").read_bytes())[0]).group}
