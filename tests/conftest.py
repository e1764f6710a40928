"""Real PostgreSQL for every test: one server for a worker, one fresh database for a test."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, date, datetime
from hashlib import pbkdf2_hmac, sha256
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from mailprefs import catalogue, db, embedded, numbers, tuning
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing, Links
from mailprefs.words import Channel

from .citus import spread, stand_in

HERE = Path(__file__).parent
CITUS = os.environ.get("MAILPREFS_TEST_CITUS") == "1"  # the server has the extension: every database is spread over its cluster
SPREAD = os.environ.get("MAILPREFS_TEST_SPREAD") == "1"  # every database has the text of a cluster, on the one ordinary server
ROOM = 2 << 30  # bytes that a worker may come to take there: 1 GB of WAL, and the databases that are still to be dropped
# What wants one order of commits is refused there (docs/growing.md), and what compares both texts spreads one itself.
# The mutants are about tests.
NOT_ON_A_CLUSTER = (
    *("test_citus", "test_planner", "test_mutants"),
    *("test_endpoints", "test_exports", "test_feed", "test_leaving", "test_plans", "test_send", "test_webhooks"),
)
HEARD_BY_SYSTEMS = "test_systems_of_the_senders_own_hear_nothing_of_a_sensitive_topic_and_no_name_or_title"
# And what is about a server's own means: its triggers, its counters of one table, its second process, its building of one index.
OF_ONE_SERVER = (
    "test_of_a_delivery_that_fails_half_way_nothing_is_kept_and_the_next_attempt_keeps_all_of_it",
    "test_who_is_new_and_told_to_nobody_is_written_once",
    "test_who_is_new_and_stopped_for_good_is_not_folded",
    "test_the_sender_s_own_systems_hear_of_it",
    "test_an_export_of_many_is_scanned_by_two_processes",
    "test_an_index_that_is_built_beside_writers_makes_none_of_them_wait",
    "test_an_index_whose_building_was_cut_short_is_built_anew",
    "test_a_commit_that_fails_acknowledges_nothing",
    "test_a_commit_that_no_standby_confirmed_is_not_acknowledged",
    "test_a_delivery_whose_commit_no_standby_confirmed_is_asked_for_again",
    "test_a_database_that_goes_away_is_said_and_what_was_recorded_is_kept",
)
# What comes in by these doors is asked of PostgreSQL by rooms whose own tests ask the same; the mutants are about tests.
ABOUT_NO_SQL = ("browser", "cli", "mailroom", "providers", "sandbox", "web", "test_mutants")
PAGES = (128, 128)  # MB for pages: whoever makes or drops a database looks through all of them, and those of tests are small
LOG = (512, 512)  # MB between checkpoints: the place may be in memory
# Of each table on a cluster: enough that a statement is of several, and made for each test in an eighth of the time that 32 take.
FEW_SHARDS = "set citus.shard_count = 4"
AT_ONCE = 25  # databases dropped together: each drop asks the server for a checkpoint, and the first does the work of all
CHANNELS = {"sendgrid": Channel.EMAIL, "twilio": Channel.SMS}
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave unread what has no such mark: to look through all the others takes a third of the time of those that do."""
    wanted = config.getoption("markexpr") != "spread" or collection_path.suffix != ".py"
    return None if wanted or "mark.spread" in collection_path.read_text(encoding="utf-8") else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what talks to PostgreSQL and, of that, what is about SQL itself, so that it alone runs again on the system's own."""
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)
            if not item.get_closest_marker("slow") and not {item.path.stem, item.path.parent.name} & set(ABOUT_NO_SQL):
                item.add_marker(pytest.mark.sql)
        if (CITUS or SPREAD) and (item.path.stem in NOT_ON_A_CLUSTER or item.name.startswith((HEARD_BY_SYSTEMS, *OF_ONE_SERVER))):
            item.add_marker(pytest.mark.skip("wants the database on one server"))


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def shared_catalogue() -> Catalogue:
    return catalogue.load(HERE / "catalogue.toml")


@pytest.fixture(scope="session")
def ring() -> KeyRing:
    return KeyRing.new(date(2026, 11, 22))


@pytest.fixture(scope="session")
def addresses(ring: KeyRing) -> Addresses:
    return Addresses(ring.digest)


