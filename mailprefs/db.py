"""The database: a pool, named queries, migrations, and the promise that a commit is on disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiosql
import asyncpg
from asyncpg.pool import PoolConnectionProxy

from mailprefs import shipped
from mailprefs.errors import MailprefsError, Misconfigured, NotOnACluster, Unavailable, Unsure

Connection = asyncpg.Connection | PoolConnectionProxy
Pool = asyncpg.Pool

ACQUIRE = 0.5  # seconds a request may wait for a connection before it is told to come back
CONNECT = 3  # seconds
OLDEST, NEWEST = 15, 18  # PostgreSQL majors that are tried
TURN = timedelta(seconds=1)  # for which a migration waits for a table, and writers behind it: less than a press gives a statement
REST = 4  # turns that writers have for themselves before it tries again
_MIGRATING = 0x6D70_7265_6673  # advisory lock, "mprefs"
_BESIDE = "-- beside writers"  # a migration begins so whose statements cannot stand in a transaction
# SQLSTATEs of a database that is gone, full, broken, stopping, too slow or read only, that lets us in no more, or made us wait in a circle
_TROUBLE = ("08", "25006", "28", "3D", "40", "53", "55000", "55P03", "57", "58")


@cache
def queries(room: str) -> Any:
    """Return the named queries of one room, each an async function of a connection and keyword parameters."""
    return aiosql.from_path(shipped.folder("sql") / "queries" / f"{room}.sql", "asyncpg", mandatory_parameters=False)


def text(room: str, name: str) -> str:
    """Return the SQL of one query with ``$n`` in place of its names, for asyncpg's own verbs where a call is hot or streams."""
    return str(getattr(queries(room), name).sql)


def spelt(words: Iterable[str]) -> str:
    """Return words, numbers or times as PostgreSQL spells an array, for a parameter that is cast to text first.

    Of an array the driver asks of each value whether it is an array itself. ``null`` is one; no word may have a comma, a quote or a brace.
    """
    return f"{{{','.join(words)}}}"


async def _no_reset(_connection: Any) -> None:
    """Skip asyncpg's RESET ALL on release: our pooled connections hold no session state, and it doubles the latency of a call."""


async def pool(url: str, *, size: int, command_timeout: float, purpose: str) -> Pool:
    """Open a pool of connections. Raises Unavailable or Misconfigured, neither of which repeats the URL."""
    try:
        return await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=CONNECT,
            command_timeout=command_timeout,
            max_inactive_connection_lifetime=60,
            reset=_no_reset,
            server_settings=_session(f"mailprefs {purpose}"),
        )
    except Exception as error:
        raise connecting(error) from None


def _session(name: str) -> dict[str, str]:
    # A plan that was made while the tables were small reads all of them once they have grown, so each call is planned for itself.
    # The write path, where that would cost, settles it in its own functions. To compile one that takes milliseconds takes a hundred.
    return {"application_name": name, "timezone": "UTC", "plan_cache_mode": "force_custom_plan", "jit": "off"}


async def connect(url: str) -> asyncpg.Connection:
    """Open one connection, for a command or a migration. Raises Unavailable or Misconfigured."""
    try:
        return await asyncpg.connect(url, timeout=CONNECT, server_settings=_session("mailprefs"))
    except Exception as error:
        raise connecting(error) from None


def connecting(error: Exception) -> MailprefsError:
    """Return what a person is told when a connection fails: the kind of trouble, never the URL."""
    if isinstance(error, ValueError):  # asyncpg's ClientConfigurationError is one
        return Misconfigured("DATABASE_URL is not a PostgreSQL URL, such as postgresql://name:password@host/database")
    code = getattr(error, "sqlstate", None)
    kind = f"{type(error).__name__} {code}" if code else type(error).__name__
    return Unavailable(f"the database cannot be reached ({kind}). Is DATABASE_URL right, and is it running?")


def is_trouble(error: BaseException) -> bool:
    """True for an error that says the database is gone, full or stopping: the caller answers 503 and nothing was acknowledged."""
    # asyncpg is at odds with itself about a connection whose server has just ended it
    if isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError | Unavailable):
        return True
    code = getattr(error, "sqlstate", None) or ""
    return isinstance(error, asyncpg.PostgresError) and (not code or code.startswith(_TROUBLE))


@asynccontextmanager
async def acquired(pool: Pool) -> AsyncIterator[PoolConnectionProxy]:
    """Lend a connection, waiting at most half a second. Raises Unavailable for trouble of the database, inside the block too."""
    done = False
    try:
        async with pool.acquire(timeout=ACQUIRE) as connection:
            yield connection
            done = True
    except MailprefsError:  # what was raised inside the block has words of its own
        raise
    except Exception as error:
        if not is_trouble(error):
            raise
        if not done:  # else it was lost as it was given back, and what was done with it holds
            raise Unavailable("the database cannot be reached. Try again.") from error


@asynccontextmanager
async def sure(connection: PoolConnectionProxy | asyncpg.Connection) -> AsyncIterator[None]:
    """Raise Unsure if a commit is in doubt: the server was lost within, or warned, as it does when it gives up waiting for its standby."""
    doubts: list[str] = []

    def listener(_connection: Any, message: Any) -> None:
        if message.severity_en == "WARNING":  # in whatever language it says why
            doubts.append(message.sqlstate)

    connection.add_log_listener(listener)
    try:
        yield
        await asyncio.sleep(0)  # asyncpg hands notices over on the next turn of the loop
    except Exception as error:
        if _is_lost(error):
            raise Unsure("the database was lost while it recorded this. Try again.") from error
        raise
    finally:
        with suppress(asyncpg.InterfaceError):  # a pool has taken back what was lost
            connection.remove_log_listener(listener)
    if doubts:
        raise Unsure("the standby did not confirm. Try again.")


