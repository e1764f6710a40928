"""``migrate``, ``serve`` and ``work``: the three lines of the Procfile, and all of it alone with a PostgreSQL of its own."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from aiohttp import ClientSession

from mailprefs.catalogue import Brand, Catalogue
from mailprefs.cli import service
from mailprefs.sandbox import sendgrid

from .shell import Shell

SERVES = r"mailprefs serves on (http://127\.0\.0\.1:(\d+))"
ACCOUNTS = "[[account]]"
TOKEN = "shows-the-numbers"
ANY = {"PORT": "0", "METRICS_TOKEN": TOKEN}
PUBLIC = sendgrid.key_pair()[1]
PROVEN = {"SENDGRID_WEBHOOK_KEY": PUBLIC, "SENDGRID_SECOND_WEBHOOK_KEY": PUBLIC}


@pytest.fixture
def plain(shell: Shell) -> Shell:
    """Without accounts, so that nothing wants a secret."""
    catalogue = shell.home / "mailprefs.toml"
    catalogue.write_text(catalogue.read_text().partition(ACCOUNTS)[0])
    return shell


async def minted(shell: Shell, address: str) -> str:
    """Return the path of a link."""
    url = (await shell("link", address, "newsletter")).said(0).out.splitlines()[0]
    shell.secrets.append(url.rpartition("/")[2])  # no log may show it, from here on
    return url.removeprefix("https://go.example.com")


async def pressed(base: str, path: str) -> int:
    async with ClientSession() as http, http.post(base + path, data={"List-Unsubscribe": "One-Click"}) as response:
        assert await response.read() == b""
        return response.status


async def status(url: str) -> int:
    async with ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http, http.get(url) as response:
        return response.status


async def test_serve_that_works_too_wants_the_secrets_of_webhooks_before_it_serves_or_makes_a_database(alone: Shell) -> None:
    catalogue = alone.home / "mailprefs.toml"
    endpoint = '[[webhook]]\nname = "crm"\nurl = "https://crm.example.com/hooks"\nsecret = "CRM_SECRET"\n'
    catalogue.write_text(catalogue.read_text().partition(ACCOUNTS)[0] + endpoint)
    done = (await alone("serve", env=ANY | {"DATABASE_URL": None})).said(2, "webhook 'crm': the variable CRM_SECRET is not set")
    assert "serves" not in done.err
    assert not (alone.home / ".mailprefs").exists()


async def test_release_web_and_worker(plain: Shell, conn: asyncpg.Connection) -> None:
    path = await minted(plain, "jane@example.org")
    await conn.execute("drop schema public cascade; create schema public")
    for command in ("serve", "work", "why"):
        words = (command, "jane@example.org") if command == "why" else (command,)
        (await plain(*words, env=ANY)).said(2, r"the database lacks 0001_\w+\.sql, .*mailprefs migrate")
    (await plain("migrate")).said(0, r"applied 0001_\w+\.sql, ")
    (await plain("migrate")).said(0, "up to date")
    async with plain.running("serve", env=ANY) as web:
        await web.says("no link to somebody's choices can be mailed for connective, and no page promises one: that wants SMTP_URL")
        base, port = (await web.says(SERVES)).groups()
        assert [await status(base + place) for place in ("/healthz", "/readyz", "/metrics", "/docs/no")] == [200, 200, 200, 404]
        assert await pressed(base, path) == 200
        assert await conn.fetchval("select stops from address") == [272]
        taken = await plain("serve", env={"PORT": port})
        taken.said(2, rf"port {port} on 127\.0\.0\.1 cannot be had \(.*address already in use.*\)\. PORT names another\.")
        async with plain.running("serve", "--only", "metrics", env=ANY) as part:
            other = (await part.says(SERVES))[1]
            assert [await status(other + place) for place in ("/healthz", path)] == [200, 404]
    async with plain.running("work") as worker:
        await worker.says("mailprefs works$")


async def test_a_worker_that_lacks_a_secret_does_not_say_that_it_works(shell: Shell) -> None:
    done = (await shell("work", env=PROVEN)).said(2, "wants its api_key in the variable SENDGRID_API_KEY, which is not set")
    assert "works" not in done.err


async def test_the_worker_shows_its_numbers_where_it_is_told_to(shell: Shell) -> None:
    secrets = {f"SENDGRID_{name}": "SG.canary-password" for name in ("API_KEY", "SECOND_API_KEY")}
    async with shell.running("work", env={"METRICS_PORT": "0", **secrets, **PROVEN}) as worker:
        base = (await worker.says(r"mailprefs works, its numbers on (http://127\.0\.0\.1:\d+)/metrics"))[1]
        assert await status(f"{base}/healthz") == 200
        shown = ""
        async with ClientSession() as http:
            for _ in range(600):  # it measures first when it has begun
                async with http.get(f"{base}/metrics") as response:
                    shown = await response.text()
                if "mailprefs_pushes_waiting" in shown:
                    break
                await asyncio.sleep(0.05)
        assert 'mailprefs_pushes_waiting{account="sendgrid-main"} 0.0' in shown
        assert "canary" not in shown


async def test_alone_with_its_own_postgresql(plain: Shell, tmp_path: Path) -> None:
    path = await minted(plain, "jane@example.org")
    plain.environment.pop("DATABASE_URL")
    plain.environment["MAILPREFS_DATA"] = str(tmp_path / "its data")
    async with plain.running("serve", env=ANY) as web:
        found = await web.says(SERVES + r", with its own PostgreSQL and the worker \(set DATABASE_URL for yours\)")
        assert await pressed(found[1], path) == 200
        beside = json.loads((await plain("why", "jane@example.org", "newsletter", "--json")).said(1).out)
        assert beside["decisions"][0]["allowed"] is False
    after = json.loads((await plain("why", "jane@example.org", "newsletter", "--json")).said(1).out)
    assert after == beside, "what was pressed is there the next time"


async def test_from_wherever_a_command_is_given_it_finds_the_same_database(plain: Shell, tmp_path: Path) -> None:
    """An empty database would answer that everybody may be sent everything."""
    plain.environment.pop("DATABASE_URL")
    elsewhere = replace(plain, home=tmp_path / "elsewhere", environment={**plain.environment, **named(plain)})
    elsewhere.home.mkdir()
    stopped = b"address,scope,cause\njane@example.org,newsletter,choice\n"
    data = re.escape(str(plain.home / ".mailprefs" / "postgres"))
    (await elsewhere("import", "suppressions", "-", stdin=stopped)).said(0, f"a new database is made in {data}")
    for shell in (plain, elsewhere):
        done = await shell("why", "jane@example.org", "newsletter", "--json")
        assert json.loads(done.said(1).out)["decisions"][0]["allowed"] is False
    assert list(elsewhere.home.iterdir()) == []


def named(shell: Shell) -> dict[str, str]:
    return {"MAILPREFS_CONFIG": str(shell.home / "mailprefs.toml"), "MAILPREFS_KEYS": str(shell.home / "mailprefs.keys.json")}


async def test_who_only_asks_makes_no_database_and_is_told_what_does(plain: Shell, tmp_path: Path) -> None:
    plain.environment.pop("DATABASE_URL")
    plain.environment["MAILPREFS_DATA"] = str(tmp_path / "data")
    stop = ("stop", "jane@example.org", "newsletter", "--cause", "choice", "--evidence", "x")
    for words in (("why", "jane@example.org"), ("audience", "newsletter"), ("sync",), ("ledger", "verify"), ("api-keys", "list"), stop):
        done = await plain(*words)
        assert done.said(2, r"there is no database in .*data/postgres\. `mailprefs serve` makes one", "DATABASE_URL").out == ""
        assert not (tmp_path / "data").exists()


def test_a_colour_that_cannot_be_read_is_spoken_of_once_with_what_is_used_instead(
    shared_catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = shared_catalogue.brand[0]
    for colours in ({}, {"colour": "#0f5f63", "colour_dark": "#9be0e4"}, {"colour": "#ffd400"}):
        service.warn_if_pale(Brand.model_validate(plain.model_dump(by_alias=True, exclude_unset=True) | colours))
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line == (
        "note: the colour of connective has too little contrast in the light theme: its pages use "
        "#a88c00 for edges (it has 1.3 of 3) and #856e00 for links (it has 1.3 of 4.5) there"
    )
