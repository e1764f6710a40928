"""The database's door: trouble is told from mistakes, nobody waits for ever, and no error says the URL."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from mailprefs import db, shipped
from mailprefs.errors import Busy, MailprefsError, Misconfigured, NotEntitled, Unavailable

SECRET = "canary-password"


def files() -> list[str]:
    return sorted(path.name for path in (shipped.folder("sql") / "migrations").glob("*.sql"))


@pytest.fixture
async def pool(database: str) -> AsyncIterator[db.Pool]:
    made = await db.pool(database, size=1, command_timeout=5, purpose="test")
    yield made
    made.terminate()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (f"postgresql://jane:{SECRET}@127.0.0.1:1/x", Unavailable),
        (f"postgresql://jane:{SECRET}@host.invalid/x", Unavailable),
        (f"postgresql://jane:{SECRET}@{'x' * 70}.example.com/x", MailprefsError),
        (f"postgresql://jane:{SECRET}@/x?host=/no/such/folder", Unavailable),
        (f"postgresql://jane:{SECRET}@127.0.0.1:{SECRET}/x", Misconfigured),
        (f"mysql://jane:{SECRET}@127.0.0.1/x", Misconfigured),
        (SECRET, Misconfigured),
    ],
)
async def test_a_database_that_cannot_be_reached_is_said_without_its_url(url: str, kind: type[MailprefsError]) -> None:
    for opened in (db.connect, partial(db.pool, size=1, command_timeout=1, purpose="test")):
        with pytest.raises(kind, match="DATABASE_URL") as refused:
            await opened(url)
        assert SECRET not in str(refused.value)
        assert refused.value.__cause__ is None
        assert refused.value.__suppress_context__, "what was tried does not come along"


async def test_a_role_or_a_database_that_is_not_there_is_named_by_its_code(database: str) -> None:
    with pytest.raises(Unavailable, match="3D000"):
        await db.connect(re.sub(r"/test_\w+", "/gone", database))
    with pytest.raises(Unavailable, match=r"\(\w+ 28\w\w\w\)") as refused:
        await db.connect(re.sub(r"//[^/]*@", f"//nobody:{SECRET}@", database))
    assert SECRET not in str(refused.value)


TROUBLE = {  # SQLSTATE → whether whoever asks again may fare better
    "08006": True,  # gone
    "25006": True,  # read only: a standby
    "28P01": True,  # the password is being changed
    "3D000": True,  # the database is being restored
    "40001": True,
    "40P01": True,  # waited in a circle
    "53100": True,  # disk full
    "53300": True,  # too many connections
    "55000": True,  # the database takes nobody in: maintenance
    "55P03": True,  # a lock that was not to be had in time
    "57014": True,  # cancelled: statement_timeout
    "57P01": True,  # stopping
    "57P03": True,  # starting
    "58030": True,  # the disk does not answer
    "22012": False,
    "22021": False,
    "23505": False,
    "23514": False,
    "42703": False,
    "P0001": False,
}


async def test_trouble_is_told_from_mistakes(conn: asyncpg.Connection) -> None:
    for code, passes in TROUBLE.items():
        with pytest.raises(asyncpg.PostgresError) as raised:
            await conn.execute(f"do $$ begin raise exception 'x' using errcode = '{code}'; end $$")
        assert db.is_trouble(raised.value) is passes, code


async def test_a_value_that_no_query_takes_is_no_trouble(conn: asyncpg.Connection, pool: db.Pool) -> None:
    for value in ("x", "half\ud800", "nul\0"):
        for query in ("select $1::int", "select $1::text"):
            if (value, query) == ("x", "select $1::text"):
                continue  # that one is taken
            with pytest.raises(asyncpg.DataError) as raised:
                await conn.fetchval(query, value)
            assert not db.is_trouble(raised.value), (value, query)
    with pytest.raises(asyncpg.DataError, match="invalid input"):
        async with db.acquired(pool) as connection:
            await connection.fetchval("select $1::int", "x")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (FileNotFoundError(), True),
        (TimeoutError(), True),
        (Unavailable(), True),
        (asyncpg.InterfaceError("the connection is closed"), True),
        (asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"), True),
        (NotEntitled(), False),
        (ValueError(), False),
        (KeyError(), False),
    ],
)
def test_what_is_no_answer_of_the_server_is_told_apart_too(error: Exception, passes: bool) -> None:
    assert db.is_trouble(error) is passes


async def test_who_finds_no_free_connection_is_told_to_come_back_soon(pool: db.Pool) -> None:
    async with db.acquired(pool):
        started = time.monotonic()
        with pytest.raises(Unavailable):
            async with db.acquired(pool):
                raise AssertionError("there was none to lend")
        assert db.ACQUIRE <= time.monotonic() - started < 10
    async with db.acquired(pool) as connection:
        assert await connection.fetchval("select 1") == 1


async def test_a_connection_that_dies_in_use_is_trouble_and_the_next_is_whole(pool: db.Pool, conn: asyncpg.Connection) -> None:
    async def cut_off() -> None:
        async with db.acquired(pool) as connection:
            await conn.execute("select pg_terminate_backend($1)", await connection.fetchval("select pg_backend_pid()"))
            await connection.fetchval("select 1")

    with pytest.raises(Unavailable):
        await cut_off()
    async with db.acquired(pool) as connection:
        assert await connection.fetchval("select 1") == 1


async def test_a_mistake_in_use_is_not_called_trouble(pool: db.Pool) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with db.acquired(pool) as connection:
            await connection.fetch("select * from nowhere")
    with pytest.raises(NotEntitled):
        async with db.acquired(pool):
            raise NotEntitled


async def test_our_own_words_are_not_replaced_by_those_for_a_database_that_is_away(pool: db.Pool) -> None:
    for error in (Busy("another comparison is running"), Unavailable("the standby did not confirm. Try again.")):
        with pytest.raises(type(error), match=str(error)):
            async with db.acquired(pool):
                raise error


async def test_a_statement_that_takes_too_long_is_trouble(database: str) -> None:
    pool = await db.pool(database, size=1, command_timeout=0.5, purpose="test")
    with pytest.raises(Unavailable):
        async with db.acquired(pool) as connection:
            await connection.fetchval("select pg_sleep(30)")
    async with db.acquired(pool) as connection:
        assert await connection.fetchval("select 1") == 1
    pool.terminate()


async def test_a_standby_that_does_not_confirm_is_a_doubt_and_other_notices_are_none(pool: db.Pool) -> None:
    words = "canceling wait for synchronous replication due to user request"  # the server's own, with which it commits all the same
    async with db.acquired(pool) as connection:
        with pytest.raises(Unavailable, match="standby"):
            async with db.sure(connection):
                await connection.execute(f"do $$ begin raise warning '{words}'; end $$")
        with pytest.raises(Unavailable, match="standby"):
            async with db.sure(connection):
                await connection.execute("do $$ begin raise warning 'storniere Warten auf synchrone Replikation'; end $$")
        async with db.sure(connection):
            await connection.execute("do $$ begin raise notice 'something else'; end $$")


async def test_a_session_of_ours_has_a_name_and_no_zone_of_its_own(pool: db.Pool) -> None:
    async with db.acquired(pool) as connection:
        assert await connection.fetchval("select current_setting('application_name')") == "mailprefs test"
        assert await connection.fetchval("select current_setting('timezone')") == "UTC"


async def test_a_database_of_a_newer_version_lacks_nothing(conn: asyncpg.Connection) -> None:
    assert await db.pending(conn) == []
    await conn.execute("insert into migration (name, digest) values ('9999_later.sql', 'x')")
    assert await db.pending(conn) == []
    assert await db.migrate(conn) == []


async def test_a_migration_that_fails_leaves_nothing_of_itself(server: str, database: str) -> None:
    conn = await asyncpg.connect(database)
    await conn.execute("drop schema public cascade; create schema public; create table told (in_the_way int)")
    with pytest.raises(asyncpg.DuplicateTableError):
        await db.migrate(conn)
    assert await conn.fetchval("select count(*) from migration") == 0
    assert await conn.fetchval("select to_regclass('consent')") is None
    await conn.execute("drop table told")
    assert await db.migrate(conn) == files()
    await conn.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of migrations: one that everybody must make room for, and one that works beside them."""
    (tmp_path / "9001_stamp.sql").write_text("create table stamp (at int); alter table consent add stamp int;")
    index = "drop index concurrently if exists consent_stamp;\ncreate index concurrently consent_stamp on consent (stamp);\n"
    (tmp_path / "9002_index.sql").write_text(f"-- beside writers: the ledger is long; whoever writes to it waits for nothing.\n{index}")
    return tmp_path