def _is_lost(error: BaseException) -> bool:
    """True for trouble that no answer of the server told of, or of one that was ending: it may have committed before."""
    told = isinstance(error, asyncpg.PostgresError) and not (error.sqlstate or "").startswith(("08", "57P"))
    return is_trouble(error) and not told and not isinstance(error, MailprefsError)


async def durable(connection: Connection) -> None:
    """Assert that a commit is on disk when it is acknowledged, and that the server is one we know. Raises Misconfigured."""
    row = await queries("db").durability(connection)
    wrong = [
        f"{name} is {row[name]}, and must be {' or '.join(right)}"
        for name, right in {"fsync": ("on",), "full_page_writes": ("on",), "synchronous_commit": ("on", "remote_apply")}.items()
        if row[name] not in right
    ]
    major = int(row["server_version_num"]) // 10000
    if not OLDEST <= major <= NEWEST:
        wrong.append(f"PostgreSQL {major} is not one of {OLDEST} to {NEWEST}")
    if wrong:
        raise Misconfigured(f"the database would lose acknowledged opt-outs in a crash: {'; '.join(wrong)}")


async def in_one_order(connection: Connection) -> None:
    """Raise NotOnACluster where the ledger lies on several servers: what is read there has no order, and no snapshot is one of all."""
    if await queries("db").is_spread(connection):
        raise NotOnACluster


async def migrate(
    connection: asyncpg.Connection, *, patience: timedelta = timedelta(minutes=2), turn: timedelta = TURN, folder: Path | None = None
) -> list[str]:
    """Bring the schema up to date and return the names of what was applied.

    Where somebody holds a table it gives way after a ``turn`` and tries again until ``patience`` ends, so nobody waits behind it for long.
    Raises Misconfigured if an applied file was edited, or if the role may not make tables; Unavailable if a table is still held.
    """
    await _lock(connection, patience)
    try:
        await queries("db").create_ledger_of_migrations(connection)
        known = {row["name"]: row["digest"] async for row in queries("db").applied(connection)}
        tries = max(1, int(patience / (turn * (1 + REST))))
        return [path.name for path in _files(folder) if await _applied(connection, path, known, turn, tries)]
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError):
        # since PostgreSQL 15, whoever does not own a database may make nothing in its schema public
        raise Misconfigured("the role in DATABASE_URL may not make tables: grant create, usage on schema public to it") from None
    finally:
        await queries("db").unlock(connection, lock=_MIGRATING)


async def pending(connection: Connection) -> list[str]:
    """Return the names of migrations that this version brings and the database lacks."""
    if not await queries("db").has_migrations(connection):
        return [path.name for path in _files()]
    known = {row["name"] async for row in queries("db").applied(connection)}
    return [path.name for path in _files() if path.name not in known]


async def _lock(connection: asyncpg.Connection, patience: timedelta) -> None:
    # Polled: waiting inside pg_advisory_lock deadlocks with CREATE INDEX CONCURRENTLY.
    for _ in range(1 + int(patience.total_seconds() * 10)):
        if await queries("db").try_lock(connection, lock=_MIGRATING):
            return
        await asyncio.sleep(0.1)
    raise Unavailable("another migration is still running")


async def _applied(connection: asyncpg.Connection, path: Path, known: dict[str, str], turn: timedelta, tries: int) -> bool:
    script, digest = _script(path)
    if path.name in known:
        if known[path.name] != digest:
            raise Misconfigured(f"the migration {path.name} was edited after it was applied; write a new one instead")
        return False
    if script.startswith(_BESIDE):
        await _beside(connection, script)
        await queries("db").remember(connection, name=path.name, digest=digest)
    else:
        await _at_once(connection, path.name, script, digest, turn, tries)
    return True


async def _at_once(connection: asyncpg.Connection, name: str, script: str, digest: str, turn: timedelta, tries: int) -> None:
    """Run a migration whole or not at all. Whoever has a table keeps it: else all who write would wait for that one behind us."""
    for left in reversed(range(tries)):
        try:
            async with connection.transaction():
                await queries("db").wait_for_locks(connection, most=f"{turn / timedelta(milliseconds=1):.0f}ms", here=True)
                await connection.execute(script)
                await queries("db").remember(connection, name=name, digest=digest)
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if left:
                await asyncio.sleep(REST * turn.total_seconds())
    raise Unavailable(
        f"the migration {name} needs a table that another session holds, and gave way: nothing of it was done. "
        "See who is in a long transaction, and try again."
    )


async def _beside(connection: asyncpg.Connection, script: str) -> None:
    """Run each statement by itself, as CONCURRENTLY must be. Nobody waits for such a one, so it may wait for everybody."""
    await queries("db").wait_for_locks(connection, most="0", here=False)
    for statement in statements(script):
        await connection.execute(statement)


def statements(script: str) -> list[str]:
    """Return the statements of a migration that works beside writers: each ends its line with a semicolon, and none has one within."""
    bare = re.sub(r"--.*", "", script)
    return [each.strip() for each in bare.split(";") if each.strip()]


def _script(path: Path) -> tuple[str, str]:
    script = path.read_text(encoding="utf-8")
    return script, sha256(script.encode()).hexdigest()


def _files(folder: Path | None = None) -> list[Path]:
    return sorted(path for path in (folder or shipped.folder("sql") / "migrations").glob("*.sql") if re.match(r"\d{4}_", path.name))
