"""What is held leaves whole: another tool holds the same after it, and an affiliate learns nobody it does not know."""

from __future__ import annotations

import hmac
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta

import asyncpg
import pytest

from mailprefs import bulk, directory, ledger, rows, suppressions
from mailprefs.addresses import Addresses
from mailprefs.bulk import Import
from mailprefs.catalogue import Catalogue
from mailprefs.directory import Entry
from mailprefs.errors import Misconfigured
from mailprefs.links import KeyRing
from mailprefs.suppressions import COLUMNS, HASHED, Handover, Spelling
from mailprefs.words import Address, Cause, Change, Door, Effect

pytestmark = pytest.mark.spread

KEY = b"the taker's own key"


async def out(conn: asyncpg.Connection, known: Catalogue, spell: Spelling, now: datetime) -> tuple[str, Handover]:
    done = Handover()
    chunks = [chunk async for chunk in suppressions.stream(conn, known, spell, done, now=now, progress=lambda _more: None)]
    return b"".join(chunks).decode(), done


@pytest.fixture
async def past(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    texts = ["Jane@Example.org", "kim@example.org", "jérôme@bücher.example", "+12025550123", "back@example.org", "soft@example.org"]
    jane, kim, jerome, phone, back, soft = (addresses.read(text) for text in texts)
    nobody = Address(addresses.read("nobody@example.org").key)
    await directory.know(conn, [Entry(each) for each in (jane, kim, jerome, phone, back, soft)], now=now)
    stop, link = Effect.STOP, Door.LINK
    await ledger.record(
        conn,
        [
            Change(jane, 272, Cause.CHOICE, stop, link, "1", now),
            Change(jane, 257, Cause.COMPLAINT, stop, Door.PROVIDER, "2", now, by="sendgrid-main"),
            Change(kim, 0, Cause.BOUNCE, stop, Door.PROVIDER, "3", now - timedelta(days=3), by="sendgrid-main"),
            Change(jerome, 259, Cause.MINOR, stop, Door.STAFF, "4", now, by="someone"),
            Change(jerome, 259, Cause.CHOICE, stop, link, "5", now),
            Change(phone, 256, Cause.CHOICE, stop, Door.SMS, "6", now),
            Change(back, 272, Cause.CHOICE, stop, link, "7", now - timedelta(days=9)),
            Change(soft, 0, Cause.SOFT, stop, Door.PROVIDER, "8", now, now + timedelta(days=9), by="sendgrid-main"),
            Change(nobody, 272, Cause.CHOICE, stop, link, "9", now),
        ],
        now=now,
    )
    await ledger.record(conn, [Change(back, 272, Cause.CHOICE, Effect.GO, Door.MANAGE, "10", now)], now=now)


@pytest.fixture
async def successor(
    knowing: Callable[[Catalogue, KeyRing], AbstractAsyncContextManager[str]], shared_catalogue: Catalogue, ring: KeyRing
) -> AsyncIterator[asyncpg.Connection]:
    async with knowing(shared_catalogue, ring) as url:
        connection = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
        yield connection
        await connection.close()


async def test_a_successor_that_imports_it_holds_the_same(
    conn: asyncpg.Connection, successor: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime, past: None
) -> None:
    text, done = await out(conn, shared_catalogue, suppressions.spelled, now)
    assert (done.rows, done.nameless, done.ending) == (6, 1, 1)
    importer, refused = Import(addresses, shared_catalogue, now), []
    found = rows.read(io.StringIO(",".join(COLUMNS) + "\n" + text, newline=""))[1]
    tally = await bulk.run(
        successor, found, importer.suppression, bulk.changes, now=now,
        reject=lambda row, reason: refused.append(reason), progress=lambda _more: None,
    )  # fmt: skip
    assert (refused, tally.added) == ([], 6)
    held = "select key, scope, cause, off_at from standing where held and until = 'infinity' order by 1, 2, 3"
    ours = [row for row in await conn.fetch(held) if row["key"] != addresses.read("nobody@example.org").key]
    assert await successor.fetch(held) == ours
    for row in rows.read(io.StringIO(",".join(COLUMNS) + "\n" + text, newline=""))[1]:  # a stop alone tells nobody's text
        await directory.know(successor, [Entry(addresses.read(row.fields["address"]))], now=now)
    again, _ = await out(successor, shared_catalogue, suppressions.spelled, now)
    assert [line.split(",")[:4] for line in again.splitlines()] == [line.split(",")[:4] for line in text.splitlines()]


async def test_a_taker_finds_those_it_knows_and_nobody_else(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, now: datetime, past: None
) -> None:
    text, done = await out(conn, shared_catalogue, suppressions.hashed(KEY), now)
    lines = {tuple(line.split(",")) for line in text.splitlines()}
    assert len(HASHED) == 2
    assert (done.rows, len(lines)) == (4, 4), "two causes at one scope are one row, and a bounce is nobody's wish"

    def hashed(canonical: str) -> str:
        return hmac.digest(KEY, canonical.encode(), "sha256").hex()

    assert lines == {
        (hashed("jane@example.org"), "connective/newsletter"),
        (hashed("jane@example.org"), "connective/marketing"),
        (hashed("jérôme@xn--bcher-kva.example"), "connective/ads"),
        (hashed("+12025550123"), "connective"),
    }
    assert "@" not in text
    other, _ = await out(conn, shared_catalogue, suppressions.hashed(KEY + b"!"), now)
    assert not {line[:64] for line in other.splitlines()} & {line[:64] for line in text.splitlines()}


def test_a_key_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(Misconfigured):
        suppressions.hashed(b"x" * 15)
    suppressions.hashed(b"x" * 16)
