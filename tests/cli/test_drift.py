"""``reconcile``: a provider's list, over real HTTP, beside ours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg
import pytest
from aiohttp import ClientSession, web

from mailprefs import directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.directory import Entry
from mailprefs.sandbox import app as sandbox
from mailprefs.words import Cause, Change, Door, Effect

from .shell import Shell

NEWSLETTER = 272
SECRETS = ("SENDGRID_WEBHOOK_KEY", "SENDGRID_SECOND_WEBHOOK_KEY"), ("SENDGRID_API_KEY", "SENDGRID_SECOND_API_KEY")


@asynccontextmanager
async def listing(**groups: list[str]) -> AsyncIterator[str]:
    """SendGrid's own list, as an ``api_base``."""
    runner = web.AppRunner(sandbox.create_app(["sendgrid"]))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    state = {"sendgrid": {"groups": {"12345": [], "12346": []} | {name[1:]: held for name, held in groups.items()}, "global": []}}
    async with ClientSession() as http, http.put(f"{base}/_sandbox/state", json=state) as answer:
        assert answer.status < 300
    yield f"{base}/sendgrid"
    await runner.cleanup()


@pytest.fixture
def asking(shell: Shell, signing: tuple[str, str]) -> Shell:
    shell.environment |= dict.fromkeys(SECRETS[0], signing[1]) | dict.fromkeys(SECRETS[1], "SG." + "x" * 40)
    return shell


@pytest.fixture
def signing() -> tuple[str, str]:
    from mailprefs.sandbox.sendgrid import key_pair

    return key_pair()


def asks(shell: Shell, base: str) -> None:
    path = shell.home / "mailprefs.toml"
    path.write_text(path.read_text().replace('name = "sendgrid-main"', f'name = "sendgrid-main"\napi_base = "{base}"'))


async def test_reconcile_shows_where_they_differ_and_heals_towards_more_suppression(
    asking: Shell, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    ann, bob = addresses.read("ann@example.org"), addresses.read("bob@example.org")
    await directory.know(conn, [Entry(ann), Entry(bob)], now=now)
    await ledger.record(conn, [Change(ann, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)], now=now)
    await conn.execute("delete from push")  # as if it had been told long ago
    async with listing(_12345=["bob@example.org", "Bob@Example.org"]) as base:
        asks(asking, base)
        seen = (await asking("reconcile", "sendgrid-main")).said(1).out
        assert "connective/newsletter: 2 listed, 1 of them twice" in seen
        assert "1 stopped there alone\n" in seen
        assert "1 stopped here, and not listed there any more\n" in seen
        assert "connective/offers: 0 listed\n  both hold the same" in seen
        assert await conn.fetchval("select stops from address where key = $1", bob.key) is None

        healed = json.loads((await asking("reconcile", "sendgrid-main", "--fix", "--json")).said(1).out)
        assert [(each["scope"], each["found"]["theirs"], each["found"]["ours"]) for each in healed["reports"]] == [
            ("connective/newsletter", 1, 1),
            ("connective/offers", 0, 0),
        ]
        proven = (await asking("check-report", "-", stdin=json.dumps(healed).encode())).said(0, "signed 20")
        assert "sendgrid-main, 20" in proven.out
        assert "        1 stopped there alone: stopped here now\n" in proven.out
        healed["reports"][0]["listed"] += 1
        assert (await asking("check-report", "-", stdin=json.dumps(healed).encode())).said(1, "not those that the proof").out == ""
        assert await conn.fetchval("select stops from address where key = $1", bob.key) == [NEWSLETTER]
        assert [tuple(row) for row in await conn.fetch("select key, stop from push where account = 1")] == [(ann.key, True)]
    assert "example.org" not in seen + json.dumps(healed)


async def test_reconcile_while_something_is_being_told_says_so_and_calls_nothing_the_same(
    asking: Shell, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    ann = addresses.read("ann@example.org")
    await directory.know(conn, [Entry(ann)], now=now)
    await ledger.record(conn, [Change(ann, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)], now=now)
    async with listing(_12345=[]) as base:
        asks(asking, base)
        seen = (await asking("reconcile", "sendgrid-main")).said(0).out
    assert "0 listed\n          1 still being told, or spoken for while the list was read\n  of everybody else both hold the same\n" in seen


async def test_check_report_says_what_is_no_report(asking: Shell) -> None:
    for text in (b"", b"[]", b'{"reports": [], "proof": 1}', b"\xff"):
        (await asking("check-report", "-", stdin=text)).said(1, "that is no report of a comparison")
    (await asking("check-report", "nowhere.json")).said(2, "nowhere.json")


async def test_reconcile_says_why_there_is_nothing_to_compare(asking: Shell) -> None:
    (await asking("reconcile", "nobody")).said(2, "there are: sendgrid-main, sendgrid-second")
    path = asking.home / "mailprefs.toml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("scopes =")))
    (await asking("reconcile", "sendgrid-second")).said(2, "is told nothing")


async def test_reconcile_concludes_nothing_from_a_list_that_does_not_come(asking: Shell, conn: asyncpg.Connection) -> None:
    async with listing(_12345=["bob@example.org"]) as base:
        asks(asking, base.replace("/sendgrid", "/nothing"))
        (await asking("reconcile", "sendgrid-main", "--fix")).said(1, "the list did not come whole")
    assert await conn.fetchval("select count(*) from consent") == 0


async def test_reconcile_refuses_a_list_that_has_shrunk(asking: Shell, conn: asyncpg.Connection, now: datetime) -> None:
    await conn.execute(
        "insert into reconciliation values (1, 272, $1, $1, 100, '{}', true)",
        now - timedelta(days=1),
    )
    async with listing(_12345=["bob@example.org"]) as base:
        asks(asking, base)
        (await asking("reconcile", "sendgrid-main")).said(1, "lists 1 where it listed 100 before")
        (await asking("reconcile", "sendgrid-main", "--shrunk")).said(1)
