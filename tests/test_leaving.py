"""Who left since an export: nobody is passed over, whatever commits late and wherever a reader crashed."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from mailprefs import exports, leaving
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue, parse
from mailprefs.directory import Entry, know
from mailprefs.errors import Expired, NotMade, Outdated, Unreadable
from mailprefs.exports import Export, Maker
from mailprefs.leaving import Cursor
from mailprefs.ledger import record
from mailprefs.links import KeyRing
from mailprefs.shapes import Shape
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

WEEK = timedelta(days=7)


@pytest.fixture
async def people(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> list[Address]:
    found = [addresses.read(f"p{n:03}@example.org") for n in range(120)]
    await know(conn, [Entry(each) for each in found], now=now)
    return found


@pytest.fixture
async def export(
    conn: asyncpg.Connection, people: list[Address], shared_catalogue: Catalogue, ring: KeyRing, now: datetime, tmp_path: Path
) -> Export:
    """Everyone but the first, who had left before."""
    await record(conn, [stop(people[0], "before", now)], now=now)
    return await kept(conn, shared_catalogue, ring, now, tmp_path)


async def kept(
    conn: asyncpg.Connection, catalogue: Catalogue, ring: KeyRing, now: datetime, folder: Path, topic: str = "newsletter"
) -> Export:
    said = {"purpose": "test", "requester": "test"}
    id = await exports.ask(conn, catalogue.topic(topic), Channel.EMAIL, Shape(), **said, expires_at=now + WEEK, now=now)
    assert await Maker(folder, catalogue, ring, lambda: now).round(conn)
    export = await exports.find(conn, id)
    assert export is not None
    return export


def stop(who: Address, id: object, now: datetime, scope: int = 272, cause: Cause = Cause.CHOICE, until: datetime | None = None) -> Change:
    door = Door.PAGE if cause is Cause.PAUSE else Door.PROVIDER
    return Change(who, scope, cause, Effect.STOP, door, f"{id}", now, until=until)


def go(who: Address, id: object, now: datetime) -> Change:
    return Change(who, 272, Cause.CHOICE, Effect.GO, Door.MANAGE, f"{id}", now)


async def read(
    conn: asyncpg.Connection, export: Export, catalogue: Catalogue, now: datetime, cursor: Cursor | None = None
) -> tuple[list[leaving.Left], Cursor]:
    """Return everyone who left, and where the reader then stands."""
    found: list[leaving.Left] = []
    more = True
    while more:
        some, cursor, more = await leaving.page(conn, export, catalogue, cursor, now=now)
        cursor = leaving.read(str(cursor))  # as a reader gives it back
        found += some
    assert cursor is not None
    return found, cursor


async def test_whoever_was_in_it_and_may_not_be_sent_any_more_has_left(
    conn: asyncpg.Connection, export: Export, people: list[Address], addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    stranger = addresses.read("stranger@example.org")
    changes = [
        stop(people[0], "again", now, 257),  # had left before
        stop(people[1], 1, now),
        stop(people[2], 2, now, 257, Cause.COMPLAINT),
        stop(people[3], 3, now, 0, Cause.BOUNCE),
        stop(people[4], 4, now, cause=Cause.PAUSE, until=now + WEEK),
        stop(people[5], 5, now, 273),  # another topic
        Change(people[6], 272, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "6", now),
        stop(people[7], 7, now),
    ]
    await record(conn, changes, now=now)
    await record(conn, [go(people[7], 8, now)], now=now)
    found, cursor = await read(conn, export, shared_catalogue, now)
    assert {each.text for each in found if not each.back} == {people[n].text for n in (1, 2, 3, 4)}
    assert {each.text for each in found if each.back} == {people[7].text}
    assert (await read(conn, export, shared_catalogue, now, cursor))[0] == []
    await record(conn, [stop(stranger, 9, now)], now=now)
    assert {each.key for each in (await read(conn, export, shared_catalogue, now, cursor))[0]} <= {stranger.key}


async def test_a_stop_that_is_taken_back_and_uncovers_a_longer_pause_is_noticed(
    conn: asyncpg.Connection, people: list[Address], shared_catalogue: Catalogue, ring: KeyRing, now: datetime, tmp_path: Path
) -> None:
    who, later = people[1], now + timedelta(hours=2)
    long, short = (
        stop(who, each, now, cause=Cause.PAUSE, until=now + span) for each, span in (("long", WEEK), ("short", timedelta(hours=1)))
    )
    await record(conn, [long], now=now)
    await record(conn, [short], now=now)
    export = await kept(conn, shared_catalogue, ring, later, tmp_path)
    undone = Change(who, 272, Cause.PAUSE, Effect.WITHDRAW, Door.PAGE, short.evidence, later)
    await record(conn, [undone], now=later)
    found, _ = await read(conn, export, shared_catalogue, later)
    assert [(each.text, each.back) for each in found] == [(who.text, False)]


async def test_what_commits_late_is_neither_passed_over_nor_holds_up_the_rest(
    conn: asyncpg.Connection, database: str, export: Export, people: list[Address], shared_catalogue: Catalogue, now: datetime
) -> None:
    """With the control: a reader that counts on by the number of the transaction misses one."""
    late = await asyncpg.connect(database)
    begun = late.transaction()
    await begun.start()
    await record(late, [stop(people[1], 1, now)], now=now)
    await record(conn, [stop(people[2], 2, now)], now=now)
    first, cursor = await read(conn, export, shared_catalogue, now)
    by_number = "select max(position)::text from consent where not pg_visible_in_snapshot(position, $1::text::pg_snapshot)"
    number = await conn.fetchval(by_number, export.snapshot)
    assert [each.text for each in first] == [people[2].text], "acknowledged, so it is told"
    await begun.commit()
    await late.close()
    second, _ = await read(conn, export, shared_catalogue, now, cursor)
    assert [each.text for each in second] == [people[1].text]
    missed = await conn.fetchval("select count(*) from consent where position > $1::text::xid8", number)
    assert missed == 0, "the control: by number, nothing is left to read"


async def test_a_reader_that_crashes_anywhere_misses_nobody_while_transactions_of_every_length_commit(
    conn: asyncpg.Connection, database: str, export: Export, people: list[Address], shared_catalogue: Catalogue, now: datetime,
) -> None:  # fmt: skip
    chance = random.Random(7)
    ledgers = [people[n::6] for n in range(6)]

    async def leave(some: list[Address], pause: float) -> None:
        writer = await asyncpg.connect(database)
        for n in range(0, len(some), 4):
            async with writer.transaction():
                await record(writer, [stop(each, f"left-{each.key}", now) for each in some[n : n + 4]], now=now)
                await asyncio.sleep(pause)
        await writer.close()

    writing = [asyncio.create_task(leave(some, 0.02 * n)) for n, some in enumerate(ledgers)]
    told: list[UUID] = []
    saved: Cursor | None = None
    numbers, counted = "0", set()
    crashes = 0
    last = False
    while not last:
        last = all(task.done() for task in writing)
        cursor, more = saved, True
        while more:
            some, cursor, more = await leaving.page(conn, export, shared_catalogue, cursor, now=now, most=3)
            if chance.random() < 0.3:  # before anything is written down: the next begins where this one began
                crashes += 1
                more = last
                cursor = saved
                continue
            told += [each.key for each in some]
            saved = leaving.read(str(cursor))
        rows = await conn.fetch("select key, position::text from consent where position > $1::text::xid8 order by position", numbers)
        counted |= {row["key"] for row in rows}
        numbers = rows[-1]["position"] if rows else numbers
    await asyncio.gather(*writing)
    left = {each.key for each in people[1:]}
    assert set(told) >= left
    assert sorted(set(told)) == sorted(told), "and each row once"
    assert crashes > 3
    assert left - counted, "the control: a cursor that counts misses somebody"


async def test_a_topic_whose_own_rule_changed_has_no_such_feed(
    conn: asyncpg.Connection, export: Export, shared_catalogue: Catalogue, now: datetime
) -> None:
    assert (await leaving.page(conn, export, shared_catalogue, None, now=now))[0] == []
    text = (Path(__file__).parent / "catalogue.toml").read_text(encoding="utf-8")
    stricter, retired = (
        parse(text.replace('number = 16\nconsent = "opt-out"', f"number = 16\n{line}", 1))
        for line in ('consent = "opt-in"', "retired = true")
    )
    for wrong, catalogue, error in (
        (export, stricter, Outdated),
        (export, retired, Outdated),
        (replace(export, snapshot=None), shared_catalogue, NotMade),
        (replace(export, expires_at=now), shared_catalogue, Expired),
    ):
        with pytest.raises(error):
            await leaving.page(conn, wrong, catalogue, None, now=now)


async def test_a_cursor_from_before_a_restore_is_refused(
    conn: asyncpg.Connection, export: Export, shared_catalogue: Catalogue, now: datetime
) -> None:
    """Its numbers lie ahead of the database, which would take everything to come for read."""
    with pytest.raises(Unreadable, match="restored"):
        await leaving.page(conn, export, shared_catalogue, Cursor("9000000:9000000:"), now=now)
    with pytest.raises(Unreadable, match="restored"):  # in the middle of what it was reading
        await leaving.page(conn, export, shared_catalogue, Cursor("3:3:", "9000000:9000000:", (1, 3, UUID(int=5), "1")), now=now)
    with pytest.raises(Outdated, match="restored"):  # whoever begins again is told what would help
        await leaving.page(conn, replace(export, snapshot="9000000:9000000:"), shared_catalogue, None, now=now)


async def test_no_reader_stands_on_what_a_crash_would_undo(
    conn: asyncpg.Connection, export: Export, people: list[Address], shared_catalogue: Catalogue, now: datetime
) -> None:
    """What is given up is flushed by nobody, and its number would be given again after a crash: to one who leaves."""
    for n in range(5):
        with suppress(ZeroDivisionError):
            async with conn.transaction():
                await record(conn, [stop(people[1], n, now)], now=now)
                raise ZeroDivisionError
        written = await conn.fetchval("select pg_current_wal_insert_lsn()")
        _, cursor, _ = await leaving.page(conn, export, shared_catalogue, None, now=now)
        assert await conn.fetchval("select pg_current_wal_flush_lsn() >= $1", written), str(cursor)


@pytest.mark.parametrize("snapshot", ["3:3:", "3:9:3,5,8"])
def test_a_cursor_comes_back_as_it_went(snapshot: str) -> None:
    for cursor in (Cursor(snapshot), Cursor(snapshot, "10:12:11", (7, 3, UUID(int=5), "link:é"))):
        assert leaving.read(str(cursor)) == cursor


@pytest.mark.parametrize(
    "snapshot", ["", "x", "3:2:", "0:1:", "3:5:5", "3:5:2", "3:5:4,4", "3:5:4,3", "٣:٥:", "1_0:2_0:", " 3:5:", "3:5:4,",
                 "3:5", f"3:{1 << 63}:", 7, None],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(snapshot: str) -> None:
    with pytest.raises(Unreadable):
        leaving.read(str(Cursor(snapshot)))
    for text in ("", "é", "x", "e30", "bnVsbA", "A" * 5000):
        with pytest.raises(Unreadable):
            leaving.read(text)


@pytest.mark.parametrize(
    "place", [(1.0, 3, UUID(int=5), "1"), (1, 3.5, UUID(int=5), "1"), (True, 3, UUID(int=5), "1"), (1, 1024, UUID(int=5), "1"),
              (-1, 3, UUID(int=5), "1"), (1, 3, UUID(int=5), 7), (1, 3, UUID(int=5), "\0"), (1, 3, UUID(int=5), "\ud800")],
)  # fmt: skip
def test_no_place_in_a_cursor_reaches_the_database_that_is_none_there(place: Any) -> None:
    with pytest.raises(Unreadable):
        leaving.read(str(Cursor("3:5:", "3:9:", place)))
    leaving.read(str(Cursor("3:5:", "3:9:", (1, 3, UUID(int=5), "1"))))  # the control
