"""The hot statements look rows up by their keys, however large the tables have grown since their plans were made."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from mailprefs import audience, db, decisions, leaving, ledger, outbox, shipped
from mailprefs.addresses import Addresses
from mailprefs.audience import Format
from mailprefs.catalogue import Catalogue
from mailprefs.decisions import Question
from mailprefs.exports import Export
from mailprefs.shapes import Shape
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

GROWN = 20_000  # addresses
MINUTE = timedelta(minutes=1)


def stops(people: list[Address], id: str, now: datetime) -> list[Change]:
    return [Change(person, 272, Cause.CHOICE, Effect.STOP, Door.LINK, f"{id}-{n}", now) for n, person in enumerate(people)]


async def read(conn: asyncpg.Connection) -> int:
    """Rows of the large tables that this transaction has read so far, one way or another."""
    return int(
        await conn.fetchval(
            """select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_user_tables
               where relname in ('address', 'consent', 'push')"""
        )
    )


@pytest.fixture
async def grown(database: str, addresses: Addresses, now: datetime) -> asyncpg.Connection:
    """A connection whose plans were made while the tables were empty; nobody has analysed them since."""
    early = await db.connect(database)
    await early.execute("alter table address set (autovacuum_enabled = off)")
    await early.execute("alter table consent set (autovacuum_enabled = off)")
    for n in range(12):
        await ledger.record(early, stops([addresses.read(f"early{n}@example.org")], "early", now), now=now)
    late = await db.connect(database)
    people = [addresses.read(f"p{n}@example.org") for n in range(GROWN)]
    for start in range(0, GROWN, 2000):
        await ledger.record(late, stops(people[start : start + 2000], f"late{start}", now), now=now)
    await late.close()
    return early


async def test_a_press_reads_a_handful_of_rows(grown: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    async with grown.transaction():
        before = await read(grown)
        await ledger.record(grown, stops([addresses.read("jane@example.org")], "one", now), now=now)
        assert await read(grown) - before < 20
    await grown.close()


async def test_a_batch_reads_a_handful_of_rows_for_each(grown: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    people = [addresses.read(f"q{n}@example.org") for n in range(200)]
    async with grown.transaction():
        before = await read(grown)
        await ledger.record(grown, stops(people, "many", now), now=now)
        assert await read(grown) - before < 20 * len(people)
    await grown.close()


async def test_a_decision_reads_the_address_it_is_about(
    grown: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    questions = [Question(addresses.read(f"p{n}@example.org"), "", "newsletter") for n in range(10)]
    async with grown.transaction():
        before = await read(grown)
        assert not any(answer.allowed for answer in await decisions.decide(grown, questions, shared_catalogue, now=now))
        assert await read(grown) - before < 100
    await grown.close()


async def lease(conn: asyncpg.Connection, now: datetime, *, stop: bool) -> int:
    called = {272: "sendgrid/12345", 273: "sendgrid/12346"}
    found = await outbox.lease(conn, 1, called=called, stop=stop, most=10, until=now, settle=MINUTE, quiet=MINUTE, now=now)
    return len(found.pushes) if found else 0


async def test_a_lease_reads_what_it_leases_whatever_waits_before_it(grown: asyncpg.Connection, now: datetime) -> None:
    """Twenty thousand of a scope that is closed are due before the ten of another."""
    await grown.execute("update push set due_at = $1 where scope = 272", now - MINUTE)
    await grown.execute("insert into push select bucket, 1, key, 273, 1, true, $1, $1 from address limit 10", now)
    await outbox.close(grown, 1, 272, until=now + MINUTE)
    async with grown.transaction():
        before = await read(grown)
        assert await lease(grown, now, stop=True) == 10
        assert await read(grown) - before < 100
    await grown.close()


async def test_goes_that_must_wait_for_quiet_are_looked_at_once(grown: asyncpg.Connection, now: datetime) -> None:
    """Everybody has spoken just now: each look puts some off until they will be quiet, and the last one finds nobody to look at."""
    await grown.execute("update push set stop = false, due_at = $1", now)
    for _ in range(10):
        assert await lease(grown, now, stop=False) == 0
    async with grown.transaction():
        before = await read(grown)
        assert await lease(grown, now, stop=False) == 0
        assert await read(grown) - before < 100
    assert await lease(grown, now + MINUTE, stop=False) == 10
    await grown.close()


async def test_an_audience_reads_each_address_once_and_no_ledger(
    grown: asyncpg.Connection, shared_catalogue: Catalogue, now: datetime
) -> None:
    async def sink(_chunk: bytes) -> None: ...

    addresses = await grown.fetchval("select count(*) from address")
    for columns, format in ((("address",), Format.CSV), (("address", "party"), Format.NDJSON)):
        async with grown.transaction():
            await grown.execute("set local max_parallel_workers_per_gather = 0")  # whose rows are counted elsewhere
            before = await read(grown)
            await audience.stream(
                grown, shared_catalogue.topic("newsletter"), Channel.EMAIL, sink, now=now, columns=columns, format=format
            )  # fmt: skip
            assert await read(grown) - before == addresses
    await grown.close()


async def test_who_asks_who_left_reads_what_is_behind_the_place_and_nobody_else(
    grown: asyncpg.Connection,
    addresses: Addresses,
    shared_catalogue: Catalogue,
    now: datetime,
    settled: Callable[[], Awaitable[None]],
) -> None:
    """From the first page to the last: what was looked through is not looked through again."""
    await settled()
    snapshot = await grown.fetchval("select pg_current_snapshot()::text")
    export = Export(uuid4(), 272, Channel.EMAIL, 0, Shape(), "test", "test", now, now + MINUTE, as_of=now, snapshot=snapshot)
    people = [addresses.read(f"q{n}@example.org") for n in range(1_000)]
    for n in range(0, 1_000, 50):
        await ledger.record(grown, stops(people[n : n + 50], f"many{n}", now), now=now)
    cursor, more, left = None, True, 0
    while more:
        async with grown.transaction():
            before = await read(grown)
            items, cursor, more = await leaving.page(grown, export, shared_catalogue, cursor, now=now, most=100)
            left += len(items)
            assert await read(grown) - before < 1_500
    assert left == len(people)
    await grown.close()


async def test_the_measure_sees_a_whole_table_read(grown: asyncpg.Connection) -> None:
    async with grown.transaction():
        before = await read(grown)
        await grown.fetchval("select count(*) from consent where evidence = 'x'")
        assert await read(grown) - before >= GROWN
    await grown.close()


async def test_what_each_account_has_to_hear_is_added_up_before_anything_is_joined_to_it(grown: asyncpg.Connection, now: datetime) -> None:
    """All of it is counted, and each row once: joined one by one, two million took more than the time that a statement has."""
    query = db.text("outbox", "sync")
    (shown,) = await grown.fetchrow(f"explain (analyze, format json) {query}", now, now, now, now) or ("[]",)
    joined = [node["Actual Rows"] for node in nodes(json.loads(shown)[0]["Plan"]) if "Join Type" in node]
    assert joined, "the control: there is a join"
    assert max(joined) < 10
    assert sum(each.waiting + each.no_address for each in await outbox.sync(grown, now=now + MINUTE)) >= GROWN
    await grown.close()


async def listed(conn: asyncpg.Connection, addresses: Addresses, people: int) -> None:
    """Who has stopped stands on the provider's list as well, all but one on each side. Nobody has counted either table."""
    everybody = [addresses.read(f"p{n}@example.org") for n in range(people + 1)]
    await conn.execute("alter table address set (autovacuum_enabled = off); alter table listing set (autovacuum_enabled = off)")
    ours = [(who.bucket, who.key, "email", who.text, [272]) for who in everybody[:-1]]
    await conn.copy_records_to_table("address", columns=("bucket", "key", "channel", "plaintext", "stops"), records=ours)
    theirs = [(1, 272, who.bucket, who.key, "choice") for who in everybody[1:]]
    await conn.copy_records_to_table("listing", columns=("account", "scope", "bucket", "key", "cause"), records=theirs)


