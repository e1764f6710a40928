"""The ledger read from a place on: no row twice, none missed, whatever commits late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import uuid4

import asyncpg

from mailprefs import feed, ledger
from mailprefs.addresses import Addresses
from mailprefs.feed import Place
from mailprefs.words import Address, Cause, Change, Door, Effect

START = Place(0)
Settled = Callable[[], Awaitable[None]]


def stop(who: Address, now: datetime) -> Change:
    return Change(who, 272, Cause.CHOICE, Effect.STOP, Door.PROVIDER, uuid4().hex, now)


async def read(conn: asyncpg.Connection, now: datetime, most: int = 100, place: Place = START) -> list[feed.Fact]:
    return await feed.after(conn, place, most=most, now=now)


async def test_a_reader_with_its_place_sees_every_row_once(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime, settled: Settled
) -> None:
    people = [addresses.read(f"p{n}@example.org") for n in range(30)]
    await ledger.record(conn, [stop(who, now) for who in people[:20]], now=now)  # one transaction, many rows
    for who in people[20:]:
        await ledger.record(conn, [stop(who, now)], now=now)
    await settled()
    seen, place = [], START
    while facts := await read(conn, now, most=7, place=place):
        seen += [fact.place.key for fact in facts]
        place = facts[-1].place
    assert sorted(seen) == sorted(who.key for who in people)


async def test_what_commits_late_is_not_overtaken(
    conn: asyncpg.Connection, database: str, addresses: Addresses, now: datetime, settled: Settled
) -> None:
    """A reader that went past a transaction in flight would never see it."""
    late, soon = addresses.read("late@example.org"), addresses.read("soon@example.org")
    other = await asyncpg.connect(database)
    begun = other.transaction()
    await begun.start()
    await ledger.record(other, [stop(late, now)], now=now)
    await ledger.record(conn, [stop(soon, now)], now=now)
    assert await read(conn, now) == []
    await begun.commit()
    await other.close()
    await settled()
    assert {fact.place.key for fact in await read(conn, now)} == {late.key, soon.key}


async def test_a_fact_says_how_its_scope_stands_now(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime, settled: Settled
) -> None:
    who = addresses.read("jane@example.org")
    await ledger.record(conn, [stop(who, now)], now=now)
    back = Change(who, 272, Cause.CHOICE, Effect.GO, Door.MANAGE, "1", now)
    await ledger.record(conn, [back], now=now + timedelta(seconds=1))
    await settled()
    assert [(fact.effect, fact.stopped) for fact in await read(conn, now)] == [("stop", False), ("go", False)]


async def test_a_time_leads_to_the_place_before_it(conn: asyncpg.Connection, addresses: Addresses, now: datetime, settled: Settled) -> None:
    for n in range(4):
        await ledger.record(conn, [stop(addresses.read(f"p{n}@example.org"), now)], now=now + n * timedelta(hours=1))
    await settled()
    place = await feed.since(conn, now + timedelta(minutes=90))
    assert place is not None
    assert len(await read(conn, now, place=place)) == 2
    assert await feed.since(conn, now + timedelta(days=1)) is None
