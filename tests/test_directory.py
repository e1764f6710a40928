"""Whose text we know: what an application says last counts, what it does not say stays, and whoever waited for a text is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg
import pytest

from mailprefs import directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.directory import Entry
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

pytestmark = pytest.mark.spread

NEWSLETTER = 272


@pytest.fixture
def jane(addresses: Addresses) -> Address:
    return addresses.read("Jane@example.org")


async def known(conn: asyncpg.Connection, address: Address) -> tuple[str | None, ...]:
    row = await conn.fetchrow("select channel, plaintext, locale, region, party from address where key = $1", address.key)
    assert row is not None
    return tuple(row)


async def due(conn: asyncpg.Connection) -> list[datetime | None]:
    rows = await conn.fetch("select nullif(due_at, 'infinity') due_at from push order by account, scope")
    return [row["due_at"] for row in rows]


async def stopped(conn: asyncpg.Connection, address: Address, now: datetime) -> None:
    await ledger.record(conn, [Change(address, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)], now=now)


async def test_what_is_new_is_counted_once(conn: asyncpg.Connection, jane: Address, addresses: Addresses, now: datetime) -> None:
    john = addresses.read("john@example.org")
    assert await directory.know(conn, [Entry(jane), Entry(john), Entry(jane)], now=now) == 2
    assert await directory.know(conn, [Entry(jane), Entry(john)], now=now) == 0
    assert await directory.know(conn, [], now=now) == 0


async def test_what_is_said_last_counts_and_what_is_not_said_stays(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await directory.know(conn, [Entry(jane, "en", "US", "p1")], now=now)
    await directory.know(conn, [Entry(jane, "es", None, None)], now=now)
    assert await known(conn, jane) == ("email", "Jane@example.org", "es", "US", "p1")


async def test_two_rows_of_one_call_are_as_good_as_two_calls(
    conn: asyncpg.Connection, jane: Address, addresses: Addresses, now: datetime
) -> None:
    rows = [Entry(jane, "en", None, "p1"), Entry(replace(jane, text="JANE@example.org"), "es", "US", None), Entry(jane)]
    await directory.know(conn, rows, now=now)
    together = await known(conn, jane)
    await conn.execute("delete from address")
    for row in rows:
        await directory.know(conn, [row], now=now)
    assert together == await known(conn, jane) == ("email", "Jane@example.org", "es", "US", "p1")


async def test_knowing_an_address_lifts_nothing(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stopped(conn, jane, now)
    before = await conn.fetchrow("select stops, goes, grants, claims, goes_below, pauses from address")
    assert before is not None
    assert before["stops"] == [NEWSLETTER]
    assert await directory.know(conn, [Entry(jane, "en")], now=now) == 0, "its key was known before its text"
    assert await conn.fetchrow("select stops, goes, grants, claims, goes_below, pauses from address") == before


async def test_a_push_that_waited_for_a_text_is_due_when_it_comes(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stopped(conn, Address(jane.key), now)
    assert await due(conn) == [None, None], "the control: known by key alone, both accounts wait"
    await directory.know(conn, [Entry(jane)], now=now + timedelta(minutes=1))
    assert await due(conn) == [now + timedelta(minutes=1)] * 2


async def test_a_push_that_was_due_already_is_not_put_off(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await directory.know(conn, [Entry(jane)], now=now)
    await stopped(conn, jane, now)
    await directory.know(conn, [Entry(jane, "en")], now=now + timedelta(minutes=1))
    assert await due(conn) == [now] * 2


async def test_a_phone_that_was_known_by_key_owes_the_mail_accounts_nothing(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    phone = addresses.read("+12025550123")
    await stopped(conn, Address(phone.key), now)
    assert len(await due(conn)) == 2, "the control: while only the key was known, it might have been an e-mail address"
    await directory.know(conn, [Entry(phone)], now=now)
    assert await due(conn) == []
    assert (await known(conn, phone))[:2] == (Channel.SMS, "+12025550123")