DIFFER = "explain (analyze, format json) select * from differ(1::smallint, 272, $1, $1)"


async def compared(conn: asyncpg.Connection, query: str, now: datetime) -> tuple[int, int]:
    """How many differ, and how many rows were looked at for it, by any node of the plan, thrown away ones too."""
    (shown,) = await conn.fetchrow(query, now) or ("[]",)
    plan = json.loads(shown)[0]["Plan"]
    rows = ("Actual Rows", "Rows Removed by Join Filter", "Rows Removed by Filter")
    return plan["Actual Rows"], sum(sum(node.get(each, 0) for each in rows) * node["Actual Loops"] for node in nodes(plan))


@pytest.mark.parametrize("counted", [False, True])
async def test_a_list_is_laid_beside_ours_in_one_go_whatever_is_believed_of_their_lengths(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime, counted: bool
) -> None:
    """The control is how it was: each of theirs for each of ours."""
    await listed(conn, addresses, people := 3_000)
    if counted:
        await conn.execute("analyze listing, address")
    before = (shipped.folder("sql") / "migrations" / "0007_reconciliation.sql").read_text().partition("create function differ(")[2]
    await conn.execute("create function differed(" + before)
    found, looked_at = await compared(conn, DIFFER, now)
    assert found == 2
    assert looked_at < 20 * people
    if not counted:  # then a newer PostgreSQL may find a way by itself
        assert await compared(conn, DIFFER.replace("differ(", "differed("), now) > (2, people * people / 4)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's node and all that are under it."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)
