"""A real standby: audiences and exports may be read from it, and say how old they are; a decision never is."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession
from pydantic import SecretStr
from structlog.testing import capture_logs

from mailprefs import db, embedded, exports, leaving, numbers, replicas
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue, parse
from mailprefs.directory import Entry, know
from mailprefs.exports import Export, Maker
from mailprefs.ledger import record
from mailprefs.links import KeyRing
from mailprefs.settings import Settings
from mailprefs.shapes import Shape
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect
from tests.conftest import CHANNELS, HERE

AUDIENCE = "/v1/audiences/connective/newsletter"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, shared_catalogue: Catalogue, ring: KeyRing) -> Iterator[tuple[str, str]]:
    """The URLs of a primary and of its standby, which was made by pg_basebackup. The primary knows the shared catalogue."""
    primary, standby = (tmp_path_factory.mktemp(name) / "postgres" for name in ("primary", "standby"))
    given = os.environ.get("MAILPREFS_TEST_BINARIES")
    binaries = Path(given) if given else embedded._borrowed()
    with asyncio.Runner() as runner:
        running = embedded.running(primary, binaries)
        url = runner.run(running.__aenter__())
        runner.run(_migrated(url, shared_catalogue, ring))
        _copied(binaries, primary, standby, url)
        following = embedded.running(standby, binaries)
        yield url, runner.run(following.__aenter__())
        runner.run(following.__aexit__(None, None, None))
        runner.run(running.__aexit__(None, None, None))


async def _migrated(url: str, known: Catalogue, ring: KeyRing) -> None:
    connection = await asyncpg.connect(url)
    await db.migrate(connection)
    await numbers.introduce(connection, known, ring.fingerprints, CHANNELS, now=datetime.now(UTC))
    await connection.close()


def _copied(binaries: Path, primary: Path, standby: Path, url: str) -> None:
    standby.mkdir(mode=0o700)
    cluster = standby / "cluster"
    copying = [
        str(binaries / "pg_basebackup"),
        "--dbname",
        url,
        "--pgdata",
        str(cluster),
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--no-sync",
    ]
    subprocess.run(copying, check=True, capture_output=True)
    shutil.copy(primary / "password", standby / "password")
    if os.geteuid() == 0:  # the server runs as the account that the cluster belongs to, and finds the primary's socket as that one
        owner = (primary / "cluster").stat()
        for path in (cluster, *cluster.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)


@pytest.fixture
def database(pair: tuple[str, str]) -> str:
    return pair[0]


@pytest.fixture
async def standby(pair: tuple[str, str]) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(pair[1])
    yield connection
    await connection.execute("select pg_wal_replay_resume()")
    await connection.close()


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]) -> Settings:
    monkeypatch.setenv("READ_DATABASE_URL", pair[1])
    return Settings()


@pytest.fixture
async def people(conn: asyncpg.Connection, standby: asyncpg.Connection, addresses: Addresses) -> list[Address]:
    """Of this test alone, and known at the standby."""
    found = [addresses.read(f"p{n}.{uuid4().hex}@example.org") for n in range(4)]
    await know(conn, [Entry(each) for each in found], now=datetime.now(UTC))
    await caught_up(conn, standby)
    return found


async def caught_up(conn: asyncpg.Connection, standby: asyncpg.Connection) -> None:
    written = await conn.fetchval("select pg_current_wal_lsn()::text")
    while not await standby.fetchval("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written):
        await asyncio.sleep(0.01)


async def paused(standby: asyncpg.Connection) -> None:
    await standby.execute("select pg_wal_replay_pause()")
    while await standby.fetchval("select pg_get_wal_replay_pause_state()") != "paused":
        await asyncio.sleep(0.01)


def stop(who: Address) -> Change:
    return Change(who, 272, Cause.CHOICE, Effect.STOP, Door.PROVIDER, uuid4().hex, datetime.now(UTC))


@asynccontextmanager
async def read_from(
    conn: asyncpg.Connection, url: str, known: Catalogue, *, now: datetime | None = None
) -> AsyncIterator[tuple[bool, list[str]]]:
    """Whether a standby is read, and what was said where it is not."""
    with capture_logs() as said:
        async with replicas.reading(conn, SecretStr(url), known, now=now or datetime.now(UTC)) as read:
            yield read is not conn, [each["why"] for each in said if each["event"] == "standby_not_read"]


async def test_a_decision_right_after_an_opt_out_is_never_read_from_a_standby_that_lacks_it(
    base: str,
    http: ClientSession,
    bearer: dict[str, str],
    conn: asyncpg.Connection,
    standby: asyncpg.Connection,
    people: list[Address],
) -> None:
    async def decided() -> bool:
        asked = {"pairs": [{"address": people[0].text, "topic": "connective/newsletter"}]}
        async with http.post(f"{base}/v1/decisions", json=asked, headers=bearer) as answer:
            return bool((await answer.json())["decisions"][0]["allowed"])

    async def listed() -> bool:
        async with http.get(base + AUDIENCE, headers=bearer) as answer:
            return people[0].text in (await answer.text()).splitlines()

    assert await decided()
    assert await listed()
    await paused(standby)
    await record(conn, [stop(people[0])], now=datetime.now(UTC))
    assert not await decided()
    assert await listed()  # the control: that one is read from the standby, and stale
    await standby.execute("select pg_wal_replay_resume()")
    await caught_up(conn, standby)
    assert not await listed()


async def test_an_export_of_a_standby_says_how_old_it_is_and_whoever_left_since_is_told(
    conn: asyncpg.Connection,
    standby: asyncpg.Connection,
    pair: tuple[str, str],
    people: list[Address],
    shared_catalogue: Catalogue,
    ring: KeyRing,
    tmp_path: Path,
) -> None:
    """One stop is under way while a later one is committed: a standby sees the later one alone, and its own snapshot does not say so."""
    slow = await asyncpg.connect(pair[0])
    under_way = slow.transaction()
    await under_way.start()
    await record(slow, [stop(people[0])], now=datetime.now(UTC))
    await record(conn, [stop(people[1])], now=datetime.now(UTC))
    await caught_up(conn, standby)
    await paused(standby)
    own = await standby.fetchval("select pg_current_snapshot()::text")
    await record(conn, [stop(people[2])], now=datetime.now(UTC))

    export = await kept(conn, shared_catalogue, ring, tmp_path, SecretStr(pair[1]))
    here = await kept(conn, shared_catalogue, ring, tmp_path, None)
    await under_way.commit()
    await slow.close()

    assert [exports.facts_of(each)["read_from"] for each in (export, here)] == ["standby", "primary"]
    assert {people[n].text for n in (0, 2, 3)} <= listed(tmp_path, export)
    assert people[1].text not in listed(tmp_path, export)
    assert people[2].text not in listed(tmp_path, here)
    newer = "select pg_snapshot_xmax($1::text::pg_snapshot) < pg_snapshot_xmax($2::text::pg_snapshot)"
    assert await conn.fetchval(newer, export.snapshot, here.snapshot)
    gone = await left(conn, export, shared_catalogue)
    assert {people[0].text, people[2].text} <= gone
    assert people[1].text not in gone

    again = await exports.recomputed(conn, export, shared_catalogue, ring, scratch=tmp_path)
    assert again == exports.facts_of(export)["sha256"] == sha256((tmp_path / str(export.file)).read_bytes()).hexdigest()
    assert people[0].text not in await left(conn, replace(export, snapshot=own), shared_catalogue)  # the control


async def test_an_export_that_a_standby_did_not_end_is_made_on_the_primary(
    conn: asyncpg.Connection, pair: tuple[str, str], people: list[Address], shared_catalogue: Catalogue, ring: KeyRing, tmp_path: Path
) -> None:
    for tries, source in ((0, "standby"), (1, "primary")):
        export = await kept(conn, shared_catalogue, ring, tmp_path, SecretStr(pair[1]), tries=tries)
        assert exports.facts_of(export)["read_from"] == source


async def kept(
    conn: asyncpg.Connection, known: Catalogue, ring: KeyRing, folder: Path, standby: SecretStr | None, *, tries: int = 0
) -> Export:
    now = datetime.now(UTC)
    said = {"purpose": "test", "requester": "test"}
    id = await exports.ask(conn, known.topic("newsletter"), Channel.EMAIL, Shape(), **said, expires_at=now + timedelta(days=7), now=now)
    await conn.execute("update export set attempts = $1 where id = $2", tries, id)
    assert await Maker(folder, known, ring, lambda: now, standby).round(conn)
    export = await exports.find(conn, id)
    assert export is not None
    return export


def listed(folder: Path, export: Export) -> set[str | None]:
    return set((folder / str(export.file)).read_text().splitlines()[1:])


async def left(conn: asyncpg.Connection, export: Export, known: Catalogue) -> set[str | None]:
    found, cursor, more = set[str | None](), None, True
    while more:
        some, cursor, more = await leaving.page(conn, export, known, cursor, now=datetime.now(UTC))
        found |= {each.text for each in some}
    return found


async def test_a_standby_that_lags_is_not_read(
    conn: asyncpg.Connection, standby: asyncpg.Connection, pair: tuple[str, str], people: list[Address], shared_catalogue: Catalogue
) -> None:
    later = datetime.now(UTC) + replicas.LAG + timedelta(seconds=1)
    async with read_from(conn, pair[1], shared_catalogue, now=later) as (there, _):
        assert there  # it lacks nothing, however long nothing was written
    await paused(standby)
    await record(conn, [stop(people[0])], now=datetime.now(UTC))
    async with read_from(conn, pair[1], shared_catalogue) as (there, _):
        assert there
    async with read_from(conn, pair[1], shared_catalogue, now=later) as found:
        assert found == (False, ["behind"])


async def test_what_is_away_or_no_standby_of_ours_is_not_read(
    conn: asyncpg.Connection, pair: tuple[str, str], shared_catalogue: Catalogue, tmp_path: Path
) -> None:
    for url, why in ((f"postgresql:///postgres?host={tmp_path}", "away"), (pair[0], "no_standby_of_ours"), ("mysql://x", "no_url")):
        async with read_from(conn, url, shared_catalogue) as found:
            assert found == (False, [why])


async def test_a_standby_of_an_older_release_is_not_read(
    conn: asyncpg.Connection, standby: asyncpg.Connection, pair: tuple[str, str], shared_catalogue: Catalogue
) -> None:
    text = (HERE / "catalogue.toml").read_text(encoding="utf-8")
    newer = parse(text.replace('name = "offers"', 'name = "offers"\nconsent = "opt-in"', 1))
    for known, read in ((shared_catalogue, (True, [])), (newer, (False, ["older_release"]))):
        async with read_from(conn, pair[1], known) as found:
            assert found == read
    latest = await conn.fetchrow("delete from migration where name = (select max(name) from migration) returning *")
    await caught_up(conn, standby)
    async with read_from(conn, pair[1], shared_catalogue) as found:
        assert found == (False, ["older_release"])
    assert latest
    await conn.execute("insert into migration values ($1, $2, $3)", *latest)
    await caught_up(conn, standby)
