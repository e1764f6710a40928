"""By when each account must have heard of a stop: the shortest time that mailbox providers and the law give its kind.

- e-mail: 48 hours (the mailbox providers' rule), always before the law's ten business days
- texts: ten business days (CAN-SPAM, TCPA, CASL)
- ads: fifteen business days (CCPA)

Business days are counted in New York without weekends and US federal holidays. Where a rule can be read in two ways the earlier counts: the
day of the request is the first if it is a business day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import count
from zoneinfo import ZoneInfo

import holidays

from mailprefs.words import ADS, Channel

MAILBOX = timedelta(hours=48)
LAW, CCPA = 10, 15  # business days
NEW_YORK = ZoneInfo("America/New_York")


@dataclass(frozen=True, slots=True)
class Asked:
    """When stops were asked for that are all due at this moment or were before: by kind, the latest such time."""

    mail: datetime
    text: datetime
    ads: datetime


def deadline(asked_at: datetime, channel: Channel, scope: int) -> datetime:
    """Return when a stop asked for at ``asked_at`` must have reached everyone, in UTC."""
    if scope & 255 == ADS:
        return _after(_day(asked_at), CCPA)
    law = _after(_day(asked_at), LAW)
    return law if channel is Channel.SMS else min(asked_at + MAILBOX, law)


def warned(asked_at: datetime, due_at: datetime) -> datetime:
    """Return when half of the time is gone: who has not been told by then is alarmed about, while something can be done."""
    return asked_at + (due_at - asked_at) / 2


def overdue(now: datetime) -> Asked:
    """Return up to when a stop must have been asked for to be past its deadline now."""
    return Asked(now - MAILBOX, _last(now, LAW), _last(now, CCPA))


def _last(now: datetime, days: int) -> datetime:
    """Return the end of the latest day whose requests are all past their deadline."""
    past = next(day for day in _back(_day(now)) if _after(day, days) <= now)
    return _midnight(past + timedelta(days=1)) - timedelta(microseconds=1)


def _after(day: date, days: int) -> datetime:
    """Return the end of so many business days, the given one among them if it is one."""
    left = days
    while True:
        left -= _works(day)
        day += timedelta(days=1)
        if not left:
            return _midnight(day)


def _back(day: date) -> Iterator[date]:
    return (day - timedelta(days=n) for n in count())


def _works(day: date) -> bool:
    return day.weekday() < 5 and day not in _holidays(day.year)


@cache
def _holidays(year: int) -> frozenset[date]:
    """The federal holidays of a year, on the days they are observed; one that is kept on New Year's Eve belongs to the year before."""
    return frozenset(day for day in holidays.country_holidays("US", years=year, observed=True) if day.year == year)


def _day(at: datetime) -> date:
    return at.astimezone(NEW_YORK).date()


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), NEW_YORK).astimezone(UTC)
