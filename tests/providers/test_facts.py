"""One field at a time of what anyone may have written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given

from mailprefs.providers import facts, reading

from .cases import RECEIVED
from .test_reading import VALUES

ODD: tuple[object, ...] = (None, True, False, [], {}, "", " ", "soon", "１", float("inf"), float("nan"), -1, 0, 10**400, "9" * 18, b"1")


@given(value=VALUES, other=VALUES)
def test_any_value_in_any_field_raises_nothing(value: object, other: object) -> None:
    assert facts.text(value) in (value, None)
    assert isinstance(facts.name_of(value, value, other), str)
    assert isinstance(facts.moment(value, RECEIVED), datetime)
    assert isinstance(facts.instant(value, RECEIVED), datetime)
    assert isinstance(facts.status(value), str)
    facts.within(value, "a", "b")


def test_a_moment_is_read_from_a_number_or_its_digits() -> None:
    for seconds in (1700000000, "1700000000", 1700000000.0):
        assert facts.moment(seconds, RECEIVED) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert facts.moment(RECEIVED.timestamp(), RECEIVED + timedelta(1)) == RECEIVED


@pytest.mark.parametrize("odd", [*ODD, 1700000000000, RECEIVED.timestamp() + 1, facts.EARLIEST.timestamp() - 1])
def test_what_is_no_moment_of_the_past_is_the_time_of_receipt(odd: object) -> None:
    assert facts.moment(odd, RECEIVED) == RECEIVED


@pytest.mark.parametrize(
    "written", ["2026-11-05T16:33:54.9070259Z", "2026-11-05T12:33:54.9070259-04:00", "2026-11-05 16:33:54.907025+00:00"]
)
def test_an_instant_is_read_from_text_with_its_zone(written: str) -> None:
    read = facts.instant(written, RECEIVED)
    assert read == datetime(2026, 11, 5, 16, 33, 54, 907025, tzinfo=UTC)
    assert read.tzinfo is UTC


@pytest.mark.parametrize(
    "odd",
    [*ODD, 1700000000, "2026-11-05T16:33:54", "2026-11-05", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-22T13:00Z"],
)
def test_what_is_no_instant_of_the_past_is_the_time_of_receipt(odd: object) -> None:
    assert facts.instant(odd, RECEIVED) == RECEIVED


def test_an_event_without_a_name_is_named_by_its_facts() -> None:
    assert facts.name_of("an-id", "bounce", 1) == "an-id"
    for none in (None, "", 7, "x" * (facts.LONGEST_NAME + 1)):
        named = facts.name_of(none, "bounce", {"b": 1, "a": 2})
        assert named == facts.name_of(None, "bounce", {"a": 2, "b": 1})
        assert named != facts.name_of(None, "bounce", {"a": 2, "b": 2})
        assert len(named) < 60


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("smtp;550 5.1.1 The email account that you tried to reach does not exist.", "5.1.1"),
        ("550 5.1.1: no. See 5.7.1", "5.1.1"),
        ("(5.2.2)", "5.2.2"),
        ("5.1.10", "5.1.10"),
        ("451-4.7.1 later", "4.7.1"),
        ("ends in 5.1.1.", "5.1.1"),
        ("refused by 5.1.1.9", ""),
        ("refused by 25.1.1", ""),
        ("5.1", ""),
        ("3.1.1", ""),
        ("550", ""),
        ("", ""),
        (None, ""),
        (5.1, ""),
    ],
)
def test_a_status_is_found_in_an_answer_and_nothing_else_of_it(answer: object, status: str) -> None:
    assert facts.status(answer) == status


def test_a_field_within_a_field_is_found_or_is_none() -> None:
    told = reading.value(b'{"a": {"b": {"c": 1}, "d": null}, "e": [1]}')
    assert facts.within(told, "a", "b", "c") == 1
    for names in (("a", "x"), ("a", "d", "c"), ("e", "0"), ("x", "y"), ("a", "b", "c", "d")):
        assert facts.within(told, *names) is None
