"""Drifts of every kind put between us and each provider that lists: all are found, none is invented, and healing ends them.

``MAILPREFS_TEST_DRIFTS`` says how many people agree, one in a hundred drifts in each way then; at that size SendGrid stands for all.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs import db, ledger, worker
from mailprefs.addresses import Addresses
from mailprefs.courier import Courier, Route
from mailprefs.reconcile import Books, Report
from mailprefs.sandbox.app import SIMULATED, create_app
from mailprefs.words import Address, Cause, Change, Door, Effect

from .tellers import PATIENT, TOLD, Box, teller_of
from .test_carried import ACCOUNT, CALLED, NEWSLETTER, OFFERS, Clock, hurried

pytestmark = pytest.mark.spread

AGREED = int(os.environ.get("MAILPREFS_TEST_DRIFTS", "12"))
EACH = max(2, AGREED // 100)  # people who drift in each way
LISTING = [name for name in TOLD if teller_of(name).lists] if AGREED < 1000 else ["sendgrid"]
SETTLE, HOUR = timedelta(minutes=15), timedelta(hours=1)


@dataclass
class Drifting:
    """One account at one provider, and everybody in a relation of their own to it."""

    conn: asyncpg.Connection
    addresses: Addresses
    clock: Clock
    box: Box
    courier: Courier
    simulation: Any

    @property
    def second(self) -> bool:
        """True if the provider has a second group."""
        return OFFERS in self.courier.route.groups

    def texts(self, kind: str, count: int = EACH) -> list[str]:
        return [f"{kind}{n:06}@example.org" for n in range(count)]

    async def known(self, texts: Sequence[str]) -> list[Address]:
        people = [self.addresses.read(text) for text in texts]
        rows = [(each.bucket, each.key, each.channel, each.text) for each in people]
        await self.conn.executemany("insert into address (bucket, key, channel, plaintext) values ($1, $2, $3, $4)", rows)
        return people

    async def say(self, people: Sequence[Address], effect: Effect) -> None:
        door = Door.LINK if effect is Effect.STOP else Door.MANAGE
        changes = [Change(who, NEWSLETTER, Cause.CHOICE, effect, door, uuid4().hex, self.clock.now) for who in people]
        for n in range(0, len(changes), 1000):
            await ledger.record(self.conn, changes[n : n + 1000], now=self.clock.now)

    async def carry(self) -> None:
        """Tell everything, and let it settle."""
        for _ in range(4):
            self.clock.now += SETTLE + timedelta(minutes=2)
            while await self.courier.round():
                pass
        assert not await self.conn.fetchval("select count(*) from push where account = $1", ACCOUNT)

    async def compare(self, *, heal: bool = False) -> dict[int, Report]:
        route = self.courier.route
        named = {scope: str(scope) for scope in route.groups}
        said = route.provider, route.credential, route.groups, named, self.conn, self.box.http, self.addresses, self.clock, route.settle
        return dict(zip(route.groups, await Books(route.name, route.number, *said).compare(heal=heal), strict=True))

    async def inject(self) -> None:
        """Let everybody agree, and then drift apart in every way, by the provider's own means."""
        agreed, left, moved, undone, erased = [
            await self.known(self.texts(kind, count))
            for kind, count in (("agreed", AGREED), ("missing", EACH), ("moved", EACH), ("undone", EACH), ("erased", EACH))
        ]
        await self.known(self.texts("theirs"))
        await self.known(self.texts("allowed"))
        await self.say([*agreed, *left, *moved, *undone, *erased], Effect.STOP)
        await self.carry()
        before = deepcopy(self.simulation.state)
        await self.say(undone, Effect.GO)
        await self.carry()
        self.simulation.state = before  # the provider forgets what it was told about those who chose back
        await self.conn.executemany("update address set plaintext = null where key = $1", [(who.key,) for who in erased])
        plus = [text.replace("@", "+news@") for text in self.texts("agreed")]
        await self.box.tell_all(True, [*self.texts("theirs"), *self.texts("stranger"), *plus])
        await self.box.tell_all(True, [text.replace("agreed", "AGREED").replace("org", "Org") for text in self.texts("agreed")])
        await self.box.tell_all(False, [*self.texts("missing"), *self.texts("moved")])
        if self.second:
            await self.box.tell_all(True, self.texts("moved"), self.box.teller.groups[1])
        self.clock.now += HOUR


@asynccontextmanager
async def drifting(name: str, url: str, conn: asyncpg.Connection, addresses: Addresses) -> AsyncIterator[Drifting]:
    teller, clock = teller_of(name), Clock(worker.wall_clock())
    app = create_app([name])
    async with (
        TestServer(app) as server,
        ClientSession(timeout=PATIENT) as http,
        await db.pool(url, size=3, command_timeout=60, purpose="test") as pool,
    ):
        box = Box.at(str(server.make_url("")).rstrip("/"), http, teller)
        groups = dict(zip((NEWSLETTER, OFFERS), teller.groups, strict=False))
        await conn.execute("update account set channel = $1 where account = $2", teller.provider.channel, ACCOUNT)
        route = Route("sendgrid-main", ACCOUNT, hurried(teller.provider), box.credential, groups, CALLED, SETTLE)
        yield Drifting(conn, addresses, clock, box, Courier(route, pool, http, clock), app[SIMULATED][name])


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", LISTING)
async def test_every_drift_is_found_and_none_is_invented(name: str, database: str, conn: asyncpg.Connection, addresses: Addresses) -> None:
    async with drifting(name, database, conn, addresses) as case:
        await case.inject()
        began = time.monotonic()
        reports = await case.compare()
        took = time.monotonic() - began
        nothing = dict.fromkeys(("theirs", "stranger", "ours", "stale", "unsettled"), 0)
        found = {"theirs": EACH, "stranger": 2 * EACH, "ours": 2 * EACH, "stale": EACH}
        assert reports[NEWSLETTER].found == nothing | found
        if case.second:
            assert reports[OFFERS].found == nothing | {"theirs": EACH}
        sys.stdout.write(f"{name}: {reports[NEWSLETTER].listed} listed, {reports[NEWSLETTER].found} found in {took:.1f} s\n")

        await case.compare(heal=True)
        await case.carry()
        case.clock.now += HOUR
        healed = await case.compare()
        assert healed[NEWSLETTER].found == nothing | {"stale": EACH}  # nobody is let go because of a difference
        assert not case.second or healed[OFFERS].found == nothing


@pytest.mark.parametrize("name", ["sendgrid", "mailgun", "ses"])
async def test_where_nothing_drifts_nothing_is_found(name: str, database: str, conn: asyncpg.Connection, addresses: Addresses) -> None:
    """The control: the same people, told and compared."""
    async with drifting(name, database, conn, addresses) as case:
        await case.say(await case.known(case.texts("agreed", AGREED)), Effect.STOP)
        await case.carry()
        case.clock.now += HOUR
        assert {people for report in (await case.compare()).values() for people in report.found.values()} == {0}
