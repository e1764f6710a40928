"""How long each account has been silent, and whether that is longer than usual. Learnt from what it was heard to say, a look at a time.

Usual is what happened twice: the second longest silence of the last 90 days. So one outage teaches nothing, and a monthly newsletter does.
What an account says counts where it was read: one whose deliveries are all kept aside is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailprefs import telemetry
from mailprefs.db import Connection, queries

WINDOW = timedelta(days=90)  # before it was last heard, from which usual is learnt
LEARNING = timedelta(days=7)  # from its first word on, in which nothing is unusual yet
SHORTEST = timedelta(hours=24)  # that can be unusual
TIMES = 2  # as long as usual is too long


@dataclass(frozen=True, slots=True)
class Silence:
    """How one account was heard: since when, when last, and how long a silence of it usually is."""

    account: str
    since: datetime
    last_at: datetime
    usual: timedelta

    @property
    def limit(self) -> timedelta:
        """The longest silence that is not unusual."""
        return max(SHORTEST, TIMES * self.usual)

    def lasts(self, now: datetime) -> timedelta:
        """Return how long it has been silent, whatever the clock of who heard it last says."""
        return max(now - self.last_at, timedelta())

    def unusual(self, now: datetime) -> bool:
        """True if it used to speak, and has been silent for longer than usual."""
        return self.last_at - self.since >= LEARNING and self.lasts(now) > self.limit


async def watch(connection: Connection, accounts: Sequence[str], *, now: datetime) -> None:
    """Learn what these accounts said since the last look, show how long each has been silent, and alarm once for each unusual silence."""
    async with connection.transaction():
        await queries("silence").learn(connection, accounts=list(accounts), window=WINDOW, now=now)
        silences = await known(connection, accounts)
        unusual = [each.account for each in silences if each.unusual(now)]
        news = [row["account"] async for row in queries("silence").alarmed(connection, accounts=unusual)] if unusual else []
    for each in silences:
        telemetry.gauge("account_silent_seconds", each.lasts(now).total_seconds(), account=each.account)
    for account in sorted(news):
        telemetry.alarm("account_silent", account=account)


async def known(connection: Connection, accounts: Sequence[str]) -> list[Silence]:
    """Return how each of these accounts was heard, as of the last look; those that were never heard are not in it."""
    rows = queries("silence").known(connection, accounts=list(accounts), window=WINDOW)
    return [Silence(row["account"], row["since"], row["last_at"], row["usual"]) async for row in rows]
