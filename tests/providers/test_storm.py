"""Couriers cut off at any await and replaced, a third of each provider's replies faulty: when it is quiet its copy equals ours.

Every provider that is told goes through it, on a clock of its own; with killed processes SendGrid does in ``tests/flows/test_chaos.py``.
The same without settling goes wrong. ``MAILPREFS_TEST_STORM`` says how many changes of mind each provider hears of.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import TestServer

from mailprefs import db, ledger, worker
from mailprefs.addresses import Addresses
from mailprefs.courier import Courier, Route
from mailprefs.providers.base import Unclear
from mailprefs.reconcile import Books
from mailprefs.sandbox.app import create_app
from mailprefs.sandbox.faults import FAULTS, Apply, Faults, read
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

from .tellers import PATIENT, TOLD, Box, teller_of
from .test_carried import ACCOUNT, CALLED, NEWSLETTER, OFFERS, Clock, hurried

CHANGES = int(os.environ.get("MAILPREFS_TEST_STORM", "25"))
TWICE = (1, 2) if CHANGES > 100 else (1,)
PEOPLE, A_ROUND = 25, 6  # people; changes between two rounds, at most
SETTLE, LATEST = timedelta(minutes=15), timedelta(minutes=12)  # what is late lands before it is settled
TIMEOUT = 0.25  # seconds until an answer is given up
TROUBLE = (
    "429-seconds",
    "429-date",
    "429-reset",
    "401",
    "500",
    "html",
    "slow",
    "applied-then-dropped",
    "applied-then-dropped",
    "applied-late",
    "applied-late",
    "applied-late",
    "half-closed",
    "truncated",
    "duplicated",
    "duplicated",
    "per-item",
)


class Later(Faults):
    """What is late lands by the storm's own clock: ``seconds`` are minutes of it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.under_way: list[tuple[datetime, Apply]] = []

    def land(self, apply: Apply, seconds: float) -> None:
        self.under_way.append((self.clock.now + timedelta(minutes=seconds), apply))

    def pass_by(self, step: timedelta) -> None:
        """Move the clock, and let land what is due."""
        self.clock.now += step
        due = [apply for at, apply in self.under_way if at <= self.clock.now]
        self.under_way = [each for each in self.under_way if each[0] > self.clock.now]
        for apply in due:
            apply()


@dataclass
class Storm:
    """One account at one provider, and what was done to it."""

    conn: asyncpg.Connection
    clock: Clock
    box: Box
    faults: Later
    courier: Courier
    dice: Random
    people: list[Address]
    addresses: Addresses
    pressed: dict[tuple[UUID, int], str] = field(default_factory=dict)  # presses that can be taken back
    figures: Counter[str] = field(default_factory=Counter)

    def pass_by(self, least: timedelta, most: timedelta) -> None:
        self.faults.pass_by(least + (most - least) * self.dice.random())

    async def change_a_mind(self) -> None:
        """Somebody stops, chooses back, or takes a press back."""
        who, scope = self.dice.choice(self.people), self.dice.choice(list(self.courier.route.groups))
        self.clock.now += timedelta(seconds=1)
        effect, door, id = self.dice.choice(
            [(Effect.STOP, Door.PAGE, uuid4().hex)] * 4
            + [(Effect.GO, Door.MANAGE, uuid4().hex)] * 2
            + [(Effect.WITHDRAW, Door.PAGE, self.pressed.pop((who.key, scope), "none"))]
        )
        change = Change(who, scope, Cause.CHOICE, effect, door, id, self.clock.now)
        if effect is Effect.STOP:
            self.pressed[who.key, scope] = change.evidence
        if id != "none":
            self.figures["changes"] += sum(await ledger.record(self.conn, [change], now=self.clock.now))

    def spoil(self) -> None:
        trouble = (*TROUBLE, *("lying",) * 2 * self.box.teller.reads_back)
        while len(self.faults.queue) < 20:
            name = self.dice.choice(trouble) if self.dice.random() < 1 / 3 else ""
            self.figures["faults queued"] += bool(name)
            seconds = (
                TIMEOUT + 0.05 if name == "slow" else 20 if name.startswith("429") else self.dice.uniform(0, LATEST / timedelta(minutes=1))
            )
            self.faults.add(read({"fault": name, "seconds": seconds} if name else {"fault": "slow", "seconds": 0}))

    async def compare_lists(self) -> None:
        """Lay the provider's lists beside ours while it is told, and heal."""
        route = self.courier.route
        names = {scope: str(scope) for scope in route.groups}
        async with db.acquired(self.courier.pool) as connection, ClientSession(timeout=PATIENT) as http:
            said = route.provider, route.credential, route.groups, names, connection, http, self.addresses, self.clock, route.settle
            with suppress(Unclear):  # a list that changes while it is read may not come whole: then nothing is concluded
                await Books(route.name, route.number, *said).compare(heal=True, shrunk=True)
                self.figures["comparisons"] += 1

    async def carry(self) -> None:
        """Carry what is due; one time in three the courier dies in the middle of it and another one comes."""
        working = asyncio.create_task(self._rounds())
        if self.dice.random() < 1 / 3:
            for _ in range(self.dice.randrange(400)):
                if working.done():
                    break
                await asyncio.sleep(0)
            if working.cancel():
                self.figures["cut off"] += 1
                with suppress(asyncio.CancelledError):
                    await working
                self.courier = self.another()
                self.pass_by(timedelta(seconds=121), timedelta(seconds=200))  # until its lease is over
                return
        await working

    def another(self) -> Courier:
        """A courier that knows nothing of the one before it."""
        one = self.courier
        return Courier(one.route, one.pool, one.http, one.clock)

    async def _rounds(self) -> None:
        for _ in range(20):
            if not await self.courier.round():
                return

    async def blow(self, changes: int = CHANGES) -> Counter[str]:
        while self.figures["changes"] < changes:
            for _ in range(self.dice.randrange(A_ROUND)):
                await self.change_a_mind()
            self.spoil()
            comparing = self.courier.route.settle and self.box.teller.lists and self.dice.random() < 0.1
            await asyncio.gather(self.carry(), *([self.compare_lists()] if comparing else []))
            self.pass_by(timedelta(seconds=5), timedelta(minutes=4))
        self.faults.queue.clear()
        await self.quiet()
        await self.compare()
        return self.figures

    async def quiet(self) -> None:
        """Let everything land and be told."""
        for _ in range(200):
            self.pass_by(timedelta(minutes=13), timedelta(minutes=20))
            await self._rounds()
            if not await self.conn.fetchval("select count(*) from push where account = $1", ACCOUNT):
                break
        else:
            pytest.fail("something is owed for ever")
        assert not self.faults.under_way

    async def compare(self) -> None:
        """Ask both sides by plain means; whom we stopped and they did not is dangerous."""
        for scope, group in self.courier.route.groups.items():
            rows = await self.conn.fetch("select plaintext from address where stops @> array[$1::int]", scope)
            ours, theirs = {row["plaintext"].casefold() for row in rows}, {each.casefold() for each in await self.box.holds(group)}
            self.figures["stopped"] += len(ours)
            self.figures["mismatches"] += len(ours ^ theirs)
            self.figures["dangerous"] += len(ours - theirs)
        self.figures["requests"] = len(await self.box.requests())
        # nobody but us has spoken to the provider: whatever a comparison took for a stop of theirs was our own echo
        self.figures["invented"] = await self.conn.fetchval("select count(*) from consent where door = 'reconcile'")


