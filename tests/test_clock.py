"""Deadlines by hand, and what is overdue against the deadlines themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from mailprefs import clock
from mailprefs.words import Channel

NEWSLETTER, ADS = 272, 259


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("asked", "due"),
    [
        ("2026-11-02T09:00-05:00", "2026-11-17T00:00-05:00"),  # a Monday: to the Monday after the next week, which has Veterans Day in it
        ("2026-03-02T09:00-05:00", "2026-03-14T00:00-04:00"),  # Monday: to the Friday of the next week, and the clocks went forward
        ("2026-03-02T04:59+00:00", "2026-03-14T00:00-04:00"),  # still Sunday in New York: Monday is the first
        ("2026-03-07T12:00-05:00", "2026-03-21T00:00-04:00"),  # a Saturday
        ("2026-06-29T12:00-04:00", "2026-07-14T00:00-04:00"),  # the fourth of July is a Saturday, kept on Friday
        ("2026-12-18T12:00-05:00", "2027-01-05T00:00-05:00"),  # Christmas and New Year
        ("2027-12-20T12:00-05:00", "2028-01-05T00:00-05:00"),  # both are Saturdays, kept on the Friday before
    ],
)
def test_ten_business_days_end_where_a_calendar_says(asked: str, due: str) -> None:
    assert clock.deadline(at(asked), Channel.SMS, NEWSLETTER) == at(due)


def test_mail_has_48_hours_and_ads_have_fifteen_business_days() -> None:
    asked = at("2026-03-02T09:00-05:00")
    assert clock.deadline(asked, Channel.EMAIL, NEWSLETTER) == asked + timedelta(hours=48)
    assert clock.deadline(asked, Channel.EMAIL, ADS) == at("2026-03-21T00:00-04:00")


def test_the_warning_comes_when_half_of_the_time_is_gone() -> None:
    asked = at("2026-03-02T09:00-05:00")
    assert clock.warned(asked, clock.deadline(asked, Channel.EMAIL, NEWSLETTER)) == asked + timedelta(hours=24)


@pytest.mark.parametrize(
    ("channel", "scope", "kind"), [(Channel.EMAIL, 272, "mail"), (Channel.SMS, 272, "text"), (Channel.EMAIL, 259, "ads")]
)
def test_what_is_overdue_is_what_is_past_its_deadline(channel: Channel, scope: int, kind: str) -> None:
    random = Random(3)
    for _ in range(2000):
        now = at("2026-01-01T00:00+00:00") + timedelta(minutes=random.randrange(3 * 525_600))
        asked = now - timedelta(minutes=random.randrange(45 * 1440))
        assert (asked <= getattr(clock.overdue(now), kind)) is (clock.deadline(asked, channel, scope) <= now), (asked, now)


def test_a_later_request_is_never_due_sooner() -> None:
    times = [at("2026-11-01T00:00-04:00") + timedelta(hours=n) for n in range(24 * 90)]
    for channel, scope in ((Channel.SMS, NEWSLETTER), (Channel.EMAIL, NEWSLETTER), (Channel.EMAIL, ADS)):
        due = [clock.deadline(each, channel, scope) for each in times]
        assert due == sorted(due)
        assert all(asked < end for asked, end in zip(times, due, strict=True))
