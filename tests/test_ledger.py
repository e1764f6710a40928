"""What the ledger promises, on the real thing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from mailprefs import ledger
from mailprefs.addresses import Addresses
from mailprefs.errors import NotEntitled
from mailprefs.words import Address, Cause, Change, Door, Effect

pytestmark = pytest.mark.spread

MARKETING, NEWSLETTER, OFFERS, ORDERS, RECOVERY = 257, 272, 273, 288, 276


@pytest.fixture
def jane(addresses: Addresses) -> Address:
    return addresses.read("jane@example.org")


def stop(address: Address, scope: int, now: datetime, *, door: Door = Door.LINK, id: str = "1", cause: Cause = Cause.CHOICE) -> Change:
    return Change(address, scope, cause, Effect.STOP, door, id, now)


def bounce(address: Address, now: datetime, *, id: str = "b") -> Change:
    return stop(address, 0, now, door=Door.PROVIDER, id=id, cause=Cause.BOUNCE)


async def pushes(conn: asyncpg.Connection) -> list[tuple[str, int, bool]]:
    rows = await conn.fetch("select name, scope, stop from push join account using (account) order by name, scope")
    return [(row["name"], row["scope"], row["stop"]) for row in rows]


async def summary(conn: asyncpg.Connection, address: Address) -> asyncpg.Record:
    row = await conn.fetchrow("select stops, goes, grants, claims, pauses from address where key = $1", address.key)
    assert row is not None
    return row


async def test_the_same_fact_twice_is_one_row(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    change = stop(jane, NEWSLETTER, now, door=Door.PROVIDER)
    assert await ledger.record(conn, [change, change], now=now) == [True, False]
    assert await ledger.record(conn, [change], now=now) == [False]
    assert await conn.fetchval("select count(*) from consent") == 1


async def test_one_click_twice_adds_no_second_row(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [stop(jane, NEWSLETTER, now)], now=now)
    assert await ledger.record(conn, [stop(jane, NEWSLETTER, now, id="2")], now=now) == [False]
    assert (await summary(conn, jane))["stops"] == [NEWSLETTER]


async def test_a_link_stops_again_after_a_go(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [stop(jane, NEWSLETTER, now)], now=now)
    await ledger.record(conn, [Change(jane, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", now)], now=now)
    assert (await summary(conn, jane))["stops"] is None
    assert await ledger.record(conn, [stop(jane, NEWSLETTER, now, id="2")], now=now) == [True]
    assert (await summary(conn, jane))["stops"] == [NEWSLETTER]


async def test_a_press_through_another_door_is_a_row_of_its_own(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [stop(jane, NEWSLETTER, now)], now=now)
    assert await ledger.record(conn, [stop(jane, NEWSLETTER, now, door=Door.PAGE)], now=now) == [True]


async def test_a_page_press_can_be_repeated_while_the_first_can_be_undone(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    """And for a day more: an undo runs from when its press was answered, and a clock can be set back."""
    await ledger.record(conn, [stop(jane, NEWSLETTER, now, door=Door.PAGE)], now=now)
    assert await ledger.record(conn, [stop(jane, NEWSLETTER, now, door=Door.PAGE, id="2")], now=now + ledger.UNDO * 2) == [True]
    later = now + ledger.UNDO * 2 + ledger.SURE + timedelta(seconds=1)
    assert await ledger.record(conn, [stop(jane, NEWSLETTER, later, door=Door.PAGE, id="3")], now=later) == [False]


async def test_undo_takes_back_its_own_stop_alone(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    pressed = stop(jane, NEWSLETTER, now, door=Door.PAGE)
    await ledger.record(conn, [pressed, stop(jane, NEWSLETTER, now)], now=now)
    await ledger.record(conn, [ledger.withdrawal(pressed, now=now)], now=now)
    assert (await summary(conn, jane))["stops"] == [NEWSLETTER]


async def test_undo_of_the_only_stop_empties_the_summary(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    pressed = stop(jane, NEWSLETTER, now, door=Door.PAGE)
    await ledger.record(conn, [pressed], now=now)
    await ledger.record(conn, [ledger.withdrawal(pressed, now=now)], now=now)
    assert (await summary(conn, jane))["stops"] is None


async def test_undo_before_its_stop_works_too(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    pressed = stop(jane, NEWSLETTER, now, door=Door.PAGE)
    await ledger.record(conn, [ledger.withdrawal(pressed, now=now)], now=now)
    await ledger.record(conn, [pressed], now=now)
    assert (await summary(conn, jane))["stops"] is None


@pytest.mark.parametrize("cause", [Cause.CHOICE, Cause.PAUSE])
async def test_no_choice_by_email_lands_outside_marketing(conn: asyncpg.Connection, jane: Address, now: datetime, cause: Cause) -> None:
    until = now + timedelta(days=1) if cause is Cause.PAUSE else None
    for scope in (ORDERS, 258, 256):
        change = replace(stop(jane, scope, now, cause=cause, door=Door.PAGE), until=until)
        with pytest.raises(NotEntitled):
            await ledger.record(conn, [change], now=now)
    assert await conn.fetchval("select count(*) from consent") == 0


async def test_a_scope_that_nobody_knows_is_refused(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    with pytest.raises(NotEntitled):
        await ledger.record(conn, [stop(jane, 300, now)], now=now)


async def test_a_stop_of_marketing_reaches_the_groups_of_every_topic(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [stop(jane, MARKETING, now)], now=now)
    assert await pushes(conn) == [("sendgrid-main", 272, True), ("sendgrid-main", 273, True), ("sendgrid-second", 272, True)]


async def test_whoever_told_us_is_not_told_back(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    heard = replace(stop(jane, NEWSLETTER, now, door=Door.PROVIDER, id="sendgrid-main/e1"), by="sendgrid-main")
    await ledger.record(conn, [heard], now=now)
    assert await pushes(conn) == [("sendgrid-second", 272, True)]


async def test_a_provider_that_says_resubscribed_is_told_stop_again(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [stop(jane, NEWSLETTER, now)], now=now)
    await conn.execute("delete from push")
    note = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.NOTE, Door.PROVIDER, "sendgrid-main/e2", now, by="sendgrid-main")
    await ledger.record(conn, [note], now=now)
    assert await pushes(conn) == [("sendgrid-main", 272, True)]
    await conn.execute("delete from push")
    await ledger.record(conn, [note], now=now)
    assert await pushes(conn) == []  # the same event again is no news


async def test_a_second_stop_of_what_is_stopped_tells_nobody(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [stop(jane, MARKETING, now)], now=now)
    await conn.execute("delete from push")
    await ledger.record(conn, [stop(jane, NEWSLETTER, now), stop(jane, MARKETING, now, door=Door.PAGE)], now=now)
    assert await pushes(conn) == []


async def test_a_bounce_and_a_sensitive_topic_are_told_to_nobody(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    bounce = stop(jane, 0, now, door=Door.PROVIDER, cause=Cause.BOUNCE)
    await ledger.record(conn, [bounce, stop(jane, RECOVERY, now)], now=now)
    assert (await summary(conn, jane))["stops"] == [0, RECOVERY]
    assert await pushes(conn) == []


async def test_who_is_new_and_told_to_nobody_is_written_once(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    """A row that is written twice takes twice the room, and an index that takes twice the room is slower to look into."""
    written = "select n_tup_upd from pg_stat_xact_user_tables where relname = 'address'"
    async with conn.transaction():
        await ledger.record(conn, [stop(jane, 0, now, door=Door.PROVIDER, cause=Cause.BOUNCE)], now=now)
        assert await conn.fetchval(written) == 0
        await ledger.record(conn, [stop(jane, NEWSLETTER, now)], now=now)  # the control: somebody known is written again
        assert await conn.fetchval(written) > 0
    assert (await summary(conn, jane))["stops"] == [0, NEWSLETTER]


async def test_what_somebody_new_is_taken_to_hold_gives_way_to_the_ledger(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    """Each call is about somebody new, on scopes that no account is told of."""
    people = [addresses.read(f"new{n}@example.org") for n in range(5)]
    page, bounce = (stop(people[0], RECOVERY, now, door=Door.PAGE), stop(people[0], 0, now, door=Door.PROVIDER, cause=Cause.BOUNCE))
    soft = replace(bounce, cause=Cause.SOFT, until=now + timedelta(days=1))
    go = Change(people[0], RECOVERY, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", now)
    calls = [
        [page, go],
        [page, ledger.withdrawal(page, now=now)],
        [soft],
        [bounce, replace(bounce, effect=Effect.NOTE, id="n")],
        [bounce, page],
    ]
    for person, changes in zip(people, calls, strict=True):
        await ledger.record(conn, [replace(change, address=person) for change in changes], now=now)
    assert [(await summary(conn, person))["stops"] for person in people] == [None, None, None, [0], [0, RECOVERY]]
    assert await ledger.differing(conn) == 0


async def test_who_is_new_and_stopped_for_good_is_not_folded(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    looked = "select idx_scan from pg_stat_xact_user_tables where relname = 'consent'"
    async with conn.transaction():
        await ledger.record(conn, [bounce(jane, now)], now=now)
        unknown = await conn.fetchval(looked)
        await ledger.record(conn, [bounce(jane, now, id="2")], now=now)  # the control: now something is known of her
        assert await conn.fetchval(looked) - unknown >= unknown + 2
    assert await ledger.differing(conn) == 0


async def test_of_bounces_in_one_call_those_of_somebody_known_are_folded(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    """Each of the others is known in another way; what they were told of before counts as much as the bounce."""
    stopped, forgiven, met, new = (addresses.read(f"{name}@example.org") for name in ("stopped", "forgiven", "met", "new"))
    await ledger.record(conn, [stop(stopped, RECOVERY, now)], now=now)
    await ledger.record(conn, [replace(bounce(forgiven, now), effect=Effect.GO, door=Door.STAFF)], now=now)
    await conn.execute("insert into address (bucket, key) values ($1, $2)", met.bucket, met.key)
    early = now - timedelta(hours=1)
    await ledger.record(conn, [bounce(person, early) for person in (stopped, forgiven, met, new)], now=now)
    assert [(await summary(conn, person))["stops"] for person in (stopped, forgiven, met, new)] == [[0, RECOVERY], None, [0], [0]]
    assert await ledger.differing(conn) == 0


async def test_one_fact_told_of_two_scopes_holds_the_one_that_was_recorded(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    by_staff = stop(jane, ORDERS, now, door=Door.STAFF, cause=Cause.STAFF)
    assert sorted(await ledger.record(conn, [by_staff, replace(by_staff, scope=258)], now=now)) == [False, True]
    assert len((await summary(conn, jane))["stops"]) == 1
    assert await ledger.differing(conn) == 0


async def test_nobody_is_new_who_was_recorded_while_a_call_waited(
    conn: asyncpg.Connection, database: str, jane: Address, now: datetime
) -> None:
    other = await asyncpg.connect(database)
    try:
        async with conn.transaction():
            await ledger.record(conn, [stop(jane, ORDERS, now, door=Door.STAFF, cause=Cause.STAFF)], now=now)
            waiting = asyncio.create_task(ledger.record(other, [bounce(jane, now)], now=now))
            while not await conn.fetchval("select count(*) from pg_locks where pid = $1 and not granted", other.get_server_pid()):
                assert not waiting.done()
                await asyncio.sleep(0.01)
        assert await waiting == [True]
    finally:
        await other.close()
    assert (await summary(conn, jane))["stops"] == [0, ORDERS]
    assert await ledger.differing(conn) == 0


async def test_an_address_known_by_key_waits_to_be_told(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [stop(Address(jane.key), NEWSLETTER, now)], now=now)
    assert await conn.fetchval("select count(*) from push where due_at = 'infinity'") == 2


async def test_writers_at_once_lose_nothing_and_do_not_deadlock(database: str, addresses: Addresses, now: datetime) -> None:
    people = [addresses.read(f"p{n}@example.org") for n in range(40)]
    scopes = [NEWSLETTER, OFFERS, 274, 275]

    async def writer(offset: int) -> None:
        connection = await asyncpg.connect(database)
        for turn in range(10):
            batch = [stop(p, scopes[(n + turn + offset) % 4], now, id=f"{offset}-{turn}-{n}") for n, p in enumerate(people)]
            await ledger.record(connection, batch[turn::2] + batch[offset::3], now=now)
        await connection.close()

    await asyncio.gather(*(writer(n) for n in range(6)))
    connection = await asyncpg.connect(database)
    assert await ledger.differing(connection) == 0
    assert await connection.fetchval("select count(*) from address where stops = '{272,273,274,275}'") == len(people)
    await connection.close()


async def test_the_check_of_the_summaries_can_fail(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [stop(jane, NEWSLETTER, now)], now=now)
    await conn.execute("update address set stops = null")
    assert await ledger.differing(conn) == 1


async def test_the_check_goes_by_buckets_and_passes_over_none(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    people = [addresses.read(f"p{n}@example.org") for n in range(60)]
    ends = (Address(UUID(int=0)), Address(UUID(int=1023 << 112)))  # the first bucket and the last
    await ledger.record(conn, [stop(each, NEWSLETTER, now) for each in (*people, *ends)], now=now)
    heard: list[int] = []
    assert await ledger.differing(conn, heard.append) == 0
    assert heard == [1] * len({each.bucket for each in (*people, *ends)})
    await conn.execute("update address set stops = null where key = any($1)", [each.key for each in (*people[::2], *ends)])
    assert await ledger.differing(conn) == 32


async def test_two_acts_at_one_moment_keep_their_order(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    go = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", now)
    await ledger.record(conn, [stop(jane, MARKETING, now, door=Door.MANAGE), go], now=now)
    row = await summary(conn, jane)
    assert (row["stops"], row["goes"], row["grants"]) == ([MARKETING], [NEWSLETTER], [NEWSLETTER])


async def test_a_clock_set_back_cannot_undo_an_opt_out(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [Change(jane, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", now)], now=now)
    earlier = now - timedelta(hours=1)
    await ledger.record(conn, [stop(jane, NEWSLETTER, earlier)], now=earlier)
    assert (await summary(conn, jane))["stops"] == [NEWSLETTER]


async def test_a_press_after_a_go_in_the_same_call_counts(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    """Held before the call through the same door, it would add no row; the go beside it would open what was just stopped."""
    await ledger.record(conn, [stop(jane, NEWSLETTER, now)], now=now)
    turned_on = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", now)
    assert await ledger.record(conn, [turned_on, stop(jane, NEWSLETTER, now, id="2")], now=now) == [True, True]
    assert (await summary(conn, jane))["stops"] == [NEWSLETTER]


async def test_a_press_before_a_go_in_the_same_call_does_not_outlast_it(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await ledger.record(conn, [stop(jane, NEWSLETTER, now)], now=now)
    turned_on = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", now)
    assert await ledger.record(conn, [stop(jane, NEWSLETTER, now, id="2"), turned_on], now=now) == [False, True]
    assert (await summary(conn, jane))["stops"] is None