@pytest.fixture(scope="session")
def links(ring: KeyRing) -> Links:
    return Links(ring, "go.example.com", "u@go.example.com")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server to make databases on: MAILPREFS_TEST_DATABASE_URL, or our embedded one with the binaries of MAILPREFS_TEST_BINARIES."""
    if url := os.environ.get("MAILPREFS_TEST_DATABASE_URL"):
        yield url
        return
    binaries = os.environ.get("MAILPREFS_TEST_BINARIES")
    with TemporaryDirectory(dir=_quick_place(), ignore_cleanup_errors=True) as home, asyncio.Runner() as runner:
        running = embedded.running(Path(home) / "data", Path(binaries) if binaries else None)
        with pytest.MonkeyPatch.context() as small:
            small.setattr(tuning, "BUFFERS", PAGES)
            small.setattr(tuning, "WAL", LOG)
            url = runner.run(running.__aenter__())
        # a system's PostgreSQL would compile queries about a handful of rows, which takes longer than they do
        cheaply = (f"password '{_verifier(urlsplit(url).password or '')}'", "set jit = off")
        runner.run(_admin(url, *(f"alter role {embedded.ROLE} {each}" for each in cheaply)))
        yield url
        runner.run(running.__aexit__(None, None, None))


def _verifier(password: str) -> str:
    """How PostgreSQL keeps a password, by one round of SCRAM instead of 4,096: nobody guesses this one, and a test connects many times."""
    salt = os.urandom(16)
    salted = pbkdf2_hmac("sha256", password.encode(), salt, 1)
    client, server = (hmac.digest(salted, key, "sha256") for key in (b"Client Key", b"Server Key"))
    kept = [b64encode(each).decode() for each in (salt, sha256(client).digest(), server)]
    return "SCRAM-SHA-256$1:{}${}:{}".format(*kept)


def _quick_place() -> Path | None:
    """Memory that looks like a directory, where there is enough: every test commits, and no power cut is tested here."""
    memory, wanted = Path("/dev") / "shm", ROOM * int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return memory if memory.is_dir() and os.access(memory, os.W_OK) and disk_usage(memory).free > wanted else None


def _quick_copy() -> str:
    """How a database is copied soonest: in memory file by file, on a disk through the WAL, which waits for one file instead of hundreds."""
    return "file_copy" if "MAILPREFS_TEST_DATABASE_URL" not in os.environ and _quick_place() else "wal_log"


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A directory of the test's own for a PostgreSQL of its own: on a disk each of its commits would be waited for."""
    with TemporaryDirectory(dir=_quick_place() or tmp_path, prefix="quick-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def template(server: str, shared_catalogue: Catalogue, ring: KeyRing) -> Iterator[str]:
    """The name of a migrated database that knows the shared catalogue."""
    with asyncio.Runner() as runner:
        known = _knowing(server, shared_catalogue, ring)
        yield runner.run(known.__aenter__())
        runner.run(known.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def knowing(server: str) -> Callable[[Catalogue, KeyRing], AbstractAsyncContextManager[str]]:
    """Make a migrated database of its own that knows some other catalogue, and give its URL while it stands."""

    @asynccontextmanager
    async def url(known: Catalogue, ring: KeyRing) -> AsyncIterator[str]:
        async with _knowing(server, known, ring) as name:
            yield database_url(server, name)

    return url


@asynccontextmanager
async def _knowing(server: str, known: Catalogue, ring: KeyRing) -> AsyncIterator[str]:
    name = f"template_{uuid4().hex}"
    await _admin(server, f'create database "{name}"')
    connection = await asyncpg.connect(database_url(server, name))
    try:
        if CITUS:
            await connection.execute("create extension citus")
            await connection.execute(FEW_SHARDS)
        elif SPREAD:
            await stand_in(connection)
        await db.migrate(connection)
        if CITUS or SPREAD:
            await spread(connection)
        await numbers.register(connection, known, [key.id for key in ring.keys], CHANNELS, now=NOW)
    finally:
        await connection.close()
    yield name
    await _admin(server, f'drop database "{name}" with (force)')


@pytest.fixture(scope="session")
def admin(server: str) -> Iterator[Callable[..., None]]:
    """Ask the server something over one connection that stays: it is wanted before and after each test."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(server))

        def ask(statement: str, *values: object) -> None:
            runner.run(connection.execute(statement, *values))

        yield ask
        runner.run(connection.close())


@pytest.fixture(scope="session")
def emptied(admin: Callable[..., None]) -> Iterator[list[str]]:
    """The names of databases that their tests are done with, and that are still to be dropped."""
    names: list[str] = []
    yield names
    _drop(admin, names)


@pytest.fixture
def database(request: pytest.FixtureRequest, server: str) -> str:
    """The URL of a fresh migrated database on the server."""
    found: str = request.getfixturevalue("spread_out" if CITUS else "copied")
    return found


@pytest.fixture
def copied(server: str, template: str, admin: Callable[..., None], emptied: list[str]) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    admin(f'create database "{name}" template "{template}" strategy {_quick_copy()}')
    yield database_url(server, name)
    admin("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)
    emptied.append(name)
    if len(emptied) >= AT_ONCE:
        _drop(admin, emptied)


@pytest.fixture
async def spread_out(server: str, shared_catalogue: Catalogue, ring: KeyRing) -> AsyncIterator[str]:
    """On a cluster it is made anew: a copy would lack its shards."""
    async with _knowing(server, shared_catalogue, ring) as made:
        yield database_url(server, made)


@pytest.fixture
async def conn(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database, server_settings={"timezone": "UTC"})
    yield connection
    await connection.close()


def database_url(server: str, name: str) -> str:
    """Return a server's URL with another database in it."""
    return re.sub(r"(//[^/]*/)[^?]*", rf"\g<1>{name}", server)


async def _admin(server: str, *statements: str) -> None:
    connection = await asyncpg.connect(server)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def _drop(admin: Callable[..., None], names: list[str]) -> None:
    for name in names:
        admin(f'drop database "{name}" with (force)')
    names.clear()


@pytest.fixture
def settled(conn: asyncpg.Connection) -> Callable[[], Awaitable[None]]:
    """Wait until whatever anybody in this server had begun has ended: who reads the ledger in order waits for all of its databases."""

    async def wait() -> None:
        upto = await conn.fetchval("select pg_snapshot_xmax(pg_current_snapshot())::text::numeric")
        while await conn.fetchval("select pg_snapshot_xmin(pg_current_snapshot())::text::numeric") < upto:
            await asyncio.sleep(0.02)

    return wait
