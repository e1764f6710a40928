"""What the operator is told at ``/v1``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
from aiohttp import ClientSession

from mailprefs import apikeys, directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.apikeys import Power
from mailprefs.directory import Entry
from mailprefs.words import Cause, Change, Door, Effect


async def test_sync_says_what_each_account_has_still_to_hear_and_by_when(
    base: str, http: ClientSession, conn: asyncpg.Connection, addresses: Addresses, bearer: dict[str, str]
) -> None:
    jane, asked = addresses.read("jane@example.org"), datetime.now(UTC) - timedelta(hours=50)
    await directory.know(conn, [Entry(jane)], now=asked)
    await ledger.record(conn, [Change(jane, 273, Cause.CHOICE, Effect.STOP, Door.LINK, "1", asked)], now=asked)
    async with http.get(f"{base}/v1/sync", headers=bearer) as answer:
        main, second = (await answer.json())["accounts"]
    assert main == {
        "account": "sendgrid-main",
        "waiting": 1,
        "no_address": 0,
        "oldest_at": asked.isoformat(),
        "next_deadline_at": (asked + timedelta(hours=48)).isoformat(),
        "late": 1,
        "dead": 0,
    }
    assert (second["waiting"], second["next_deadline_at"]) == (0, None)


async def test_sync_wants_a_key_with_its_power(base: str, http: ClientSession, conn: asyncpg.Connection) -> None:
    async with http.get(f"{base}/v1/sync") as answer:
        assert answer.status == 401
    _, text = await apikeys.issue(conn, [power for power in Power if power is not Power.OPERATE], "tests", now=datetime.now(UTC))
    async with http.get(f"{base}/v1/sync", headers={"Authorization": f"Bearer {text}"}) as answer:
        assert answer.status == 403
