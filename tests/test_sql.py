"""Every query is prepared on a migrated database; every room has one file; nothing is dropped on the way to a new version."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import asyncpg
import pytest
import pytest_asyncio

from mailprefs import db, shipped
from mailprefs.catalogue import Catalogue
from mailprefs.errors import Misconfigured, Unavailable
from mailprefs.links import KeyRing

QUERIES = sorted(
    (path.stem, name.rstrip("^$!#*<"))
    for path in (shipped.folder("sql") / "queries").glob("*.sql")
    for name in re.findall(r"^-- name: (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def unchanged(
    knowing: Callable[[Catalogue, KeyRing], AbstractAsyncContextManager[str]], shared_catalogue: Catalogue, ring: KeyRing
) -> AsyncIterator[asyncpg.Connection]:
    """A connection to one database for all who leave it as it is."""
    async with knowing(shared_catalogue, ring) as url:
        connection = await asyncpg.connect(url)
        yield connection
        await connection.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("room", "name"), QUERIES)
async def test_every_query_is_prepared(unchanged: asyncpg.Connection, room: str, name: str) -> None:
    await unchanged.prepare(db.text(room, name))


def test_a_file_of_queries_belongs_to_a_room() -> None:
    package = shipped.folder("sql").parent / "mailprefs"
    for room in {room for room, _ in QUERIES}:
        assert (package / f"{room}.py").exists() or (package / room).is_dir(), room


async def test_migrating_twice_applies_nothing_twice(conn: asyncpg.Connection) -> None:
    assert await db.migrate(conn) == []
    assert await db.pending(conn) == []


async def test_a_migration_that_was_edited_is_refused(conn: asyncpg.Connection) -> None:
    await conn.execute("update migration set digest = 'x' where name like '0001%'")
    with pytest.raises(Misconfigured, match="edited"):
        await db.migrate(conn)


async def test_two_migrations_at_once_wait_for_each_other(conn: asyncpg.Connection, database: str) -> None:
    from datetime import timedelta

    other = await asyncpg.connect(database)
    await other.fetchval(db.text("db", "try_lock"), db._MIGRATING)
    with pytest.raises(Unavailable):
        await db.migrate(conn, patience=timedelta(seconds=0.3))
    await other.close()
    assert await db.migrate(conn, patience=timedelta(seconds=10)) == []


@pytest.mark.parametrize("value", ["off", "local"])
async def test_a_database_that_would_lose_opt_outs_is_refused(database: str, value: str) -> None:
    lax = await asyncpg.connect(database, server_settings={"synchronous_commit": value})
    with pytest.raises(Misconfigured, match="synchronous_commit"):
        await db.durable(lax)
    await lax.close()


async def test_every_table_about_an_address_begins_its_key_with_the_bucket(conn: asyncpg.Connection) -> None:
    rows = await conn.fetch(
        """select c.relname, (select a.attname from pg_attribute a where a.attrelid = c.oid and a.attnum = i.indkey[0]) first
           from pg_class c join pg_index i on i.indrelid = c.oid and i.indisprimary
           where exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'key' and a.atttypid = 'uuid'::regtype)"""
    )
    assert {row["relname"]: row["first"] for row in rows} == dict.fromkeys(
        ("address", "consent", "push", "told", "soft_bounce", "drift", "echo", "mail", "asking", "closed_pass"), "bucket"
    )
