"""Forms as providers post them."""

from __future__ import annotations

import pytest

from mailprefs.errors import Forged
from mailprefs.providers import posted
from mailprefs.providers.base import Delivery

from .cases import RECEIVED
from .posting import FORM

POISON = {
    "not utf-8": b"x=%ff",
    "not utf-8, as it is": b"x=\xff",
    "utf-8 of a surrogate": b"x=%ed%a0%80",
    "NUL": b"x=%00",
    "NUL in a name": b"x%00=1",
    "half an escape": b"x=%4",
    "no escape": b"x=%zz",
    "no value": b"x",
    "nothing": b"",
    "1,001 fields": b"&".join([b"x=1"] * 1_001),
}


def form(body: bytes, *types: str) -> Delivery:
    return Delivery([("Content-Type", each) for each in types], body, RECEIVED)


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_a_poisoned_form_tells_nothing_and_is_kept_as_it_came(poison: bytes) -> None:
    assert posted.event(form(b"a=1&x=1&b=2", FORM)).values == [{"a": "1", "x": "1", "b": "2"}]  # the control
    for body in (b"a=1&" + poison + b"&b=2", poison + b"&b=2"):
        batch = posted.event(form(body, FORM))
        assert (batch.values, batch.aside) == ([], [("unreadable", body)])


def test_a_field_with_more_than_one_value_counts_as_missing() -> None:
    assert posted.event(form(b"a=1&b=2&a=3&c=4&c=4", FORM)).values == [{"b": "2", "c": "4"}]


def test_an_empty_form_tells_nothing() -> None:
    batch = posted.event(form(b"", FORM))
    assert (batch.values, batch.aside) == ([], [])


def test_a_form_without_a_content_type_is_read_as_one() -> None:
    assert posted.event(form(b"a=1")).raw(0) == b"a=1"
    assert posted.event(form(b"a=1")).values == posted.event(form(b"a=1", FORM, FORM)).values == [{"a": "1"}]
    assert posted.octets(form(b"a=%ff")) == [(b"a", b"\xff")]


def test_what_is_no_form_was_not_signed_field_by_field() -> None:
    for delivery in (form(b"{}", "application/json"), form(b"x", FORM), form(b"a=%", FORM), form(b"a=1", "multipart/form-data")):
        with pytest.raises(Forged):
            posted.octets(delivery)


def test_what_is_signed_is_sorted_and_each_field_counts_once() -> None:
    fields = [(b"b", b"2"), (b"a", b"\xff"), (b"b", b"1"), (b"b", b"2")]
    assert posted.signed("https://x/", fields) == b"https://x/a\xffb1b2"
