"""What the operator is told at ``/v1``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp import ClientError, ClientSession, web
from structlog.testing import capture_logs

from mailprefs import apikeys, directory, ledger, reconcile
from mailprefs.addresses import Addresses
from mailprefs.apikeys import Power
from mailprefs.directory import Entry
from mailprefs.links import KeyRing
from mailprefs.providers.base import Credential, Listed, Unclear, Unlisted
from mailprefs.providers.sendgrid import SendGrid
from mailprefs.sandbox import app as sandbox
from mailprefs.web import operator
from mailprefs.web.keys import HOUSE
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


def listing(app: web.Application, sandboxed: str) -> None:
    """The first account is asked at a sandbox; the application has not started yet."""
    house = app[HOUSE]
    hearing = house.hearings["sendgrid-main"]
    there = replace(hearing, credential=replace(hearing.credential, api_base=f"{sandboxed}/sendgrid"))
    app[HOUSE] = replace(house, hearings={**house.hearings, "sendgrid-main": there})


@pytest.fixture
async def sandboxed(app: web.Application) -> AsyncIterator[str]:
    """A sandbox in whose newsletter group somebody stands whom we do not know."""
    runner = web.AppRunner(sandbox.create_app(["sendgrid"]))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    root = f"http://127.0.0.1:{runner.addresses[0][1]}"
    state = {"sendgrid": {"groups": {"12345": ["bob@example.org"], "12346": []}, "global": []}}
    async with ClientSession() as client, client.put(f"{root}/_sandbox/state", json=state) as answer:
        assert answer.status == 200
    listing(app, root)
    yield root
    await runner.cleanup()


async def slowly(root: str, seconds: float, fault: str = "slow") -> None:
    queue = [{"fault": fault, "seconds": seconds, "listing": True}]
    async with ClientSession() as client, client.post(f"{root}/_sandbox/faults", json={"queue": queue}) as answer:
        assert answer.status == 200


Asking = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def ask(sandboxed: str, base: str, http: ClientSession, bearer: dict[str, str]) -> Asking:
    async def asked(account: str = "sendgrid-main", body: str = "") -> tuple[int, Any]:
        async with http.post(f"{base}/v1/reconcile/{account}", data=body, headers=bearer) as answer:
            return answer.status, json.loads(await answer.read())

    return asked


async def test_reconcile_answers_the_report_and_its_proof_and_heals_only_where_it_is_asked_to(
    ask: Asking, conn: asyncpg.Connection, ring: KeyRing, addresses: Addresses
) -> None:
    status, told = await ask()
    assert status == 200
    (newsletter, offers), _ = reconcile.proven(ring, told)
    assert (newsletter["scope"], newsletter["found"]["stranger"], newsletter["healed"]) == ("connective/newsletter", 1, False)
    assert not any(offers["found"].values())
    assert await conn.fetchval("select count(*) from consent") == 0
    status, told = await ask(body='{"fix": true}')
    assert (status, told["reports"][0]["healed"]) == (200, True)
    assert await conn.fetchval("select key from consent") == addresses.read("bob@example.org").key


async def test_a_comparison_that_takes_its_time_is_answered_all_the_same(
    ask: Asking, sandboxed: str, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "PLAIN", 0.01)
    monkeypatch.setattr(operator, "BREATH", 0.05)
    await slowly(sandboxed, 0.3)
    status, told = await ask()
    assert status == 200
    assert reconcile.proven(ring, told)[0][0]["listed"] == 1


async def test_a_comparison_that_fails_late_breaks_off_and_is_no_answer(
    ask: Asking, sandboxed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "PLAIN", 0.01)
    await slowly(sandboxed, 0.1)
    await slowly(sandboxed, 0, "500")
    with pytest.raises(ClientError):
        await ask()


@pytest.fixture
def troubled(app: web.Application, trouble: Exception) -> None:
    """The first account's provider takes its time, and then shows no list; the application has not started yet."""

    class Troubled(SendGrid):
        async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
            await asyncio.sleep(0.05)
            for each in (trouble,):
                raise each
            yield Listed("nobody@example.org", group)

    house = app[HOUSE]
    hearing = replace(house.hearings["sendgrid-main"], provider=Troubled())
    app[HOUSE] = replace(house, hearings={**house.hearings, "sendgrid-main": hearing})


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (Unlisted("it shows none"), {"log_level": "info", "event": "no_list_to_compare"}),
        (Unclear("http_500"), {"log_level": "warning", "event": "list_not_compared", "why": "Unclear"}),
    ],
)
async def test_that_a_provider_shows_no_list_is_no_alarm_however_late_it_says_so(
    troubled: None, base: str, http: ClientSession, bearer: dict[str, str], said: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a list that does not come whole is one."""
    monkeypatch.setattr(operator, "PLAIN", 0.01)
    with capture_logs() as lines, pytest.raises(ClientError):
        async with http.post(f"{base}/v1/reconcile/sendgrid-main", headers=bearer) as answer:
            await answer.read()
    [line] = [line for line in lines if line["event"] in ("no_list_to_compare", "list_not_compared")]
    assert said.items() <= line.items()


async def test_who_goes_away_ends_the_comparison(
    ask: Asking, sandboxed: str, base: str, bearer: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "PLAIN", 0.01)
    monkeypatch.setattr(operator, "BREATH", 0.02)
    await slowly(sandboxed, 1)
    async with ClientSession() as client, client.post(f"{base}/v1/reconcile/sendgrid-main", headers=bearer) as answer:
        assert answer.status == 200
        monkeypatch.undo()
        status, told = await ask()
        assert (status, told["detail"]) == (503, "this account is being compared already"), (
            "the control: while it runs, another one is told to come back"
        )
        monkeypatch.setattr(operator, "PLAIN", 0.01)
        monkeypatch.setattr(operator, "BREATH", 0.02)
        answer.close()
    monkeypatch.undo()
    for _ in range(1000):
        status, told = await ask("sendgrid-main")
        if status == 200:
            break
        await asyncio.sleep(0.02)
    assert status == 200


async def test_reconcile_says_why_it_does_not(ask: Asking, sandboxed: str, conn: asyncpg.Connection, now: datetime) -> None:
    for account, body, expected in (
        ("nobody", "", (404, "unknown account")),
        ("sendgrid-main", '{"fix": 1}', (400, "unreadable")),
        ("sendgrid-main", '{"heal": true}', (400, "unreadable")),
        ("sendgrid-main", "x" * 5000, (413, "too large")),
    ):
        status, told = await ask(account, body)
        assert (status, told["title"]) == expected
    await slowly(sandboxed, 0, "500")
    status, told = await ask()
    assert (status, told["detail"]) == (503, "the list did not come whole (http_500). Nothing was concluded from it; try again.")
    await conn.execute("insert into reconciliation values (1, 272, $1, $1, 100, '{}', true)", now - timedelta(days=1))
    status, told = await ask()
    assert (status, told["title"]) == (409, "shrunk")
    assert '{"shrunk": true}' in told["detail"]
    status, _ = await ask(body='{"shrunk": true}')
    assert status == 200


async def test_reconcile_wants_a_key_with_its_power(base: str, http: ClientSession, conn: asyncpg.Connection) -> None:
    _, text = await apikeys.issue(conn, [power for power in Power if power is not Power.OPERATE], "tests", now=datetime.now(UTC))
    async with http.post(f"{base}/v1/reconcile/sendgrid-main", headers={"Authorization": f"Bearer {text}"}) as answer:
        assert answer.status == 403
