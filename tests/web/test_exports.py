"""Kept exports over HTTP: asked for, made by the worker, fetched in parts, and told who left."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import ClientSession, web

from mailprefs import db, exports, seals, worker
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.directory import Entry, know
from mailprefs.exports import Maker
from mailprefs.ledger import record
from mailprefs.links import KeyRing
from mailprefs.settings import Settings
from mailprefs.web.keys import KEPT
from mailprefs.words import Address, Cause, Change, Door, Effect

ASKED = {"topic": "newsletter", "purpose": "the May issue"}
Ask = Callable[..., Awaitable[str]]


@pytest.fixture
def app(app: web.Application, tmp_path: Path) -> web.Application:
    app[KEPT] = tmp_path / "exports"
    return app


@pytest.fixture
async def people(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> list[Address]:
    found = [addresses.read(f"p{n}@example.org") for n in range(20)]
    await know(conn, [Entry(each) for each in found], now=now)
    return found


@pytest.fixture
def maker(app: web.Application, shared_catalogue: Catalogue, ring: KeyRing) -> Maker:
    return Maker(app[KEPT], shared_catalogue, ring, lambda: datetime.now(UTC))


@pytest.fixture
async def ask(base: str, http: ClientSession, bearer: dict[str, str], maker: Maker, conn: asyncpg.Connection, people: list[Address]) -> Ask:
    async def made(**more: Any) -> str:
        """Return the URL of an export that has been made."""
        async with http.post(f"{base}/v1/exports", json={**ASKED, **more}, headers=bearer) as answer:
            assert answer.status == 202
            url = base + answer.headers["Location"]
        assert await maker.round(conn)
        return url

    return made


async def leave(conn: asyncpg.Connection, who: Address) -> None:
    now = datetime.now(UTC)
    await record(conn, [Change(who, 272, Cause.CHOICE, Effect.STOP, Door.LINK, who.key.hex, now)], now=now)


async def test_an_export_is_fetched_in_parts_and_verified(
    http: ClientSession, bearer: dict[str, str], ask: Ask, people: list[Address], ring: KeyRing
) -> None:
    url = await ask(columns=["address"], links=True, compress="gzip")
    async with http.get(url, headers=bearer) as answer:
        said = await answer.json()
    assert (said["state"], said["purpose"]) == ("made", "the May issue")
    assert said["requester"].startswith("key ")
    async with http.get(f"{url}/manifest", headers=bearer) as answer:
        manifest = await answer.read()
    async with http.get(f"{url}/file", headers=bearer) as answer:
        assert (answer.headers.get("Content-Encoding"), answer.content_type) == (None, "application/gzip")
        whole = await answer.read()
    parts = b""
    while len(parts) < len(whole):
        async with http.get(f"{url}/file", headers={**bearer, "Range": f"bytes={len(parts)}-{len(parts) + 99}"}) as answer:
            assert answer.status == 206
            parts += await answer.read()
    facts = exports.verified(io.BytesIO(parts), manifest, seals.public(ring))
    assert facts["count"] == len(people)


async def test_what_is_not_there_says_why(
    base: str, http: ClientSession, bearer: dict[str, str], ask: Ask, conn: asyncpg.Connection, maker: Maker
) -> None:
    async with http.post(f"{base}/v1/exports", json=ASKED, headers=bearer) as answer:
        waiting = base + answer.headers["Location"]
    for path, status in (
        (f"{waiting}/file", 409),
        (f"{waiting}/manifest", 409),
        (f"{waiting}/revoked", 409),
        (f"{base}/v1/exports/00000000-0000-0000-0000-000000000000", 404),
        (f"{base}/v1/exports/x/file", 404),
    ):
        async with http.get(path, headers=bearer) as answer:
            assert answer.status == status, path
            assert answer.content_type == "application/problem+json"
    assert await maker.round(conn)
    await conn.execute("update export set expires_at = now() - interval '1 day'")
    for path, status in ((f"{waiting}/file", 410), (f"{waiting}/revoked", 410), (f"{waiting}/manifest", 200)):
        async with http.get(path, headers=bearer) as answer:
            assert answer.status == status, path


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"topic": "nothing"}, 404),
        ({"purpose": " "}, 400),
        ({"days": 31}, 400),
        ({"columns": ["key"]}, 404),
        ({"format": "xml"}, 400),
        ({"topic": "orders", "links": True}, 422),
        ({"topic": "orders", "columns": ["address", "url"]}, 422),
        ({"more": 1}, 400),
    ],
)
async def test_what_cannot_be_asked_for_is_refused(
    base: str, http: ClientSession, bearer: dict[str, str], conn: asyncpg.Connection, wrong: dict[str, object], status: int
) -> None:
    async with http.post(f"{base}/v1/exports", json={**ASKED, **wrong}, headers=bearer) as answer:
        assert answer.status == status
    assert await conn.fetchval("select count(*) from export") == 0


async def test_who_waits_hears_of_the_next_who_leaves(
    http: ClientSession, bearer: dict[str, str], ask: Ask, conn: asyncpg.Connection, people: list[Address]
) -> None:
    url = await ask() + "/revoked"
    async with http.get(url, headers=bearer) as answer:
        first = await answer.json()
    assert (first["items"], first["more"]) == ([], False)
    waiting = asyncio.create_task(http.get(url, params={"after": first["next"], "wait": "10"}, headers=bearer))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await leave(conn, people[3])
    async with await waiting as answer:
        second = await answer.json()
    assert [(each["address"], each["back"]) for each in second["items"]] == [(people[3].text, False)]
    for after, seen in ((first["next"], 1), (None, 1), (second["next"], 0)):
        async with http.get(url, params={"after": after} if after else {}, headers=bearer) as answer:
            said = await answer.json()
            assert (len(said["items"]), said["more"]) == (seen, seen > 0), "only who is told that there is no more knows of all"
    await leave(conn, people[4])
    async with http.get(url, params={"after": second["next"]}, headers=bearer) as answer:
        said = await answer.json()
    assert [each["address"] for each in said["items"]] == [people[4].text], "who left behind an answer is in the next"
    for wrong in ({"after": "x"}, {"afer": first["next"]}, *({"wait": each} for each in ("soon", "60.1", "600", "-1", "nan", "inf"))):
        async with http.get(url, params=wrong, headers=bearer) as answer:
            assert answer.status == 400, wrong
    async with http.get(url, params={"wait": "60"}, headers=bearer) as answer:
        assert (await answer.json())["items"], "the control: that is waited for, if nobody has left"


async def test_a_send_that_applies_what_it_hears_mails_nobody_who_left(
    http: ClientSession, bearer: dict[str, str], ask: Ask, conn: asyncpg.Connection, people: list[Address]
) -> None:
    """With the control: a send that hears nothing does."""
    url = await ask()
    async with http.get(f"{url}/file", headers=bearer) as answer:
        recipients = (await answer.text()).splitlines()[1:]
    left: set[str] = set()
    gone: set[str] = set()
    mailed, wrongly, blindly = [], [], []
    cursor: dict[str, str] = {}
    for n, recipient in enumerate(recipients):
        if n % 4 == 0:
            who = people[-1 - n // 4]
            await leave(conn, who)
            left.add(str(who.text))
        async with http.get(f"{url}/revoked", params=cursor, headers=bearer) as answer:
            said = await answer.json()
        gone |= {each["address"] for each in said["items"]}
        cursor = {"after": said["next"]}
        blindly += [recipient] if recipient in left else []
        if recipient not in gone:
            mailed.append(recipient)
            wrongly += [recipient] if recipient in left else []
    assert wrongly == []
    assert blindly
    assert len(mailed) > 10


async def test_the_worker_makes_what_was_asked_for(
    base: str, http: ClientSession, bearer: dict[str, str], database: str, settings: Settings, shared_catalogue: Catalogue, ring: KeyRing,
    people: list[Address], tmp_path: Path,
) -> None:  # fmt: skip
    async with http.post(f"{base}/v1/exports", json=ASKED, headers=bearer) as answer:
        url = base + answer.headers["Location"]
    stop = asyncio.Event()
    pool, unhurried = [await db.pool(database, size=size, command_timeout=10, purpose="test") for size in (4, 2)]
    alone = shared_catalogue.model_copy(update={"account": ()})
    at_home = settings.model_copy(update={"home": tmp_path})
    working = asyncio.create_task(worker.work(pool, alone, ring, at_home, stop=stop, unhurried=unhurried))
    for _ in range(600):
        async with http.get(f"{url}/file", headers=bearer) as answer:
            lines = (await answer.text()).splitlines()
        if answer.status == 200:
            break
        await asyncio.sleep(0.05)
    assert len(lines) == len(people) + 1
    stop.set()
    await working
    pool.terminate()
    unhurried.terminate()