@asynccontextmanager
async def storm(name: str, url: str, addresses: Addresses, *, settle: timedelta, seed: int) -> AsyncIterator[Storm]:
    teller, clock = teller_of(name), Clock(worker.wall_clock())
    conn = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    app, faults = create_app([name]), Later(clock)
    app[FAULTS] = faults
    async with (
        TestServer(app) as server,
        ClientSession(timeout=ClientTimeout(total=TIMEOUT)) as http,
        await db.pool(url, size=4, command_timeout=10, purpose="test") as pool,
    ):
        box = Box.at(str(server.make_url("")).rstrip("/"), http, teller)
        groups = dict(zip((NEWSLETTER, OFFERS), teller.groups, strict=False))
        await conn.execute("truncate address, consent, push, told, gate, closed, echo, reconciliation")
        await conn.execute("update account set channel = $1 where account = $2", teller.provider.channel, ACCOUNT)
        route = Route("sendgrid-main", ACCOUNT, hurried(teller.provider), box.credential, groups, CALLED, settle)
        texts = [f"+1202555{n:04}" if teller.provider.channel is Channel.SMS else f"p{n:03}@example.org" for n in range(PEOPLE)]
        people = [addresses.read(text) for text in texts]
        rows = [(each.bucket, each.key, each.channel, each.text) for each in people]
        await conn.executemany("insert into address (bucket, key, channel, plaintext) values ($1, $2, $3, $4)", rows)
        yield Storm(conn, clock, box, faults, Courier(route, pool, http, clock), Random(f"{name}{seed}"), people, addresses)
    await conn.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", TOLD)
async def test_after_the_storm_every_providers_copy_equals_ours(name: str, database: str, addresses: Addresses) -> None:
    for seed in TWICE:
        async with storm(name, database, addresses, settle=SETTLE, seed=seed) as run:
            figures = await run.blow()
        sys.stdout.write(f"{name}, {seed}: {', '.join(f'{what} {count}' for what, count in sorted(figures.items()))}\n")
        assert (figures["mismatches"], figures["dangerous"], figures["invented"]) == (0, 0, 0)
        assert figures["stopped"]


@pytest.mark.slow
async def test_without_settling_the_storm_leaves_some_copies_wrong(database: str, addresses: Addresses) -> None:
    """The control. One storm may do no harm, two dozen long ones cannot."""
    for seed in range(8):
        for name in ("sendgrid", "postmark", "mailgun"):
            async with storm(name, database, addresses, settle=timedelta(), seed=seed) as run:
                if (await run.blow(8 * CHANGES))["mismatches"]:
                    return
    pytest.fail("two dozen storms without settling, and nothing went wrong: the faults are too mild to prove anything")
