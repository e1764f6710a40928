"""How accounts are received: what was refused in their name is written seldom, and all of it shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from prometheus_client import REGISTRY

from mailprefs import db, reception
from mailprefs.reception import MOST, Forgeries, Reception
from mailprefs.silence import Silence

NAME, OTHER = "postmark-main", "brevo-main"
AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[db.Pool]:
    made = await db.pool(database, size=2, command_timeout=5, purpose="tests")
    yield made
    made.terminate()


async def written(conn: asyncpg.Connection) -> dict[str, int]:
    return {row["account"]: row["deliveries"] for row in await conn.fetch("select account, deliveries from forgery")}


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"mailprefs_{name}", {"account": NAME, **labels})


async def test_a_flood_of_forgeries_is_one_row_and_one_statement(conn: asyncpg.Connection, pool: db.Pool) -> None:
    forgeries = Forgeries()
    for n in range(10_000):
        forgeries.count((NAME, OTHER)[n % 2], AT + timedelta(milliseconds=n))
    assert await written(conn) == {}
    await forgeries.keep(pool)
    assert await written(conn) == {NAME: 5_000, OTHER: 5_000}
    assert await conn.fetchval("select last_at from forgery where account = $1", OTHER) == AT + timedelta(milliseconds=9_999)
    assert await conn.fetchval("select count(distinct (xmin::text, cmin::text)) from forgery") == 1, "one statement"
    assert await conn.fetchval("select pg_relation_size('forgery')") == await conn.fetchval("select current_setting('block_size')::int")
    await forgeries.keep(pool)
    assert await written(conn) == {NAME: 5_000, OTHER: 5_000}  # what is written is written once


async def test_the_forgeries_of_two_processes_add_up(conn: asyncpg.Connection, pool: db.Pool) -> None:
    both = [Forgeries(), Forgeries()]
    for forgeries in both:
        forgeries.count(NAME, AT)
    await asyncio.gather(*(forgeries.keep(pool) for forgeries in both))
    assert await written(conn) == {NAME: 2}


async def test_what_cannot_be_written_now_is_written_later(conn: asyncpg.Connection, pool: db.Pool) -> None:
    forgeries = Forgeries()
    forgeries.count(NAME, AT)
    held = [await pool.acquire() for _ in range(2)]
    await forgeries.keep(pool)
    assert await written(conn) == {}
    forgeries.count(NAME, AT)
    for each in held:
        await pool.release(each)
    await forgeries.keep(pool)
    assert await written(conn) == {NAME: 2}


async def test_what_was_counted_is_written_at_the_end(conn: asyncpg.Connection, pool: db.Pool) -> None:
    forgeries = Forgeries()
    async with forgeries.running(pool):
        forgeries.count(NAME, AT)
        assert await written(conn) == {}  # the control: not at once
    assert await written(conn) == {NAME: 1}


async def test_what_goes_wrong_in_a_way_that_nobody_expected_ends_no_writing_and_loses_no_count(
    conn: asyncpg.Connection, pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "EVERY", 0.02)
    forgeries = Forgeries()
    alarmed = REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": "loop_failed", "account": ""}) or 0
    await conn.execute("alter table forgery rename to elsewhere")
    async with forgeries.running(pool):
        forgeries.count(NAME, AT)
        while (REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": "loop_failed", "account": ""}) or 0) < alarmed + 2:
            await asyncio.sleep(0.01)
        await conn.execute("alter table elsewhere rename to forgery")
    assert await written(conn) == {NAME: 1}


async def test_an_account_is_shown_with_all_that_became_of_what_came_in_its_name(conn: asyncpg.Connection, pool: db.Pool) -> None:
    await db.queries("inbox").tally(conn, account=NAME, kinds=["delivered", "complained"], events=[3, 1], now=AT)
    await db.queries("inbox").tally(conn, account=NAME, kinds=["delivered"], events=[2], now=AT + timedelta(hours=1))
    for raw, reason in ((b"1", "unknown_kind"), (b"2", "unknown_kind"), (b"3", "no_recipient")):
        await db.queries("inbox").set_aside(conn, account=NAME, id=[raw.hex()], reason=[reason], raw=[raw], now=AT)
    forgeries = Forgeries()
    forgeries.count(NAME, AT)
    await forgeries.keep(pool)
    found, other = await reception.figures(conn, [NAME, OTHER])
    assert found == Reception(
        NAME, AT + timedelta(hours=1), {"complained": 1, "delivered": 5}, 1, AT, {"no_recipient": 1, "unknown_kind": 2}
    )
    assert other == Reception(OTHER)
    reception.show([found, other], now=AT + timedelta(hours=3))
    assert shown("account_silent_seconds") == 2 * 3600
    assert shown("account_events", kind="delivered") == 5
    figures = ("account_forged_deliveries", "account_kept_aside", "account_unknown_kinds", "account_silent_unusually")
    assert [shown(name) for name in figures] == [1, 3, 2, 0]


async def test_what_is_kept_aside_is_not_counted_without_end(conn: asyncpg.Connection) -> None:
    await conn.execute("insert into event select $1, n::text, $2, 'unknown_kind', '' from generate_series(1, $3) n", NAME, AT, MOST + 5)
    [found] = await reception.figures(conn, [NAME])
    assert found.kept == {"unknown_kind": MOST}


def test_a_silence_is_unusual_only_if_it_is_the_one_that_is_known() -> None:
    """What was heard since the worker's last look has ended it."""
    silence = Silence(NAME, AT - timedelta(days=30), AT, timedelta())
    later = AT + timedelta(days=2)
    assert Reception(NAME, AT, silence=silence).unusual(later)
    assert not Reception(NAME, later, silence=silence).unusual(later)
    assert not Reception(NAME, AT).unusual(later)
