"""``webhook``: where your own systems stand, one tried out, one told again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg
import pytest
from aiohttp import web
from standardwebhooks import Webhook as Official

from mailprefs import ledger
from mailprefs.addresses import Addresses
from mailprefs.words import Cause, Change, Door, Effect

from .shell import Shell

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@asynccontextmanager
async def crm(status: int) -> AsyncIterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """A system of the sender's own: its URL, and what it heard."""
    heard: list[tuple[str, dict[str, str]]] = []

    async def take(request: web.Request) -> web.Response:
        heard.append((await request.text(), {name.lower(): value for name, value in request.headers.items()}))
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/{tail:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/secret-path", heard
    await runner.cleanup()


@pytest.fixture
def endpoint(shell: Shell) -> Shell:
    return named(shell, "https://crm.example.com/secret-path")


def named(shell: Shell, url: str) -> Shell:
    shell.environment["CRM_SECRET"] = SECRET
    shell.secrets.extend([SECRET, "secret-path"])
    catalogue = shell.home / "mailprefs.toml"
    catalogue.write_text(catalogue.read_text() + f'\n[[webhook]]\nname = "crm"\nurl = "{url}"\nsecret = "CRM_SECRET"\nprivate = true\n')
    return shell


async def begun(conn: asyncpg.Connection) -> int:
    await conn.execute("insert into webhook (name, position) values ('crm', pg_snapshot_xmin(pg_current_snapshot()))")
    return int(await conn.fetchval("select position::text from webhook"))


async def test_webhook_list_shows_where_each_stands_and_how_far_behind(
    endpoint: Shell, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    assert "it begins when a worker starts" in (await endpoint("webhook", "list")).said(0).out
    place = await begun(conn)
    seen = (await endpoint("webhook", "list")).said(0).out
    assert f"crm.example.com              at {place}; all heard" in seen
    stop = Change(addresses.read("jane@example.org"), 272, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(conn, [stop], now=now)
    await conn.execute("update webhook set failing_since = $1, failed_at = $1, failure = '503', attempts = 4", now)
    seen = (await endpoint("webhook", "list")).said(1).out
    assert "1 behind, the oldest since 2026-11-22 12:00:00Z; last failure 2026-11-22 12:00:00Z: 503; FAILING since 2026-11-22" in seen
    (told,) = json.loads((await endpoint("webhook", "list", "--json")).said(1).out)["webhooks"]
    assert (told["name"], told["host"], told["position"], told["behind"], told["failure"]) == ("crm", "crm.example.com", place, 1, "503")


async def test_webhook_replay_goes_back_to_a_moment_or_to_a_place(
    endpoint: Shell, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    place = await begun(conn)
    stop = Change(addresses.read("jane@example.org"), 272, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(conn, [stop], now=now)
    recorded = int(await conn.fetchval("select position::text from consent"))
    for since, stands in ((now.isoformat(), recorded), (str(place), place)):
        await conn.execute("update webhook set position = pg_snapshot_xmin(pg_current_snapshot()), evidence = 'x'")
        (await endpoint("webhook", "replay", "crm", "--since", since)).said(0, "hears everything since then")
        assert int(await conn.fetchval("select position::text from webhook where evidence = ''")) == stands
    (await endpoint("webhook", "replay", "crm", "--since", (now + timedelta(days=1)).isoformat())).said(1, "nothing was recorded since")
    (await endpoint("webhook", "replay", "crm", "--since", str(recorded + (1 << 40)))).said(1, "has not come to that place")
    for wrong in ("2026-11-22T12:00:00", "yesterday"):
        (await endpoint("webhook", "replay", "crm", "--since", wrong)).said(2, "a moment with its zone")
    (await endpoint("webhook", "replay", "erp", "--since", "1")).said(2, "there are: crm")


@pytest.mark.parametrize(("status", "said"), [(204, "taken"), (401, "is the secret there"), (302, "not followed"), (500, "told again")])
async def test_webhook_test_sends_one_signed_sample_and_shows_the_answer(alone: Shell, status: int, said: str) -> None:
    """Without a database: it is about the endpoint alone."""
    async with crm(status) as (url, heard):
        done = (await named(alone, url)("webhook", "test", "crm")).said(0 if status == 204 else 1)
    assert f"answered    {status}: " in done.out
    assert said in done.out
    ((body, headers),) = heard
    assert Official(SECRET).verify(body, headers)["type"] == "preference.test"


async def test_webhook_test_says_that_nobody_is_there(alone: Shell) -> None:
    async with crm(200) as (url, _):
        pass
    assert "unreachable: nobody is there\n" in (await named(alone, url)("webhook", "test", "crm")).said(1).out
