"""Many presses, one commit: each is answered after the commit that holds it, whatever becomes of its neighbours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote, unquote
from uuid import UUID

import asyncpg
import pytest

from mailprefs import db, groupcommit, ledger
from mailprefs.addresses import Addresses
from mailprefs.errors import Busy, NotEntitled, Unavailable, Unsure
from mailprefs.groupcommit import GroupCommit
from mailprefs.words import Address, Cause, Change, Door, Effect

MARKETING, NEWSLETTER, OFFERS, UNKNOWN = 257, 272, 273, 511
COMMITS = "select count(distinct position) from consent"


@pytest.fixture
def people(addresses: Addresses) -> list[Address]:
    return [addresses.read(f"p{n}@example.org") for n in range(400)]


@pytest.fixture
async def pool(database: str) -> AsyncIterator[db.Pool]:
    made = await db.pool(database, size=groupcommit.WRITERS, command_timeout=20, purpose="test")
    yield made
    made.terminate()


@pytest.fixture
async def presses(pool: db.Pool) -> AsyncIterator[GroupCommit]:
    group = GroupCommit(pool)
    async with group.running():
        yield group


def stop(address: Address, now: datetime, scope: int = NEWSLETTER, *, door: Door = Door.LINK, id: str = "1") -> Change:
    return Change(address, scope, Cause.CHOICE, Effect.STOP, door, id, now)


@asynccontextmanager
async def held_up(database: str) -> AsyncIterator[None]:
    """Let no write through meanwhile: whatever is pressed waits."""
    other = await asyncpg.connect(database)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("lock table address in share mode")
    try:
        yield
    finally:
        await transaction.rollback()
        await other.close()


async def waiting(conn: asyncpg.Connection) -> None:
    """Return when a writer waits for a lock."""
    while not await conn.fetchval("select exists (select from pg_locks where not granted)"):
        await asyncio.sleep(0.01)


async def test_what_is_pressed_at_once_is_one_commit_or_two(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    assert all(await asyncio.gather(*(presses.record(stop(p, now), now=now) for p in people)))
    assert await conn.fetchval("select count(*) from consent") == len(people)
    assert await conn.fetchval(COMMITS) <= 2


async def test_the_control_one_after_another_each_is_a_commit(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    for person in people[:20]:
        assert await presses.record(stop(person, now), now=now)
    assert await conn.fetchval(COMMITS) == 20


async def test_what_waits_behind_a_commit_is_the_next_one(
    conn: asyncpg.Connection, database: str, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    async with held_up(database):
        first = [asyncio.create_task(presses.record(stop(people[n], now), now=now)) for n in range(2)]
        await waiting(conn)
        rest = [asyncio.create_task(presses.record(stop(p, now), now=now)) for p in people[2:]]
        await asyncio.sleep(0.05)
    assert all(await asyncio.gather(*first, *rest))
    assert await conn.fetchval(COMMITS) <= 1 + groupcommit.WRITERS


async def test_it_is_recorded_before_it_is_answered(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    async def pressed(person: Address) -> None:
        await presses.record(stop(person, now), now=now)
        async with asking:  # another session sees it, so it was committed
            assert await conn.fetchval("select count(*) from consent where key = $1", person.key) == 1

    asking = asyncio.Lock()
    await asyncio.gather(*(pressed(person) for person in people[:100]))


async def test_a_commit_that_fails_acknowledges_nothing(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    # every statement goes through, and the commit itself is refused: whoever answers on the statement answers a lie
    await conn.execute(
        """create function refused() returns trigger language plpgsql as $$ begin
             if new.evidence = 'link:poison' then raise exception 'no'; end if;
             return null;
           end $$;
           create constraint trigger refused after insert on consent deferrable initially deferred
             for each row execute function refused()"""
    )
    changes = [stop(p, now, id="poison" if n in (3, 70) else "1") for n, p in enumerate(people[:100])]
    answers = await asyncio.gather(*(presses.record(change, now=now) for change in changes), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if answer is not True] == [3, 70]
    assert all(isinstance(answers[n], Unavailable) for n in (3, 70))
    assert await conn.fetchval("select count(*) from consent") == 98


async def test_a_press_that_cannot_be_recorded_takes_no_other_along(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    changes = [stop(p, now, UNKNOWN if n == 50 else NEWSLETTER) for n, p in enumerate(people[:100])]
    answers = await asyncio.gather(*(presses.record(change, now=now) for change in changes), return_exceptions=True)
    assert isinstance(answers.pop(50), NotEntitled)
    assert answers == [True] * 99
    assert await conn.fetchval("select count(*) from consent") == 99


async def test_what_no_door_may_do_is_refused_before_it_waits(presses: GroupCommit, people: list[Address], now: datetime) -> None:
    with pytest.raises(NotEntitled):
        await presses.record(replace(stop(people[0], now), effect=Effect.GO), now=now)
    assert await presses.record(stop(people[0], now), now=now)


async def test_presses_of_one_address_keep_their_order_in_commits_of_their_own(
    conn: asyncpg.Connection, database: str, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    jane, john = people[:2]
    made = stop(jane, now, door=Door.PAGE, id="form")
    async with held_up(database):  # so that all of them wait at once
        tasks = [asyncio.create_task(presses.record(stop(john, now, id="0"), now=now))]
        await waiting(conn)
        following = (
            made,
            ledger.withdrawal(made, now=now),
            stop(jane, now, MARKETING),
            stop(jane, now, OFFERS, id="2"),
            stop(john, now, OFFERS),
        )
        tasks += [asyncio.create_task(presses.record(change, now=now)) for change in following]
        await asyncio.sleep(0.05)
    assert all(await asyncio.gather(*tasks))
    rows = await conn.fetch("select scope, effect from consent where key = $1 order by position::text::bigint", jane.key)
    assert [tuple(row) for row in rows] == [(NEWSLETTER, "stop"), (NEWSLETTER, "withdraw"), (MARKETING, "stop"), (OFFERS, "stop")]
    assert await conn.fetchval("select count(distinct position) from consent where key = $1", jane.key) == 4


async def test_one_link_pressed_a_hundred_times_at_once_is_one_row_and_nobodys_own(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    answers = await asyncio.gather(*(presses.record(stop(people[0], now, id=str(n)), now=now) for n in range(100)))
    assert answers == [False] * 100
    assert await conn.fetchval("select count(*) from consent") == 1
    assert await presses.record(stop(people[1], now), now=now), "the control: alone, it is"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_presses_that_share_a_row_count_from_the_latest_of_them(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime, order: tuple[int, ...]
) -> None:
    """Whoever came back in between, elsewhere, and pressed again, is stopped."""
    times = [now + n * timedelta(minutes=1) for n in range(3)]
    await asyncio.gather(*(presses.record(stop(people[0], times[n], id=str(n)), now=times[n]) for n in order))
    (row,) = await conn.fetch("select at, received_at from consent")
    assert (row["at"], row["received_at"]) == (times[2], times[2])


async def test_one_link_pressed_endlessly_has_one_row_waiting_and_shuts_nobody_out(
    conn: asyncpg.Connection, database: str, pool: db.Pool, people: list[Address], now: datetime
) -> None:
    group = GroupCommit(pool, most=50)
    async with group.running():
        async with held_up(database):
            tasks = [asyncio.create_task(group.record(stop(people[0], now, id="0"), now=now))]
            await waiting(conn)
            tasks += [asyncio.create_task(group.record(stop(people[0], now, id=str(n)), now=now)) for n in range(1, 2_000)]
            await asyncio.sleep(0.1)
            tasks += [asyncio.create_task(group.record(stop(person, now), now=now)) for person in people[1:40]]
            await asyncio.sleep(0.1)
        answers = await asyncio.gather(*tasks)
    assert [n for n, new in enumerate(answers) if new] == [0, *range(2_000, 2_039)]
    assert await conn.fetchval("select count(*) from address where stops = '{272}'") == 40


async def test_presses_of_several_forms_that_share_a_row_are_undone_by_none_of_them(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    jane, john = people[:2]
    forms = [stop(jane, now, door=Door.PAGE, id=id) for id in ("hers", "anothers")]
    assert await asyncio.gather(*(presses.record(form, now=now) for form in forms)) == [False, False]
    for form in forms:
        await presses.record(ledger.withdrawal(form, now=now), now=now)
    assert await conn.fetchval("select stops from address where key = $1", jane.key) == [NEWSLETTER]
    reloaded = stop(john, now, door=Door.PAGE, id="his")
    assert await asyncio.gather(*(presses.record(reloaded, now=now) for _ in range(2))) == [True, False]
    await presses.record(ledger.withdrawal(reloaded, now=now), now=now)
    assert await conn.fetchval("select stops from address where key = $1", john.key) is None, "the control: one form alone can be undone"


async def test_a_stop_after_a_go_joins_none_from_before_it(
    conn: asyncpg.Connection, database: str, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    jane, go = people[0], replace(stop(people[0], now, door=Door.MANAGE, id="go"), effect=Effect.GO)
    async with held_up(database):
        tasks = [asyncio.create_task(presses.record(stop(jane, now, OFFERS), now=now))]
        await waiting(conn)
        following = (stop(jane, now, id="1"), stop(jane, now, id="2"), go, stop(jane, now, id="3"), stop(jane, now, id="4"))
        tasks += [asyncio.create_task(presses.record(change, now=now)) for change in following]
        await asyncio.sleep(0.05)
    await asyncio.gather(*tasks)
    rows = await conn.fetch("select effect from consent where scope = $1 order by position::text::bigint", NEWSLETTER)
    assert [row["effect"] for row in rows] == ["stop", "go", "stop"]
    assert await conn.fetchval("select stops from address where key = $1", jane.key) == [NEWSLETTER, OFFERS]


async def test_who_takes_back_endlessly_is_told_to_come_back_and_can_still_stop(
    conn: asyncpg.Connection, database: str, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    jane = people[0]
    async with held_up(database):
        first = asyncio.create_task(presses.record(stop(jane, now, OFFERS), now=now))
        await waiting(conn)
        made = [stop(jane, now, door=Door.PAGE, id=str(n)) for n in range(groupcommit.OF_ONE + 10)]
        undone = [asyncio.create_task(presses.record(ledger.withdrawal(each, now=now), now=now)) for each in made]
        await asyncio.sleep(0.05)
        last = asyncio.create_task(presses.record(stop(jane, now, id="2"), now=now))
        await asyncio.sleep(0.05)
    assert all(await asyncio.gather(first, last))
    answers = await asyncio.gather(*undone, return_exceptions=True)
    assert [type(answer) for answer in answers] == [bool] * groupcommit.OF_ONE + [Busy] * 10


async def test_one_slow_address_takes_no_other_along(conn: asyncpg.Connection, database: str, people: list[Address], now: datetime) -> None:
    pool = await db.pool(database, size=groupcommit.WRITERS, command_timeout=1, purpose="test")
    other = await asyncpg.connect(database)
    group, slow = GroupCommit(pool), people[50]
    async with group.running():
        assert await group.record(stop(slow, now), now=now)
        async with other.transaction():
            await other.execute("select from address where bucket = $1 and key = $2 for update", slow.bucket, slow.key)
            changes = [stop(person, now, OFFERS, id="2") for person in people[:100]]
            answers = await asyncio.gather(*(group.record(change, now=now) for change in changes), return_exceptions=True)
        assert isinstance(answers.pop(50), Unavailable)
        assert answers == [True] * 99
        assert await group.record(stop(slow, now, OFFERS, id="3"), now=now), "and when nobody holds it any more, it is recorded"
    pool.terminate()
    await other.close()


async def test_where_everybody_is_slow_all_are_told_so_soon(
    conn: asyncpg.Connection, database: str, people: list[Address], now: datetime
) -> None:
    pool = await db.pool(database, size=groupcommit.WRITERS, command_timeout=1, purpose="test")
    group = GroupCommit(pool)
    async with group.running():
        async with held_up(database), asyncio.timeout(30):
            answers = await asyncio.gather(*(group.record(stop(p, now), now=now) for p in people), return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}
        assert await group.record(stop(people[0], now), now=now)
    pool.terminate()


async def test_a_commit_that_no_standby_confirmed_is_not_acknowledged(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    assert await presses.record(stop(people[0], now), now=now), "the control"
    await conn.execute(
        """create function unconfirmed() returns trigger language plpgsql as $$ begin
             raise warning 'canceling wait for synchronous replication due to user request';
             return null;
           end $$;
           create constraint trigger unconfirmed after insert on consent deferrable initially deferred
             for each row execute function unconfirmed()"""
    )
    with pytest.raises(Unavailable):
        await presses.record(stop(people[1], now), now=now)
    assert await conn.fetchval("select count(*) from consent") == 2, "it is committed here, and would be lost with this server"


async def test_who_hangs_up_is_recorded_all_the_same(
    conn: asyncpg.Connection, database: str, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    async with held_up(database):
        tasks = [asyncio.create_task(presses.record(stop(p, now), now=now)) for p in people[:60]]
        await waiting(conn)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.sleep(0)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == [True] * 30
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    assert await presses.record(stop(people[99], now), now=now), "and the writers go on"
    assert await conn.fetchval("select count(*) from consent") == 61


async def test_too_many_are_told_to_come_back_and_those_who_wait_are_recorded(
    conn: asyncpg.Connection, database: str, pool: db.Pool, people: list[Address], now: datetime
) -> None:
    group = GroupCommit(pool, most=50)
    async with group.running():
        async with held_up(database):
            first = [asyncio.create_task(group.record(stop(people[0], now), now=now))]
            await waiting(conn)
            first.append(asyncio.create_task(group.record(stop(people[1], now), now=now)))
            await asyncio.sleep(0.05)  # both writers have one in hand
            rest = [asyncio.create_task(group.record(stop(p, now), now=now)) for p in people[2:]]
            _, busy = await asyncio.wait(rest, timeout=0.1)
            refused = [task for task in rest if task not in busy]
            assert len(busy) == 50
            assert all(isinstance(task.exception(), Busy) for task in refused)
        assert all(await asyncio.gather(*first, *busy))
        assert await group.record(stop(people[-1], now), now=now), "and there is room again"
    assert await conn.fetchval("select count(*) from consent") == 53


async def test_the_end_records_who_waits_and_takes_in_nobody_more(
    conn: asyncpg.Connection, database: str, pool: db.Pool, people: list[Address], now: datetime
) -> None:
    group = GroupCommit(pool)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(group.record(stop(people[0], now), now=now), 5)
    running = group.running()
    await running.__aenter__()
    async with held_up(database):
        tasks = [asyncio.create_task(group.record(stop(p, now), now=now)) for p in people]
        await waiting(conn)
        ending = asyncio.create_task(running.__aexit__(None, None, None))
        await asyncio.sleep(0.05)
        assert not ending.done()
        with pytest.raises(Unavailable, match="stopping"):
            await asyncio.wait_for(group.record(stop(people[0], now, OFFERS), now=now), 5)
    await ending
    assert all(await asyncio.gather(*tasks))
    assert await conn.fetchval("select count(*) from consent") == len(people)


class Wire:
    """A socket before the server's, which can be cut: what is under way is lost, and nobody gets through."""

    def __init__(self, database: str, folder: Path) -> None:
        found = re.search(r"host=([^&]+)&port=(\d+)|@([^/:]+)(?::(\d+))?/", database)
        assert found
        self.url = re.sub(r"host=[^&]+", f"host={quote(str(folder), safe='')}", database)
        self._target = Path(unquote(found[1])) / f".s.PGSQL.{found[2]}"
        self._path = folder / f".s.PGSQL.{found[2]}"
        self._under_way: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def mend(self) -> None:
        self._server = await asyncio.start_unix_server(self._joined, self._path)

    async def cut(self) -> None:
        assert self._server
        self._server.close()
        self._path.unlink(missing_ok=True)
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._under_way.add(task)
        ends = [writer]
        try:
            far, there = await asyncio.open_unix_connection(self._target)
            ends.append(there)
            await asyncio.gather(_pour(reader, there), _pour(far, writer))
        finally:
            self._under_way.discard(task)
            for end in ends:
                end.transport.abort()


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await source.read(65_536):
            sink.write(chunk)
            await sink.drain()
    sink.close()


