"""A few soft bounces stop nothing; enough of them do, for a while."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import asyncpg
import pytest

from mailprefs import ledger, softbounces
from mailprefs.addresses import Addresses
from mailprefs.softbounces import Policy, SoftBounce
from mailprefs.words import Address, Door

pytestmark = pytest.mark.spread

POLICY = Policy(threshold=3, window=timedelta(days=10), hold=timedelta(days=5))
DAY = timedelta(days=1)


@pytest.fixture
def jane(addresses: Addresses) -> Address:
    return addresses.read("jane@example.org")


async def told(conn: asyncpg.Connection, bounces: list[SoftBounce], now: datetime) -> None:
    async with conn.transaction():
        changes = await softbounces.count(conn, bounces, POLICY, door=Door.PROVIDER, by="sendgrid-main", now=now)
        await ledger.record(conn, changes, now=now)


async def pauses(conn: asyncpg.Connection) -> list[tuple[int, datetime]] | None:
    found = await conn.fetchval("select pauses from address")
    return [tuple(each) for each in found] if found else None


async def test_too_few_within_the_window_stop_nothing(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    for n, ago in enumerate((30, 20, 9, 1)):
        await told(conn, [SoftBounce(jane, str(n), now - ago * DAY)], now)
    assert await pauses(conn) is None


async def test_enough_of_them_hold_the_address_for_a_while(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await told(conn, [SoftBounce(jane, str(n), now - n * DAY) for n in range(3)], now)
    assert await pauses(conn) == [(0, now + POLICY.hold)]


async def test_one_bounce_told_46_times_counts_once(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    for _ in range(46):
        await told(conn, [SoftBounce(jane, "same", now), SoftBounce(jane, "same", now)], now)
    assert await pauses(conn) is None


async def test_any_order_comes_to_the_same_hold(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    rng = random.Random(5)
    found = set()
    for turn in range(10):
        address = addresses.read(f"p{turn}@example.org")
        bounces = [SoftBounce(address, str(n), now - n * DAY) for n in range(5)]
        rng.shuffle(bounces)
        for bounce in bounces:
            await told(conn, [bounce], now)
        found.add(str(await conn.fetchval("select pauses from address where key = $1", address.key)))
    assert len(found) == 1
    assert found != {"None"}


async def test_what_no_window_reaches_is_forgotten(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await told(conn, [SoftBounce(jane, "old", now - 30 * DAY), SoftBounce(jane, "new", now)], now)
    await softbounces.forget(conn, POLICY, now=now)
    assert [row["id"] for row in await conn.fetch("select id from soft_bounce")] == ["new"]