async def write(connection: asyncpg.Connection) -> None:
    """Lock what whoever records a press locks, and let go of it; raises TimeoutError where that must wait."""
    async with connection.transaction():
        await connection.execute("lock table consent in row exclusive mode", timeout=1)


async def test_a_migration_gives_way_to_whoever_holds_its_table_and_is_done_once_that_has_ended(
    conn: asyncpg.Connection, database: str, folder: Path
) -> None:
    holder, writer = await asyncpg.connect(database), await asyncpg.connect(database)
    held = holder.transaction()
    await held.start()
    await holder.fetch("select 1 from consent limit 1")  # a dump does no more
    turn = timedelta(milliseconds=60)
    words = r"9001_stamp.sql needs a table that another session holds.*long transaction"
    with pytest.raises(Unavailable, match=words):
        async with asyncio.timeout(5):
            await db.migrate(conn, patience=turn, turn=turn, folder=folder)
    assert await conn.fetchval("select to_regclass('stamp')") is None, "whole or not at all"

    trying = asyncio.create_task(db.migrate(conn, patience=timedelta(seconds=60), turn=turn, folder=folder))
    for _ in range(20):  # now and then it stands before us, and gives way
        await write(writer)
        await asyncio.sleep(0.01)
    assert not trying.done()
    await held.rollback()
    assert await trying == ["9001_stamp.sql", "9002_index.sql"]
    for each in (holder, writer):
        await each.close()