async def test_without_its_database_each_press_is_told_so_and_with_it_the_next_is_recorded(
    conn: asyncpg.Connection, database: str, people: list[Address], now: datetime, tmp_path: Path
) -> None:
    if "host=" not in database:
        pytest.skip("this server is reached without a Unix socket")
    wire = Wire(database, tmp_path)
    await wire.mend()
    pool = await db.pool(wire.url, size=groupcommit.WRITERS, command_timeout=5, purpose="test")
    group = GroupCommit(pool)
    async with group.running():
        assert await group.record(stop(people[0], now), now=now), "the control: through the whole wire it is recorded"
        async with held_up(database):
            under_way = [asyncio.create_task(group.record(stop(p, now), now=now)) for p in people[1:50]]
            await waiting(conn)
            await wire.cut()
            answers = await asyncio.gather(*under_way, return_exceptions=True)
            assert {type(answer) for answer in answers} == {Unsure}, "the server had them"
        answers = await asyncio.gather(*(group.record(stop(p, now), now=now) for p in people), return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}
        assert all(str(p.text) not in str(answer) for p, answer in zip(people, answers, strict=True))
        await wire.mend()
        assert await asyncio.gather(*(group.record(stop(p, now, OFFERS, id="2"), now=now) for p in people)) == [True] * len(people)
    assert await conn.fetchval("select count(*) from consent where scope = $1", OFFERS) == len(people)
    pool.terminate()
    await wire.cut()


