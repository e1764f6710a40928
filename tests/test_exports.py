"""Kept exports: what is signed is what was allowed in one snapshot, and half a file is never one."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import REGISTRY

from mailprefs import exports, seals
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.decisions import Question, decide
from mailprefs.directory import Entry, know
from mailprefs.errors import Busy, Forged, Misconfigured, NotMade, NotMintable, UnknownScope, Unreadable
from mailprefs.exports import Export, Maker
from mailprefs.ledger import record
from mailprefs.links import KeyRing
from mailprefs.packing import Packing
from mailprefs.shapes import Shape
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

WEEK = timedelta(days=7)
PLAIN = Shape()
EXPORTED = int(os.environ.get("MAILPREFS_TEST_EXPORTED", "0"))  # addresses


@pytest.fixture
def maker(tmp_path: Path, shared_catalogue: Catalogue, ring: KeyRing, now: datetime) -> Maker:
    return Maker(tmp_path / "exports", shared_catalogue, ring, lambda: now)


@pytest.fixture
async def people(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> list[Address]:
    found = [addresses.read(f"p{n:02}@example.org") for n in range(40)]
    await know(conn, [Entry(each, "en", "US", f'"{n}", party') for n, each in enumerate(found)], now=now)
    return found


def stop(who: Address, scope: int, id: object, now: datetime, cause: Cause = Cause.CHOICE, door: Door = Door.PROVIDER) -> Change:
    return Change(who, scope, cause, Effect.STOP, door, f"{id}", now)


async def asked(conn: asyncpg.Connection, maker: Maker, shape: Shape = PLAIN, topic: str = "newsletter") -> UUID:
    said = {"purpose": "the May issue", "requester": "key 1"}
    scope, now = maker.catalogue.topic(topic), maker.clock()
    return await exports.ask(conn, scope, Channel.EMAIL, shape, **said, expires_at=now + WEEK, now=now)


async def made(conn: asyncpg.Connection, maker: Maker, shape: Shape = PLAIN, topic: str = "newsletter") -> Export:
    id = await asked(conn, maker, shape, topic)
    assert await maker.round(conn)
    return await found(conn, id)


async def found(conn: asyncpg.Connection, id: UUID) -> Export:
    export = await exports.find(conn, id)
    assert export is not None
    return export


def bytes_of(maker: Maker, export: Export) -> bytes:
    assert export.file
    return (maker.folder / export.file).read_bytes()


def verified(maker: Maker, content: bytes, manifest: bytes) -> dict[str, object]:
    return exports.verified(io.BytesIO(content), manifest, seals.public(maker.ring))


async def test_a_kept_export_is_whom_the_decision_allows_in_order_with_its_manifest(
    conn: asyncpg.Connection, maker: Maker, people: list[Address], shared_catalogue: Catalogue, now: datetime
) -> None:
    changes = [
        stop(people[0], 272, 0, now),
        stop(people[1], 257, 1, now),
        stop(people[1], 0, "b", now, Cause.BOUNCE),
        stop(people[2], 257, 2, now, Cause.COMPLAINT),
        Change(people[3], 272, Cause.PAUSE, Effect.STOP, Door.PAGE, "3", now, until=now + WEEK),
    ]
    await record(conn, changes, now=now)
    export = await made(conn, maker)
    questions = [Question(each, str(each.text), "newsletter") for each in people]
    allowed = sorted(one.address for one in await decide(conn, questions, shared_catalogue, now=now) if one.allowed)
    content = bytes_of(maker, export)
    assert content.decode().splitlines() == ["address", *allowed]
    facts = verified(maker, content, str(export.manifest).encode())
    assert facts["count"] == 36
    assert facts["denied"] == {
        "people": 4,
        "reasons": {
            "connective/newsletter:choice": 1,
            "connective/marketing:choice": 1,
            "*:bounce": 1,
            "connective/marketing:complaint": 1,
            "connective/newsletter:pause": 1,
        },
    }
    assert facts["sha256"] == sha256(content).hexdigest()
    assert facts["catalogue"] == exports.digest_of(shared_catalogue)
    assert (facts["requester"], facts["purpose"], facts["expires_at"]) == ("key 1", "the May issue", (now + WEEK).isoformat())
    assert (maker.folder / str(export.file)).stat().st_mode & 0o777 == 0o600
    assert maker.folder.stat().st_mode & 0o777 == 0o700


async def test_missing_consent_is_a_reason_too(conn: asyncpg.Connection, maker: Maker, people: list[Address], now: datetime) -> None:
    await record(conn, [Change(people[0], 274, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "0", now)], now=now)
    export = await made(conn, maker, topic="partners")
    facts = json.loads(str(export.manifest))
    assert (facts["count"], facts["denied"]) == (1, {"people": 39, "reasons": {"connective/partners:consent_missing": 39}})


async def test_one_altered_byte_fails(conn: asyncpg.Connection, maker: Maker, people: list[Address]) -> None:
    export = await made(conn, maker)
    content, manifest = bytes_of(maker, export), str(export.manifest).encode()
    verified(maker, content, manifest)
    altered = [(content[:n] + bytes([content[n] ^ 1]) + content[n + 1 :], manifest) for n in range(len(content))]
    altered += [(content, manifest[:n] + bytes([manifest[n] ^ 1]) + manifest[n + 1 :]) for n in range(len(manifest))]
    altered += [(content[:-1], manifest), (content + b"\n", manifest), (b"", manifest), (content, manifest[:-1]), (content, b"")]
    altered += [(content, manifest.replace(b"{", b'{"count":999999,', 1))]  # a word twice: a person reads the first
    for pair in altered:
        with pytest.raises((Forged, Unreadable)):
            verified(maker, *pair)
    with pytest.raises(Forged):
        exports.verified(io.BytesIO(content), manifest, seals.public(KeyRing.new(date(2026, 11, 22))))


@pytest.mark.parametrize("shape", [Shape(("address", "party"), "ndjson"), Shape(("party", "address", "url"), "csv", Packing.GZIP)])
async def test_recomputed_from_the_ledger_at_its_position_while_opt_outs_arrive_it_is_the_same_bytes(
    conn: asyncpg.Connection, database: str, maker: Maker, people: list[Address], ring: KeyRing, shared_catalogue: Catalogue,
    now: datetime, shape: Shape, tmp_path: Path,
) -> None:  # fmt: skip
    """Two writers press and undo without a pause, one of them in transactions that stay open, while exports are made."""
    over = asyncio.Event()

    async def press(seed: int, slow: bool) -> None:
        random_, writer = random.Random(seed), await asyncpg.connect(database)
        n = 0
        while not over.is_set():
            n += 1
            who, scope = random_.choice(people), random_.choice([272, 257, 273])
            effect = random_.choice([Effect.STOP, Effect.STOP, Effect.GO])
            async with writer.transaction():
                change = Change(who, scope, Cause.CHOICE, effect, Door.MANAGE, f"{seed}-{n}", now)
                await record(writer, [change], now=now - timedelta(hours=1) + n * timedelta(microseconds=1))
                await asyncio.sleep(0.005 if slow else 0)
        await writer.close()

    writers = [asyncio.create_task(press(1, False)), asyncio.create_task(press(2, True))]
    kept = []
    for _ in range(4):
        await asyncio.sleep(0.05)
        kept.append(await made(conn, maker, shape))
    over.set()
    await asyncio.gather(*writers)
    for export in kept:
        again = await exports.recomputed(conn, export, shared_catalogue, ring, scratch=tmp_path)
        assert again == sha256(bytes_of(maker, export)).hexdigest()
    assert len({bytes_of(maker, export) for export in kept}) > 1, "the control: there was something to see"
    later = await conn.fetchval("select pg_current_snapshot()::text")
    assert later not in [export.snapshot for export in kept]


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not EXPORTED, reason="MAILPREFS_TEST_EXPORTED says of how many")
async def test_recomputed_after_a_thousand_opt_outs_a_second_it_is_the_same_bytes(
    conn: asyncpg.Connection, database: str, maker: Maker, addresses: Addresses, ring: KeyRing, shared_catalogue: Catalogue,
    now: datetime, tmp_path: Path,
) -> None:  # fmt: skip
    """The same at its full size: presses are recorded fifty to a transaction, as many at once do."""
    crowd = [addresses.read(f"someone{n}@example.org") for n in range(EXPORTED)]
    for n in range(0, EXPORTED, 1000):
        await know(conn, [Entry(each) for each in crowd[n : n + 1000]], now=now)
    over, pressed, loop = asyncio.Event(), 0, asyncio.get_running_loop()

    async def press(seed: int, every: float) -> None:
        nonlocal pressed
        random_, writer, due = random.Random(seed), await asyncpg.connect(database), loop.time()
        while not over.is_set():
            some = random_.sample(crowd, 50)
            changes = [Change(who, 272, Cause.CHOICE, Effect.STOP, Door.LINK, f"{seed}-{pressed + n}", now) for n, who in enumerate(some)]
            pressed += 50
            await record(writer, changes, now=now - timedelta(hours=1) + pressed * timedelta(microseconds=1))
            due += every
            await asyncio.sleep(due - loop.time())
        await writer.close()

    began = loop.time()
    writers = [asyncio.create_task(press(seed, 0.15)) for seed in range(4)]
    kept = [await made(conn, maker, Shape(("address",))) for _ in range(4)]
    rate = pressed / (loop.time() - began)
    over.set()
    await asyncio.gather(*writers)
    sys.stdout.write(f"{EXPORTED:,} addresses, 4 exports, {rate:,.0f} opt-outs a second, {pressed:,} in all\n")
    for export in kept:
        again = await exports.recomputed(conn, export, shared_catalogue, ring, scratch=tmp_path)
        assert again == sha256(bytes_of(maker, export)).hexdigest()
    assert len({bytes_of(maker, export) for export in kept}) == len(kept), "the control: there was something to see"


async def test_recomputed_at_another_position_it_is_other_bytes(
    conn: asyncpg.Connection, maker: Maker, people: list[Address], ring: KeyRing, shared_catalogue: Catalogue, now: datetime, tmp_path: Path
) -> None:
    """The control of the one above: the position is heeded."""
    export = await made(conn, maker)
    await record(conn, [stop(people[0], 272, 0, now)], now=now)
    later = await made(conn, maker)
    content = bytes_of(maker, export)
    assert await exports.recomputed(conn, export, shared_catalogue, ring, scratch=tmp_path) == sha256(content).hexdigest()
    assert await exports.recomputed(conn, later, shared_catalogue, ring, scratch=tmp_path) != sha256(content).hexdigest()


async def test_what_was_never_made_or_is_of_no_topic_here_is_not_recomputed(
    conn: asyncpg.Connection, maker: Maker, people: list[Address], ring: KeyRing, shared_catalogue: Catalogue, tmp_path: Path
) -> None:
    unknown = replace(await made(conn, maker), scope=65_535)
    waiting = await found(conn, await asked(conn, maker))  # behind it: of two that wait, either may be made first
    for export, error in ((waiting, NotMade), (unknown, UnknownScope)):
        with pytest.raises(error):
            await exports.recomputed(conn, export, shared_catalogue, ring, scratch=tmp_path)


@asynccontextmanager
async def killed(conn: asyncpg.Connection, maker: Maker, database: str) -> AsyncIterator[Path]:
    """Lend what a maker that was killed half way left behind: the part of a file, while its connection is gone."""
    await asked(conn, maker)
    other = await asyncpg.connect(database)
    making = asyncio.create_task(maker.round(other))
    while not list(maker.folder.glob(".*.part")):
        await asyncio.sleep(0)
    (part,) = maker.folder.glob(".*.part")
    copy = part.with_name(".left-behind.part")
    copy.write_bytes(b"address\nhalf")
    other.terminate()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ConnectionError)):
        await making
    yield copy


async def test_a_maker_that_was_killed_half_way_leaves_nothing_and_is_followed_by_another(
    conn: asyncpg.Connection, maker: Maker, people: list[Address], database: str
) -> None:
    async with killed(conn, maker, database) as left:
        assert await conn.fetchval("select manifest is null from export")
        for _ in range(3000):  # until the server has noticed, and let go of the turn
            if await maker.round(conn):
                break
            await asyncio.sleep(0.01)
        assert not left.exists()
    export = await found(conn, await conn.fetchval("select id from export"))
    verified(maker, bytes_of(maker, export), str(export.manifest).encode())
    assert [path.name for path in maker.folder.iterdir()] == [export.file]
    assert await conn.fetchval("select attempts from export") == 2


async def test_two_makers_make_one_export_once(conn: asyncpg.Connection, database: str, maker: Maker, people: list[Address]) -> None:
    await asked(conn, maker)
    other = await asyncpg.connect(database)
    assert sorted(await asyncio.gather(maker.round(conn), maker.round(other))) == [False, True]
    await other.close()
    assert len(list(maker.folder.iterdir())) == 1


async def test_what_has_expired_is_removed_and_its_manifest_stays(
    conn: asyncpg.Connection, maker: Maker, people: list[Address], now: datetime, tmp_path: Path
) -> None:
    export = await made(conn, maker)
    assert export.state(now) == "made"
    later = Maker(maker.folder, maker.catalogue, maker.ring, lambda: now + WEEK)
    assert not await later.round(conn)
    assert list(maker.folder.iterdir()) == []
    gone = await found(conn, export.id)
    assert (gone.state(now + WEEK), gone.file, gone.manifest) == ("expired", None, export.manifest)


async def test_what_can_never_be_made_is_refused_and_holds_up_nobody(
    conn: asyncpg.Connection, maker: Maker, people: list[Address], now: datetime
) -> None:
    links = await asked(conn, maker, Shape(("address", "url")))
    await conn.execute("update export set scope = $1", maker.catalogue.topic("orders").number)  # as if it had become transactional since
    assert await maker.round(conn)
    refused = await found(conn, links)
    assert (refused.state(now), refused.refused) == ("refused", "Unsubscribe links exist for marketing alone.")
    assert (await made(conn, maker)).state(now) == "made"
    with pytest.raises(UnknownScope):
        await asked(conn, maker, Shape(("address", "plaintext")))
    with pytest.raises(NotMintable):
        await asked(conn, maker, Shape(("address", "url")), "orders")


def alarms(name: str) -> float:
    return REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": name, "account": ""}) or 0


async def test_a_disk_that_refuses_is_alarmed_about_as_what_it_is_and_what_it_refused_comes_again(
    conn: asyncpg.Connection, maker: Maker, people: list[Address], now: datetime
) -> None:
    id = await asked(conn, maker)
    maker.folder.write_bytes(b"")  # a folder in which nothing can be written, seen or removed
    names = ("export_not_removed", "export_not_written", "loop_failed")
    before = [alarms(name) for name in names]
    assert not await maker.round(conn), "and no error of the database's"
    assert [alarms(name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 0]
    assert (await found(conn, id)).state(now) == "waiting"
    maker.folder.unlink()
    assert await maker.round(conn)
    assert [alarms(name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 0], "the control"
    assert (await found(conn, id)).state(now) == "made"


async def test_a_disk_that_is_full_is_no_trouble_of_the_database(tmp_path: Path) -> None:
    part = tmp_path / ".may.csv.part"
    part.symlink_to("/dev/full")

    async def written() -> None:
        with exports._Draft(tmp_path / "may.csv") as out:
            await out(b"address\n")
            out.keep()

    with pytest.raises(Misconfigured, match="No space left"):
        await written()
    assert not part.is_symlink()


async def test_no_more_wait_than_there_is_room_for(conn: asyncpg.Connection, maker: Maker, people: list[Address]) -> None:
    for _ in range(exports.WAITING):
        await asked(conn, maker)
    with pytest.raises(Busy):
        await asked(conn, maker)
    assert await maker.round(conn)
    await asked(conn, maker)


async def test_of_two_who_ask_at_once_the_second_counts_the_first(
    conn: asyncpg.Connection, database: str, maker: Maker, people: list[Address]
) -> None:
    for _ in range(exports.WAITING - 1):
        await asked(conn, maker)
    other = await asyncpg.connect(database)
    async with conn.transaction():
        await asked(conn, maker)
        second = asyncio.create_task(asked(other, maker))
        await asyncio.wait([second], timeout=0.2)  # without a turn, it has counted by then
    with pytest.raises(Busy):
        await second
    assert await conn.fetchval("select count(*) from export") == exports.WAITING
    await other.close()


async def test_each_packing_is_the_rows_of_the_plain_file(conn: asyncpg.Connection, maker: Maker, people: list[Address]) -> None:
    from backports import zstd

    plain = bytes_of(maker, await made(conn, maker))
    assert gzip.decompress(bytes_of(maker, await made(conn, maker, Shape(packing=Packing.GZIP)))) == plain
    assert zstd.decompress(bytes_of(maker, await made(conn, maker, Shape(packing=Packing.ZSTD)))) == plain


async def test_parquet_holds_the_same_rows(conn: asyncpg.Connection, maker: Maker, people: list[Address]) -> None:
    duckdb = pytest.importorskip("duckdb")
    columns = ("party", "address", "list_unsubscribe")
    export = await made(conn, maker, Shape(columns, "parquet"))
    found = duckdb.read_parquet(str(maker.folder / str(export.file)))
    assert tuple(found.columns) == columns
    rows = found.fetchall()
    assert sorted(row[:2] for row in rows) == sorted((f'"{n}", party', str(each.text)) for n, each in enumerate(people))
    assert all(row[2].startswith("<https://go.example.com/u/") for row in rows)
    assert [path.name for path in maker.folder.iterdir()] == [export.file]


async def test_the_fold_at_a_snapshot_is_made_of_the_fold_as_it_is(conn: asyncpg.Connection) -> None:
    """Whoever replaced `fold` or `summary` has made those over a snapshot anew."""
    for name, old in (("fold_at", "fold"), ("summary_at", "summary")):
        text, base = [await conn.fetchval("select pg_get_functiondef($1::regproc)", each) for each in (name, old)]
        text = text.replace(" pg_visible_in_snapshot(c.position, p_seen) and", "").replace(
            " pg_visible_in_snapshot(w.position, p_seen) and", ""
        )
        text = text.replace(", p_seen pg_snapshot", "").replace(", p_seen", "").replace(f"{name}(", f"{old}(").replace("fold_at(", "fold(")
        assert text == base
