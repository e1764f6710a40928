"""How each account is received: what it said, what was refused in its name, what was kept aside, how long it has been silent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mailprefs import db, silence, telemetry
from mailprefs.db import Connection, Pool, queries
from mailprefs.errors import Unavailable
from mailprefs.silence import Silence
from mailprefs.words import Address

UNKNOWN = "unknown_kind"  # the reason for which a provider's new word is kept aside
MOST = 10_000  # of one account that are counted among what is kept aside
EVERY = 5.0  # seconds between two times that forgeries are written


@dataclass(frozen=True, slots=True)
class Reception:
    """How one account is received. Counts are of all time, but for what is kept aside, which is of the last 30 days."""

    account: str
    last_at: datetime | None = None  # when it was last heard
    events: Mapping[str, int] = field(default_factory=dict)  # by kind
    forged: int = 0  # deliveries that proved nothing
    forged_at: datetime | None = None  # the last of them
    kept: Mapping[str, int] = field(default_factory=dict)  # by reason
    silence: Silence | None = None  # None: no worker has looked since it was first heard

    def silent_for(self, now: datetime) -> timedelta | None:
        """Return how long it has been silent, None for one that was never heard."""
        return max(now - self.last_at, timedelta()) if self.last_at else None

    def unusual(self, now: datetime) -> bool:
        """True if it has been silent for longer than usual."""
        return self.silence is not None and self.last_at == self.silence.last_at and self.silence.unusual(now)


async def figures(connection: Connection, accounts: Sequence[str]) -> list[Reception]:
    """Return how each of these accounts is received, in their order."""
    names = list(accounts)
    heard = [row async for row in queries("reception").heard(connection, accounts=names)]
    forged = {row["account"]: row async for row in queries("reception").forged(connection, accounts=names)}
    kept = [row async for row in queries("reception").aside(connection, accounts=names, most=MOST)]
    silences = {each.account: each for each in await silence.known(connection, names)}
    return [
        Reception(
            name,
            max((row["last_at"] for row in heard if row["account"] == name), default=None),
            {row["kind"]: row["events"] for row in heard if row["account"] == name},
            forged[name]["deliveries"] if name in forged else 0,
            forged[name]["last_at"] if name in forged else None,
            {row["reason"]: row["kept"] for row in kept if row["account"] == name},
            silences.get(name),
        )
        for name in names
    ]


def show(receptions: Sequence[Reception], *, now: datetime) -> None:
    """Set the gauges of these accounts."""
    for each in receptions:
        if (silent := each.silent_for(now)) is not None:
            telemetry.gauge("account_silent_seconds", silent.total_seconds(), account=each.account)
        telemetry.gauge("account_silent_unusually", each.unusual(now), account=each.account)
        telemetry.gauge("account_forged_deliveries", each.forged, account=each.account)
        telemetry.gauge("account_kept_aside", sum(each.kept.values()), account=each.account)
        telemetry.gauge("account_unknown_kinds", each.kept.get(UNKNOWN, 0), account=each.account)
        for kind, events in each.events.items():
            telemetry.gauge("account_events", events, account=each.account, kind=kind)


async def told_of(connection: Connection, account: str, address: Address) -> list[tuple[str, int, str]]:
    """Return what an account told of one address: the evidence, the scope's number and the effect of each."""
    rows = queries("reception").told_of(connection, account=account, bucket=address.bucket, key=address.key)
    return [(row["evidence"], row["scope"], row["effect"]) async for row in rows]


class Forgeries:
    """Adds up what was refused, by account, and writes it every few seconds: a flood costs an addition each, and one statement in all."""

    def __init__(self) -> None:
        self._new: Counter[str] = Counter()
        self._last: dict[str, datetime] = {}

    def count(self, account: str, at: datetime) -> None:
        """Count one delivery in the name of an account. What is not written yet is lost if the process dies: five seconds of it."""
        self._new[account] += 1
        self._last[account] = at

    @asynccontextmanager
    async def running(self, pool: Pool) -> AsyncIterator[None]:
        """Write while this lasts, and once more at its end."""
        over = asyncio.Event()
        writing = asyncio.create_task(self._write(pool, over))
        try:
            yield
        finally:
            over.set()
            await writing

    async def _write(self, pool: Pool, over: asyncio.Event) -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), EVERY)
            try:
                await self.keep(pool)
            except Exception as error:
                telemetry.alarm("loop_failed")
                telemetry.log.error("loop_failed", exc_info=error)

    async def keep(self, pool: Pool) -> None:
        """Write what is new, if anything is. What cannot be written now is kept for the next time."""
        new, self._new = self._new, Counter()
        if not new:
            return
        names = sorted(new)
        last = [self._last[name] for name in names]
        try:
            async with db.acquired(pool) as connection:
                add = queries("reception").add_forged
                await add(connection, accounts=names, deliveries=[new[name] for name in names], last_at=last)
        except BaseException as error:
            self._new.update(new)
            if not isinstance(error, Unavailable):
                raise
