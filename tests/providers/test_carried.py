"""From the ledger to each provider: stops and goes, a courier, the sandbox and its faults. In the end its copy is ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import TestServer

from mailprefs import db, ledger
from mailprefs.addresses import Addresses
from mailprefs.courier import Courier, Route
from mailprefs.providers.base import Provider
from mailprefs.sandbox.app import create_app
from mailprefs.words import Cause, Change, Channel, Door, Effect

from .tellers import TOLD, Box, teller_of

NEWSLETTER, OFFERS, ACCOUNT = 272, 273, 1
SETTLE = timedelta(minutes=15)
PEOPLE = {Channel.EMAIL: [f"p{n}@example.org" for n in range(12)], Channel.SMS: [f"+120255501{n:02}" for n in range(12)]}
ROUNDS = 25
TIMEOUT = 0.3  # seconds until an answer is given up
LANDED = 0.4  # seconds after which nothing is under way any more
LIES = ["lying"] * 3
TROUBLE: list[Any] = [
    {"fault": "429-seconds", "seconds": 7},
    "429-bare",
    "401",
    "500",
    "html",
    {"fault": "slow", "seconds": TIMEOUT + 0.1},
    "applied-then-dropped",
    {"fault": "applied-late", "seconds": 0.2},
    "half-closed",
    "truncated",
    {"fault": "duplicated", "seconds": 0.2},
    "per-item",
]


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass
class World:
    """One account at one provider, its courier, and what everybody wanted last."""

    conn: asyncpg.Connection
    addresses: Addresses
    clock: Clock
    box: Box
    courier: Courier
    wanted: dict[tuple[int, str], Effect] = field(default_factory=dict)

    @property
    def people(self) -> list[str]:
        return PEOPLE[self.box.teller.provider.channel]

    async def say(self, effect: Effect, scope: int, name: str) -> None:
        address = self.addresses.read(name)
        await self.conn.execute(
            "insert into address (bucket, key, channel, plaintext) values ($1, $2, $3, $4) on conflict do nothing",
            address.bucket,
            address.key,
            address.channel,
            address.text,
        )
        self.clock.now += timedelta(seconds=1)
        door = Door.PAGE if effect is Effect.STOP else Door.MANAGE
        change = Change(address, scope, Cause.CHOICE, effect, door, uuid4().hex, self.clock.now)
        await ledger.record(self.conn, [change], now=self.clock.now)
        self.wanted[scope, name] = effect

    async def go_round(self) -> None:
        """Carry what is due, in both directions."""
        for _ in range(2):
            while await self.courier.round():
                pass

    async def owed(self) -> int:
        count: int = await self.conn.fetchval("select count(*) from push where account = $1", ACCOUNT)
        return count

    async def quiet(self) -> None:
        """Let everything land and settle."""
        for _ in range(60):
            await asyncio.sleep(LANDED)
            self.clock.now += SETTLE + timedelta(minutes=2)
            await self.go_round()
            if not await self.owed():
                return
        pytest.fail(f"{await self.owed()} are still owed")

    async def differing(self) -> dict[int, set[str]]:
        """Return who, in each group, is stopped there and not here, or here and not there."""
        groups = self.courier.route.groups
        there = {scope: {each.casefold() for each in await self.box.holds(groups[scope])} for scope in groups}
        here = {scope: {name for (of, name), effect in self.wanted.items() if of == scope and effect is Effect.STOP} for scope in groups}
        return {scope: found for scope in groups if (found := there[scope] ^ here[scope])}


CALLED = {NEWSLETTER: "sendgrid/12345", OFFERS: "sendgrid/12346"}  # how the database knows what is mapped, whoever is told


@pytest.fixture(params=TOLD)
async def world(
    request: pytest.FixtureRequest, database: str, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> AsyncIterator[World]:
    teller, clock = teller_of(request.param), Clock(now)
    pool = await db.pool(database, size=3, command_timeout=10, purpose="test")
    async with TestServer(create_app([teller.name])) as server, ClientSession(timeout=ClientTimeout(total=TIMEOUT)) as http:
        box = Box.at(str(server.make_url("")).rstrip("/"), http, teller)
        groups = dict(zip((NEWSLETTER, OFFERS), teller.groups, strict=False))
        await conn.execute("update account set channel = $1 where account = $2", teller.provider.channel, ACCOUNT)
        route = Route("sendgrid-main", ACCOUNT, hurried(teller.provider), box.credential, groups, CALLED, SETTLE)
        yield World(conn, addresses, clock, box, Courier(route, pool, http, clock))
    await pool.close()


def hurried(provider: Provider) -> Provider:
    """Return the provider, in more of a hurry than it may be."""
    hasty: Provider = type("Hurried", (type(provider),), {"pace": 10_000.0})()
    return hasty


async def test_after_a_bad_day_the_providers_copy_equals_ours(world: World) -> None:
    chance, scopes = Random(world.box.teller.name), list(world.courier.route.groups)
    trouble = TROUBLE + LIES * world.box.teller.reads_back
    for _ in range(ROUNDS):
        for _ in range(chance.randrange(5)):
            await world.say(chance.choice([Effect.STOP, Effect.STOP, Effect.GO]), chance.choice(scopes), chance.choice(world.people))
        await world.box.faults(*chance.sample(trouble, chance.randrange(3)))
        world.clock.now += timedelta(seconds=chance.randrange(200))
        await world.go_round()
        if chance.random() < 0.3:
            await asyncio.sleep(LANDED)
            world.clock.now += SETTLE
    await world.quiet()
    assert await world.differing() == {}
    for scope, group in world.courier.route.groups.items():
        stopped = {name for (of, name), effect in world.wanted.items() if of == scope and effect is Effect.STOP}
        if world.box.teller.lists:
            assert {listed.address.casefold() for listed in await world.box.pulled(group)} == stopped
    assert len(set(world.wanted.values())) == 2  # the control: there were stops and goes


async def test_what_is_not_carried_differs(world: World) -> None:
    await world.say(Effect.STOP, NEWSLETTER, world.people[0])
    assert await world.differing() == {NEWSLETTER: {world.people[0]}}
    await world.quiet()
    assert await world.differing() == {}
