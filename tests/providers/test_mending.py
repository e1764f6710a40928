"""Whoever left is stopped although part of what tells it is no strict JSON; and nothing opens by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from time import process_time
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailprefs.errors import Unreadable
from mailprefs.providers import PROVIDERS, reading
from mailprefs.providers.base import MOVING, Delivery, Heard
from mailprefs.providers.mending import NAMED, STOPS, readings, with_stops
from mailprefs.words import Event, Kind

from .cases import RECEIVED, Case, case_of, unsigned
from .posting import FORM

POISON = {  # a first member that strict reading refuses, and with it the object that it stands in
    "not utf-8": b'"x": "\xff\xfe", ',
    "utf-8 of a surrogate": b'"x": "\xed\xa0\x80", ',
    "half an emoji": b'"x": "it was cut \\ud83d", ',
    "half an emoji in an array": b'"x": [["\\ud83d"]], ',
    "half an emoji in a name": b'"\\ud83d": 1, ',
    "NaN": b'"x": NaN, ',
    "Infinity": b'"x": -Infinity, ',
    "a key twice": b'"x": 1, "x": 2, ',
    "a key twice, escaped": b'"x": 1, "\\u0078": 1, ',
    "NUL": b'"x": "\x00", ',
    "escaped NUL": b'"x": "\\u0000", ',
    "5,000 digits": b'"x": ' + b"9" * 5_000 + b", ",
}
BROKEN = {"no JSON": b"<html>", "missing value": b'"x": , ', "wrong bracket": b'"x": 1], ', "depth 10,000": b'"x": ' + b"[" * 10_000}
JSON = [name for name in PROVIDERS if name not in ("twilio", "mailchimp")]  # what posts no JSON is looked at by itself


@pytest.fixture(params=JSON)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def told(case: Case, events: Sequence[bytes]) -> tuple[Heard, Heard]:
    """Return what deliveries of these events say as they came, and with what is mended in them."""
    heard, whole = Heard(), Heard()
    for body in case.bodies(events):
        delivery = case.unsigned(body)
        one = both = case.provider.parse(delivery)
        for again in readings(delivery):
            both = with_stops(both, case.provider.parse(again))
        heard = Heard((*heard.events, *one.events), (*heard.kept, *one.kept))
        whole = Heard((*whole.events, *both.events), (*whole.kept, *both.kept))
    return heard, whole


def spoiled(event: bytes, poison: bytes) -> bytes:
    return event.replace(b"{", b"{" + poison, 1)


@pytest.mark.parametrize("member", POISON.values(), ids=POISON)
def test_a_stop_that_strict_reading_refuses_stops_and_is_kept_aside_all_the_same(case: Case, member: bytes) -> None:
    [sound] = case.heard([case.tokened]).events
    heard, whole = told(case, [spoiled(case.tokened, member)])
    assert not heard.events, "the control: strictly read, it says nothing"
    assert whole.kept == heard.kept
    assert whole.kept
    [stop] = whole.events
    assert (stop.kind, stop.address, stop.token, stop.group) == (sound.kind, sound.address, sound.token, sound.group)


def test_all_that_was_read_already_stays_as_it_was(case: Case) -> None:
    moving = [event for name, event in case.documented.items() if case.provider.kinds[name] in MOVING]
    heard, whole = told(case, [*moving, spoiled(case.tokened, POISON["NUL"]), *moving])
    assert len(heard.events) >= 2 * len(moving)
    [stop] = set(whole.events) - set(heard.events)
    assert stop.kind in STOPS
    assert len(whole.events) == len(heard.events) + 1


def test_a_sound_delivery_is_not_read_again(case: Case) -> None:
    for body in case.bodies(list(case.documented.values())):
        assert readings(case.unsigned(body)) == []


def test_of_what_is_mended_nothing_but_a_stop_counts(case: Case) -> None:
    for name, event in case.documented.items():
        heard, whole = told(case, [spoiled(event, POISON["half an emoji"])])
        assert not heard.events
        kinds = {event.kind for event in whole.events}
        assert kinds == ({case.provider.kinds[name]} & STOPS), name


@pytest.mark.parametrize("member", BROKEN.values(), ids=BROKEN)
def test_what_has_no_whole_brackets_stops_nobody_and_costs_no_other_one(case: Case, member: bytes) -> None:
    broken = spoiled(case.tokened, member)
    _, whole = told(case, [broken])
    assert not whole.events
    assert whole.kept
    if case.batched and case.provider.name != "klaviyo":  # where the array is a member, its broken element hides its end
        _, whole = told(case, [broken, spoiled(case.tokened, POISON["NUL"])])
        assert len(whole.events) == 1


def one(name: str, event: object) -> Sequence[Event]:
    case = case_of(name)
    text = event if isinstance(event, bytes) else json.dumps(event).encode()
    return told(case, [text])[1].events


def told_body(name: str, body: bytes) -> Sequence[Event]:
    case = case_of(name)
    heard = case.provider.parse(case.unsigned(body))
    for again in readings(case.unsigned(body)):
        heard = with_stops(heard, case.provider.parse(again))
    return heard.events


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        (b'"event": "spamreport", "event": "spamreport", "email": "alex@example.com"', Kind.COMPLAINED),
        (b'"event": "spamreport", "event": "delivered", "email": "alex@example.com"', None),
        (b'"event": "delivered", "event": "spamreport", "event": "delivered", "email": "alex@example.com"', None),
        (b'"event": "spamreport", "email": "alex@example.com", "email": null', Kind.COMPLAINED),
        (b'"event": "group_resubscribe", "asm_group_id": 5, "email": "alex@example.com", "email": "rob@example.com"', None),
        (b'"event": "spamreport", "email": "al\\u0000ex@example.com"', None),
        (b'"event": "spamreport", "email": "alex\\ud83d@example.com"', None),
        (b'"event": "spam\\ud83dreport", "email": "alex@example.com"', None),
        (b'"event": "bounce", "type": "blocked", "type": "bounce", "status": "5.7.1", "email": "alex@example.com"', None),
        (b'"event": "bounce", "type": "bounce", "reason": "\\ud83d", "email": "alex@example.com"', Kind.BOUNCED_HARD),
        (b'"event": "group_resubscribe", "reason": "\\ud83d", "asm_group_id": 5, "email": "alex@example.com"', None),
    ],
)
def test_only_what_is_plain_counts(members: bytes, kind: Kind | None) -> None:
    found = one("sendgrid", b"{" + members + b"}")
    assert [event.kind for event in found] == ([kind] if kind else [])


def test_a_group_that_cannot_be_read_is_one_that_nobody_mapped() -> None:
    [event] = one("sendgrid", b'{"event": "group_unsubscribe", "asm_group_id": 5, "asm_group_id": 6, "email": "alex@example.com"}')
    assert event.group == ""


@pytest.mark.parametrize("event", ["unsubscribe", "spamreport", "group_resubscribe", "open"])
def test_a_key_twice_that_names_two_stops_both(event: str) -> None:
    """In doubt both, and nothing but a stop: whoever was meant has left."""
    people = [f'"email": "{name}@example.com"' for name in ("alex", "rob", "rob", "kim")]
    found = one("sendgrid", ("{" + ", ".join([*people, f'"event": "{event}", "sg_event_id": "e1"']) + "}").encode())
    stops = {"unsubscribe": Kind.UNSUBSCRIBED, "spamreport": Kind.COMPLAINED}
    assert {(each.kind, each.address) for each in found} == (
        {(stops[event], f"{name}@example.com") for name in ("alex", "rob", "kim")} if event in stops else set()
    )


def test_each_element_that_names_two_stops_both_and_the_others_once() -> None:
    told_twice = [f'{{"event": "unsubscribe", "email": "{a}@example.com", "email": "{a}@example.net"}}'.encode() for a in "abc"]
    body = b"[" + b",".join([*told_twice, b'{"event": "unsubscribe", "email": "d@example.com", "x": NaN}']) + b"]"
    found = told_body("sendgrid", body)
    assert sorted(str(each.address) for each in found) == sorted(
        [f"{a}@example.{end}" for a in "abc" for end in ("com", "net")] + ["d@example.com"]
    )


def test_more_than_a_few_under_one_key_are_not_read_for_ever() -> None:
    """Each is one reading of the whole body more."""
    many = b",".join(b'"email": "a%d@example.com"' % n for n in range(50_000))
    assert len(readings(unsigned(b'{"event": "unsubscribe", ' + many + b"}"))) == NAMED


def test_a_text_that_is_json_is_mended_inside() -> None:
    [event] = one("ses", case_of("ses").tokened.replace(b'"feedbackId": "f"', b'"feedbackId": "f", "userAgent": "\\ud83d"'))
    assert (event.kind, event.address) == (Kind.COMPLAINED, "alex@example.com")


@pytest.mark.parametrize("odd", [b"\xff", b"\x00", b"\xed\xa0\x80"])
def test_a_text_message_that_stops_stops_whatever_else_its_form_holds(odd: bytes) -> None:
    case = case_of("twilio")
    for said, kinds in (("Stop", [Kind.UNSUBSCRIBED]), ("Start", []), ("Hello", [])):
        form = urlencode({b"MessageSid": b"SM1", b"From": b"+12025550123", b"Body": said.encode(), b"FromCity": odd}).encode()
        delivery = Delivery([("Content-Type", FORM)], form, RECEIVED)
        heard, [again] = case.provider.parse(delivery), readings(delivery)
        assert not heard.events
        assert [event.kind for event in with_stops(heard, case.provider.parse(again)).events] == kinds


def test_what_is_no_form_and_no_json_is_left() -> None:
    for body in (b"", b" ", b"<html>", b"\xff", b"{", b"[", b'{"a"', b"[}", b"[1,"):
        assert readings(unsigned(body)) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_what_is_mended_is_strict(value: object) -> None:
    body = json.dumps([value, {"x": "\ud83d"}]).encode()
    [again] = readings(unsigned(body))
    found = reading.value(again.body)
    assert found[-1] == {"x": ""}


@given(st.binary(max_size=300))
def test_mending_never_raises(body: bytes) -> None:
    for whole in (body, b"[" + body + b"]", b'{"data": [' + body + b"]}", b'{"a": "' + body + b'"}'):
        assert all(again.body != whole for again in readings(unsigned(whole)))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 2_000_000,
        b'{"a":' * 400_000,
        b'[{"x": "\\ud83d"},' * 100_000,
        b'["' + b"\\ud83d" * 500_000 + b'"]',
        b"[" + b'{"x": 1, "x": 2},' * 100_000 + b"1]",
        b'[["' + json.dumps(["\ud83d" * 10] * 50_000).encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"]]',
    ],
    ids=["brackets", "objects", "an array without end", "one long string", "keys twice", "JSON in JSON"],
)
def test_mending_takes_time_that_grows_with_the_body(body: bytes) -> None:
    began = process_time()
    readings(unsigned(body))
    assert process_time() - began < 5


def test_json_in_json_is_mended_once() -> None:
    """Else each level would be read again for the one above it."""
    text = "[[]"
    for _ in range(18):
        text = json.dumps([("[" * 1_200), text])
    began = process_time()
    readings(unsigned(text.encode()))
    assert process_time() - began < 5


def test_the_control_strict_reading_refuses_all_of_it() -> None:
    for member in POISON.values():
        with pytest.raises(Unreadable):
            reading.value(b"{" + member + b'"y": 1}')