async def test_an_index_that_is_built_beside_writers_makes_none_of_them_wait(conn: asyncpg.Connection, database: str, folder: Path) -> None:
    writer = await asyncpg.connect(database)
    (folder / "9001_stamp.sql").write_text("alter table consent add stamp int;")
    (folder / "9002_index.sql").rename(folder / "later")
    await db.migrate(conn, folder=folder)
    (folder / "later").rename(folder / "9002_index.sql")
    held = writer.transaction()
    await held.start()
    await writer.execute("lock table consent in row exclusive mode")
    building = asyncio.create_task(db.migrate(conn, turn=timedelta(milliseconds=1), folder=folder))
    watcher = await asyncpg.connect(database)
    while not await watcher.fetchval("select exists (select from pg_stat_progress_create_index where datname = current_database())"):
        assert not building.done(), "it waits for whoever was there first, however long"
        await asyncio.sleep(0.01)
    await write(watcher)
    await held.rollback()
    assert await building == ["9002_index.sql"]
    for each in (writer, watcher):
        await each.close()


async def test_an_index_whose_building_was_cut_short_is_built_anew(conn: asyncpg.Connection, folder: Path) -> None:
    await conn.execute("alter table consent add stamp int; create index consent_stamp on consent (stamp)")
    await conn.execute("update pg_index set indisvalid = false where indexrelid = 'consent_stamp'::regclass")  # as a killed build leaves it
    (folder / "9001_stamp.sql").unlink()
    assert await db.migrate(conn, folder=folder) == ["9002_index.sql"]
    assert await conn.fetchval("select indisvalid from pg_index where indexrelid = 'consent_stamp'::regclass")


def wrong(script: str) -> list[str]:
    """Return what of a migration would hold everybody up, or could not be done again."""
    beside = script.startswith(db._BESIDE)
    told = db.statements(script)
    whole = [each for each in told if beside != (" concurrently " in each)] if beside or "concurrently" in " ".join(told) else []
    made = re.findall(r"create (?:unique )?index concurrently (\w+)", " ; ".join(told))
    return whole + [name for name in made if f"drop index concurrently if exists {name}" not in told]


def test_a_migration_is_a_transaction_or_works_beside_writers_and_can_be_done_again() -> None:
    for path in (shipped.folder("sql") / "migrations").glob("*.sql"):
        assert wrong(path.read_text(encoding="utf-8")) == [], path.name
    index = "create index concurrently x on consent (at);"
    assert wrong(index), "the control: it cannot stand in a transaction"
    assert wrong(f"-- beside writers\n{index}"), "the control: what was cut short stands in its way"
    assert wrong("-- beside writers\nalter table consent add x int;"), "the control: that holds everybody up"
    assert wrong(f"-- beside writers\ndrop index concurrently if exists x;\n{index}") == []


async def test_a_role_that_may_make_nothing_is_told_what_to_grant(conn: asyncpg.Connection, database: str) -> None:
    role = f"visitor_{uuid4().hex}"
    await conn.execute(f"drop schema public cascade; create schema public; create role {role} login password 'visitor'")
    try:
        visitor = await db.connect(re.sub(r"//[^@]*@", f"//{role}:visitor@", database))
        for granted in ("usage", "create, usage"):
            with pytest.raises(Misconfigured, match="grant create, usage on schema public"):
                await db.migrate(visitor)
            await conn.execute(f"grant {granted} on schema public to {role}")
        assert await db.migrate(visitor) == files(), "the control: with what was told, it may"
        await visitor.close()
    finally:
        await conn.execute(f"drop owned by {role} cascade; drop role {role}")


async def test_two_services_that_start_at_once_migrate_once(database: str) -> None:
    connections = [await asyncpg.connect(database) for _ in range(3)]
    await connections[0].execute("drop schema public cascade; create schema public")
    applied = await asyncio.gather(*(db.migrate(each) for each in connections))
    assert sorted(name for names in applied for name in names) == files()
    for each in connections:
        await each.close()
