"""A gateway that does everything to every link of every message unsubscribes nobody; every one-click request does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import asyncpg
import pytest

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing, Links

from .doors import Doors, opened
from .gateway import PRESSED, Gateway, Page

MESSAGES = int(os.environ.get("MAILPREFS_TEST_MESSAGES", "12"))
AT_ONCE = 4  # a gateway of one company; the pages are not held to more than their places at once here


@pytest.fixture
async def doors(database: str, shared_catalogue: Catalogue, ring: KeyRing) -> AsyncIterator[Doors]:
    async with opened(database, shared_catalogue, ring) as lent:
        yield lent


@pytest.fixture
def tokens(links: Links, addresses: Addresses, shared_catalogue: Catalogue) -> list[str]:
    topic = shared_catalogue.topic("newsletter")
    return [links.token(addresses.read(f"someone{n}@example.org").key, topic) for n in range(MESSAGES)]


async def rows(conn: asyncpg.Connection) -> int:
    return int(await conn.fetchval("select count(*) from consent"))


async def test_a_gateway_changes_nothing_and_every_one_click_is_honoured(doors: Doors, conn: asyncpg.Connection, tokens: list[str]) -> None:
    gateway, places = Gateway(doors.http), asyncio.Semaphore(AT_ONCE)

    async def looked_at(token: str) -> None:
        async with places:
            await gateway.open(f"{doors.base}/u/{token}")

    await asyncio.gather(*map(looked_at, tokens))
    assert gateway.links >= MESSAGES
    assert gateway.forms >= 2 * MESSAGES
    assert max(gateway.statuses) < 500
    assert await rows(conn) == 0

    async def one_click(token: str) -> int:
        async with places, doors.http.post(f"{doors.base}/u/{token}", data={"List-Unsubscribe": "One-Click"}) as answer:
            return answer.status

    assert set(await asyncio.gather(*map(one_click, tokens))) == {200}
    assert await rows(conn) == MESSAGES


async def test_the_same_form_stops_when_a_person_sends_it(doors: Doors, conn: asyncpg.Connection, tokens: list[str]) -> None:
    url = f"{doors.base}/u/{tokens[0]}"
    async with doors.http.get(url) as answer:
        form = Page(await answer.text()).forms[0]
    async with doors.http.post(url, headers=PRESSED, data=next(form.sent())) as answer:
        assert answer.status == 200
    assert await rows(conn) >= 1