async def test_writers_beside_others_lose_nothing_and_do_not_wait_in_a_circle(
    conn: asyncpg.Connection, database: str, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    few = people[:30]
    pressed: set[tuple[UUID, int]] = set()

    async def person(n: int) -> None:
        for turn in range(4):
            scope = (NEWSLETTER, OFFERS, MARKETING)[(n + turn) % 3]
            await presses.record(stop(few[(n * 7 + turn) % 30], now, scope, door=Door.PAGE, id=f"{n}-{turn}"), now=now)
            pressed.add((few[(n * 7 + turn) % 30].key, scope))

    async def provider(n: int) -> None:
        other = await asyncpg.connect(database)
        for turn in range(15):
            batch = [stop(p, now, NEWSLETTER, door=Door.PROVIDER, id=f"{n}-{turn}-{p.key}") for p in few]
            await ledger.record(other, batch if turn % 2 else batch[::-1], now=now)
        await other.close()

    await asyncio.gather(*(person(n) for n in range(100)), provider(1), provider(2))
    rows = await conn.fetch("select distinct key, scope from consent where door = 'page'")
    assert {(row["key"], row["scope"]) for row in rows} == pressed
    assert await conn.fetchval("select count(*) from consent where door = 'provider'") == 900
    assert await ledger.differing(conn) == 0


async def test_a_clock_behind_its_neighbours_loses_no_press(
    conn: asyncpg.Connection, presses: GroupCommit, people: list[Address], now: datetime
) -> None:
    times = [now - timedelta(hours=n) for n in range(10)]
    answers = await asyncio.gather(*(presses.record(stop(p, at), now=at) for p, at in zip(people, times, strict=False)))
    assert answers == [True] * 10
    assert await conn.fetchval("select count(*) from consent where at >= $1", times[-1]) == 10
