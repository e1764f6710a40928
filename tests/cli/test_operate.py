"""``sync``, ``ledger`` and ``sandbox``: is everyone told, is the state sound."""

from __future__ import annotations

import json
import re
import socket
from datetime import datetime

import asyncpg
from aiohttp import ClientSession

from mailprefs import directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.directory import Entry
from mailprefs.sandbox import faults
from mailprefs.words import Address, Cause, Change, Door, Effect

from .shell import MAILPREFS, Shell

NEWSLETTER = 272


async def test_sync_says_what_each_account_still_has_to_hear(
    shell: Shell, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    whole = json.loads((await shell("sync", "--json")).said(0).out)
    silent = {"waiting": 0, "no_address": 0, "oldest_at": None, "next_deadline_at": None, "late": 0, "dead": 0}
    assert whole == {"accounts": [{"account": name, **silent} for name in ("sendgrid-main", "sendgrid-second")]}
    assert all(set(row) == {"account", *silent} for row in whole["accounts"])

    jane = addresses.read("jane@example.org")
    await directory.know(conn, [Entry(jane)], now=now)
    unknown = Address(addresses.read("kim@example.org").key)
    await ledger.record(conn, [Change(who, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now) for who in (jane, unknown)], now=now)
    await conn.execute("update push set refused = 'code' where account = 2 and key = $1", jane.key)
    rows = json.loads((await shell("sync", "--json")).said(1).out)["accounts"]
    assert [(row["account"], row["waiting"], row["no_address"], row["oldest_at"], row["dead"]) for row in rows] == [
        ("sendgrid-main", 1, 1, now.isoformat(), 0),
        ("sendgrid-second", 1, 1, now.isoformat(), 1),
    ]
    shown = (await shell("sync", "sendgrid-main")).said(1).out
    due = f"the oldest since {now:%Y-%m-%d %H:%M:%S}Z, due by 2026-11-24 12:00Z"
    assert shown == f"sendgrid-main            1 waiting, {due}, 0 refused, 1 known by key only\n"
    more = [Address(addresses.read(f"p{n}@example.org").key) for n in range(999)]
    await ledger.record(conn, [Change(who, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now) for who in more], now=now)
    assert "1,000 known by key only" in (await shell("sync", "sendgrid-main")).said(1).out
    (await shell("sync", "pigeon")).said(2, "no such account: pigeon; there are: sendgrid-main, sendgrid-second")


async def test_where_there_is_nothing_to_show_a_command_says_so_with_what_makes_it(shell: Shell) -> None:
    (await shell("hook", "kept")).said(0, "^nothing is kept aside$")
    (await shell("api-keys", "list")).said(0, "`mailprefs api-keys new` makes one")
    (await shell("export", "list")).said(0, "`mailprefs export new` asks for one")
    catalogue = shell.home / "mailprefs.toml"
    catalogue.write_text(re.sub(r"(?ms)^\[\[account\]\].*?(?=^\[\[(?!account)|\Z)", "", catalogue.read_text()))
    (await shell("hook", "accounts")).said(0, r"^there is no account: write \[\[account\]\]")


async def test_ledger_verify_finds_the_summary_that_was_altered(
    shell: Shell, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    people = [addresses.read(f"p{n}@example.org") for n in range(3)]
    await ledger.record(conn, [Change(p, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now) for p in people], now=now)
    (await shell("ledger", "verify")).said(0, "every summary is what its ledger says")
    await conn.execute("update address set stops = null where key = $1", people[1].key)
    (await shell("ledger", "verify")).said(1, "^1 summary differs from its ledger$")


async def test_the_sandbox_answers_on_loopback_until_it_is_told_to_stop(alone: Shell) -> None:
    process = await alone._started(("sandbox", "sendgrid"), MAILPREFS, {})
    assert process.stdout
    try:
        port = int(await process.stdout.readline())
        async with ClientSession() as http, http.get(f"http://127.0.0.1:{port}/_sandbox/state") as response:
            assert response.status == 200
    finally:
        process.terminate()
        _, err = await process.communicate()
    assert b"Traceback" not in err
    said = err.decode()
    assert f'sendgrid     api_base = "http://127.0.0.1:{port}/sendgrid"' in said
    assert f"http://127.0.0.1:{port}/_sandbox/faults" in said
    assert [name for name in faults.COURSES if f"  {name}  " not in said] == []
    assert "postmark" not in said


async def test_the_sandbox_shows_every_fault_before_it_runs_and_says_whose_port_is_taken(alone: Shell) -> None:
    shown = (await alone("sandbox", "--help")).said(0).out
    assert [name for name, what in faults.described().items() if not re.search(rf"(?m)^  {re.escape(name)}  +\S", shown) or not what] == []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        (await alone("sandbox", "--port", port)).said(2, rf"port {port} on 127\.0\.0\.1 cannot be had \(.+\)\. --port names another")
