"""Twilio is heard: its own signature vectors, and what people write to a number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from time import process_time
from typing import Any
from urllib.parse import urlencode

import pytest

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers.base import Credential, Delivery, Heard
from mailprefs.providers.twilio import SIGNATURE, STOPS, Twilio
from mailprefs.words import Channel, Event, Kind

from .case_twilio import CASE, SID, TOKEN, URL
from .cases import PAYLOADS, RECEIVED
from .posting import FORM, signer

TWILIO = Twilio()
VECTORS: Mapping[str, Any] = json.loads((PAYLOADS / "twilio" / "vectors.json").read_bytes())
TEXT = {"MessageSid": "SM1", "AccountSid": SID, "From": "+12025550123", "To": "+12025550100"}


def listen(**fields: str) -> Heard:
    body = urlencode(TEXT | fields).encode()
    return TWILIO.parse(Delivery([("Content-Type", FORM)], body, RECEIVED))


def said(text: str, **fields: str) -> Kind | str:
    """Return what a text comes to: the kind of its event, the reason it is kept for, or the word it is counted under."""
    heard = listen(Body=text, **fields)
    comes_to: list[Kind | str] = [event.kind for event in heard.events]
    comes_to += [kept.reason for kept in heard.kept]
    comes_to += heard.counted
    [found] = comes_to
    return found


def accepted(delivery: Delivery, url: str, token: str = TOKEN, sid: str = "") -> bool:
    secrets = {"auth_token": token} | ({"account_sid": sid} if sid else {})
    try:
        TWILIO.verify(Credential("twilio-main", secrets, {"public_url": url}), delivery)
    except Forged:
        return False
    return True


def given(signature: str, body: str, query: str = "", content_type: str = FORM) -> Delivery:
    headers = [("Content-Type", content_type), (SIGNATURE, signature), ("Host", "internal.example.com")]
    return Delivery(headers, body.encode(), RECEIVED, url=f"/hooks/twilio-main?{query}" if query else "/hooks/twilio-main")


# Who says it


@pytest.mark.parametrize("vector", VECTORS["forms"])
def test_twilios_own_vectors_are_accepted_with_a_port_and_without(vector: Mapping[str, str]) -> None:
    delivery = given(vector["signature"], VECTORS["form"])
    assert accepted(delivery, vector["url"], VECTORS["auth_token"])
    for other in (vector["url"].replace("foo=1", "foo=2"), vector["url"].replace("mycompany", "example"), vector["url"] + "&"):
        assert not accepted(delivery, other, VECTORS["auth_token"])
    assert not accepted(replace(delivery, body=delivery.body.replace(b"1234", b"1235")), vector["url"], VECTORS["auth_token"])
    assert not accepted(delivery, vector["url"], "12346")


def test_twilios_own_vector_of_repeats_is_accepted() -> None:
    vector = VECTORS["repeats"]
    assert accepted(given(vector["signature"], vector["form"]), vector["url"], VECTORS["auth_token"])
    assert not accepted(given(vector["signature"], vector["form"] + "&Digits=1"), vector["url"], VECTORS["auth_token"])


def test_twilios_own_vector_of_a_body_that_is_no_form_is_accepted_and_kept() -> None:
    vector = VECTORS["body"]
    delivery = given(vector["signature"], vector["body"], vector["query"], "application/json")
    assert accepted(delivery, vector["url"], VECTORS["auth_token"])
    heard = TWILIO.parse(delivery)
    assert (heard.events, [kept.raw for kept in heard.kept]) == ((), [vector["body"].encode()])
    for other in (
        replace(delivery, body=delivery.body + b" "),
        replace(delivery, body=b""),
        replace(delivery, url=delivery.url.replace("foo=1", "foo=2")),
        replace(delivery, url=delivery.url.replace("0a1f", "0a1e")),
        replace(delivery, url=delivery.url.replace("bodySHA256", "bodysha256")),
        replace(delivery, url="/hooks/twilio-main"),
    ):
        assert not accepted(other, vector["url"], VECTORS["auth_token"])
    assert not accepted(delivery, vector["url"].replace("mycompany", "example"), VECTORS["auth_token"])


def test_a_digest_in_the_address_covers_nothing_that_the_signature_does_not() -> None:
    body = CASE.body([CASE.tokened]).decode()
    proof = CASE.sign(body.encode()).header(SIGNATURE) or ""
    digest = hashlib.sha256(body.encode()).hexdigest()
    assert accepted(given(proof, body), URL)  # the control
    assert not accepted(given(proof, body, f"bodySHA256={digest}"), URL)
    alone = signer(SIGNATURE, TOKEN, URL)(b"").header(SIGNATURE) or ""
    assert not accepted(given(alone, body, f"bodySHA256={digest}"), URL)
    for empty in ("", "&", "{}"):
        assert not accepted(given(alone, empty, content_type="application/json"), URL)
        assert not accepted(given(alone, empty), URL)


@pytest.mark.parametrize(
    ("set_", "signed", "same"),
    [
        ("https://go.example.com/h", "https://go.example.com:443/h", True),
        ("https://go.example.com:443/h", "https://go.example.com/h", True),
        ("https://go.example.com:8443/h", "https://go.example.com/h", True),
        ("http://go.example.com/h", "http://go.example.com:80/h", True),
        ("https://me:pass@go.example.com/h", "https://me:pass@go.example.com:443/h", True),
        ("https://go.example.com?x=1:2", "https://go.example.com:443?x=1:2", True),
        ("https://[2001:db8::1]/h", "https://[2001:db8::1]:443/h", True),
        ("https://go.example.com/h", "https://go.example.com:80/h", False),
        ("https://go.example.com/h", "http://go.example.com/h", False),
        ("https://go.example.com/h", "https://go.example.com/h/", False),
        ("https://me:pass@go.example.com/h", "https://go.example.com/h", False),
    ],
)
def test_a_port_more_or_less_is_the_same_address_and_nothing_else_is(set_: str, signed: str, same: bool) -> None:
    assert accepted(signer(SIGNATURE, TOKEN, signed)(b"Body=Stop"), set_) is same


def test_another_account_of_twilios_is_forged_where_the_account_is_named() -> None:
    own, other = CASE.sign(urlencode(TEXT).encode()), CASE.sign(urlencode(TEXT | {"AccountSid": "AC" + "9" * 32}).encode())
    nobodys, both = CASE.sign(b"Body=Stop"), CASE.sign(urlencode([*TEXT.items(), ("AccountSid", "AC" + "9" * 32)]).encode())
    assert [accepted(each, URL, sid=SID) for each in (own, other, nobodys, both)] == [True, False, False, False]
    assert all(accepted(each, URL) for each in (own, other, nobodys, both))  # the control: it is not named


def test_without_the_whole_address_it_refuses_to_start() -> None:
    for options in ({}, {"public_url": None}, {"public_url": "go.example.com"}, {"public_url": URL + "#rc=3"}):
        with pytest.raises(Misconfigured, match=r"'twilio-main': public_url"):
            TWILIO.check(replace(CASE.credential, options=options))


# What it says


@pytest.mark.parametrize(
    "text", [*sorted(STOPS), "stop", " Stop \n", "StOp", "STOP.", "stop!!!", '"Stop"', "*stop*", "s.t.o.p", "\uff33\uff34\uff2f\uff30"]
)
def test_a_whole_text_that_says_stop_is_a_stop(text: str) -> None:
    assert said(text) is said(text.lower()) is Kind.UNSUBSCRIBED


@pytest.mark.parametrize(
    "text",
    [
        "opt out",
        "Opt-Out",
        "OPT OUT.",
        "stop all",
        "STOP STOP STOP",
        "stop, cancel, unsubscribe",
        "Arr\u00eat",
        "arre\u0302ter",
        "D\u00e9sabonner",
    ],
)
def test_a_stop_is_read_generously(text: str) -> None:
    assert said(text) is Kind.UNSUBSCRIBED


@pytest.mark.parametrize(
    ("text", "kind"),
    [("START", Kind.RESUBSCRIBED), (" yes\n", Kind.RESUBSCRIBED), ("UnStop", Kind.RESUBSCRIBED), ("help", "HELP"), ("INFO", "HELP")],
)
def test_start_and_help_are_whole_texts(text: str, kind: Kind | str) -> None:
    assert said(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        "start!",
        "yes please",
        "Yes, see you",
        "s t a r t",
        "restart",
        "start again",
        "yes yes",
        "\uff39\uff25\uff33",
        "helpful",
        "",
        " ",
        "1",
    ],
)
def test_nothing_but_the_very_word_starts_again(text: str) -> None:
    assert said(text) == "message"


@pytest.mark.parametrize(
    "text",
    [
        "stop please",
        "Please STOP texting me",
        "remove me",
        "Take me off your list",
        "no more texts",
        "I don't want these messages",
        "dont ever text me again",
        "Do not contact me",
        "wrong number",
        "unsubscribe me from this",
        "I want to opt out of this",
        "cancel my subscription",
        "I revoke my consent",
        "Leave me alone",
        "never message me again",
        "this is spam",
        "2 STOP",
        "Stop 2",
        "STOP\nSent from my phone",
        "Arr\u00eatez s'il vous pla\u00eet",
        "no me manden m\u00e1s mensajes",
        "bitte keine weiteren Nachrichten",
        "\U0001f6d1",
        "Thanks, but please start to stop",
    ],
)
def test_what_a_reasonable_person_may_mean_is_kept_for_staff_with_an_alarm(text: str) -> None:
    heard = listen(Body=text)
    assert (heard.events, [kept.reason for kept in heard.kept], heard.counted) == ((), ["revocation"], {})
    assert b"12025550123" in heard.kept[0].raw  # whoever reads it knows whom to stop


@pytest.mark.parametrize(
    "text",
    ["See you on Tuesday", "Thanks!", "Nonstop fun", "Muchas gracias para todo", "at the weekend", "ok", "On my way", "What is the dose?"],
)
def test_any_other_text_is_counted(text: str) -> None:
    assert said(text) == "message"


def test_what_advanced_opt_out_has_read_goes_first() -> None:
    assert said("JOIN", OptOutType="START") is Kind.RESUBSCRIBED
    assert said("Adios", OptOutType="STOP") is Kind.UNSUBSCRIBED
    assert said("Yes", OptOutType="stop") is Kind.UNSUBSCRIBED
    assert said("Stop", OptOutType="") is Kind.UNSUBSCRIBED
    assert said("Stop", OptOutType="NEW") is Kind.UNSUBSCRIBED
    assert said("What?", OptOutType="HELP") == "HELP"
    assert [event.kind for event in listen(OptOutType="STOP").events] == [Kind.UNSUBSCRIBED]


def test_the_word_itself_is_kept_where_it_is_a_known_one() -> None:
    for text, word in (("yes", "YES"), ("Opt out", "OPTOUT"), ("Stop!", "STOP")):
        assert [event.detail for event in listen(Body=text).events] == [word]
    assert [event.detail for event in listen(Body="Alex, 3 Main Street", OptOutType="STOP").events] == ["STOP"]


def test_an_event_is_the_number_that_wrote_its_message_and_when_it_came() -> None:
    [stop] = listen(Body="Stop").events
    assert stop == Event(Kind.UNSUBSCRIBED, "SM1", RECEIVED, "+12025550123", None, None, "STOP")
    later = replace(
        Delivery([], urlencode(TEXT | {"Body": "Start", "MessageSid": "SM2"}).encode(), RECEIVED), received_at=RECEIVED + timedelta(1)
    )
    [start] = TWILIO.parse(later).events
    assert (start.kind, start.id, start.happened_at) == (Kind.RESUBSCRIBED, "SM2", RECEIVED + timedelta(1))
    assert TWILIO.channel is Channel.SMS


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("whatsapp:+12025550123", "other_channel"),
        ("messenger:123", "other_channel"),
        ("rcs:+12025550123", "other_channel"),
        ("12025550123", "no_recipient"),
        ("+0123", "no_recipient"),
        ("72345", "no_recipient"),
        ("Connective", "no_recipient"),
        ("", "no_recipient"),
        ("+12025550123\n", "no_recipient"),
        ("+\uff11\uff12\uff10\uff12\uff15\uff15\uff10\uff11\uff12\uff13", "no_recipient"),
    ],
)
def test_what_is_no_number_is_kept_aside_and_never_guessed(number: str, reason: str) -> None:
    for word in ("Stop", "Start"):
        heard = listen(Body=word, From=number)
        assert (heard.events, [kept.reason for kept in heard.kept]) == ((), [reason])
    assert said("Thanks!", From=number) == "message"


def test_a_text_without_its_id_is_kept_since_a_repetition_could_not_be_told() -> None:
    body = urlencode({"From": "+12025550123", "Body": "Stop"}).encode()
    assert [kept.reason for kept in TWILIO.parse(Delivery([], body, RECEIVED)).kept] == ["no_id"]
    for name in ("SmsMessageSid", "SmsSid"):
        [event] = TWILIO.parse(Delivery([], body + f"&{name}=SM7".encode(), RECEIVED)).events
        assert event.id == "SM7"


def test_a_report_is_counted_and_one_of_an_opt_out_that_we_missed_is_kept() -> None:
    for report in ({"MessageStatus": "delivered"}, {"MessageStatus": "failed", "ErrorCode": "30003"}):
        assert (listen(**report).events, dict(listen(**report).counted)) == ((), {"report": 1})
    heard = listen(MessageStatus="failed", ErrorCode="21610")
    assert (heard.events, [kept.reason for kept in heard.kept]) == ((), ["opted_out"])


def test_a_field_that_says_two_things_says_nothing() -> None:
    body = urlencode([*TEXT.items(), ("Body", "Stop"), ("Body", "Start")]).encode()
    heard = TWILIO.parse(Delivery([], body, RECEIVED))
    assert (heard.events, [kept.reason for kept in heard.kept]) == ((), ["unknown_kind"])


def test_the_answer_sends_no_text_back() -> None:
    assert (TWILIO.answers.kept, TWILIO.answers.body, TWILIO.answers.content_type) == (200, b"<Response/>", "text/xml")


@pytest.mark.parametrize("text", ["don't " * 200_000, "a" * 1_000_000, "never " + "a " * 500_000, "STO" * 300_000, "\u0301" * 500_000])
def test_a_long_text_is_read_in_time_that_grows_with_it(text: str) -> None:
    begun = process_time()
    said(text)
    assert process_time() - begun < 3
