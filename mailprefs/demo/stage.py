"""Everything the story plays on: files, keys, database, service, sandbox. Fresh each time, gone at the end."""

from __future__ import annotations

import asyncio
import csv
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
from aiohttp import web
from pydantic import SecretStr

from mailprefs import catalogue, db, embedded, numbers, shipped
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue, Scope
from mailprefs.errors import Unavailable
from mailprefs.links import KeyRing, Links, by_brand
from mailprefs.providers import CHANNELS
from mailprefs.sandbox import sendgrid
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web import wire
from mailprefs.words import Wanted

SETTLE = timedelta(seconds=2)  # in the demo; the catalogue's own is minutes
STARTING = 20.0  # seconds a part may take to come up
SANDBOX = """
import asyncio, os, sys, threading
from mailprefs.sandbox.app import serve
threading.Thread(target=lambda: os._exit(len(sys.stdin.read())), daemon=True).start()  # its parent is gone, killed perhaps
asyncio.run(serve(0, sys.argv[1:]))  # the command of that name says besides how to use it
"""
Detour = Callable[[str], AbstractAsyncContextManager[str]]  # from the service's URL to the one that the world reaches it by


@dataclass(frozen=True)
class Stage:
    """The parts of the story, all running."""

    examples: Path
    settings: Settings
    catalogue: Catalogue
    ring: KeyRing = field(repr=False)
    addresses: Addresses = field(repr=False)
    links: Links
    recipients: tuple[dict[str, str], ...]
    webhook_key: str = field(repr=False)  # SendGrid's private one
    database: str = field(repr=False)
    pool: db.Pool
    http: aiohttp.ClientSession
    base: str  # the service
    door: str  # the service as mailbox providers reach it
    sandbox: str  # SendGrid, simulated

    @property
    def newsletter(self) -> Scope:
        return self.catalogue.topic("newsletter")

    @property
    def opt_in(self) -> Scope:
        """The topic that nobody may be sent without consent."""
        return next(topic for topic in self.catalogue.topics if topic.wanted is not Wanted.OPT_OUT)

    @property
    def account(self) -> Account:
        return self.catalogue.account[0]

    def emails(self) -> list[str]:
        """The e-mail addresses of the recipients, in the order of their file."""
        return [row["address"] for row in self.recipients if "@" in row["address"]]

    def path(self, address: str) -> str:
        """Return the path of a newsletter's unsubscribe link."""
        return f"/u/{self.links.token(self.addresses.read(address).key, self.newsletter)}"


def now() -> datetime:
    """The machine's time: the story is told at a door."""
    return datetime.now(UTC)


@asynccontextmanager
async def staged(settings: Settings, say: Callable[[str], None], detour: Detour | None = None) -> AsyncIterator[Stage]:
    """Set everything up and lend it. ``say`` hears a line while it takes its time."""
    examples = shipped.folder("examples")
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailprefs-demo-", ignore_cleanup_errors=True)))
        say("starting an own PostgreSQL …")
        database = await stack.enter_async_context(embedded.running(home / "postgres"))
        say("starting a simulated SendGrid, in a process of its own …")
        sandbox = await stack.enter_async_context(_sandbox())
        private, public = sendgrid.key_pair()
        settings = _own(settings, home, public)
        known = _at(catalogue.load(examples / "mailprefs.toml"), f"{sandbox}/sendgrid")
        ring = KeyRing.new(now().date())
        await _migrated(database, known, ring)
        say("starting the service …")
        base = await stack.enter_async_context(_served(settings, known, ring, database))
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        pool = await db.pool(database, size=8, command_timeout=30, purpose="demo")
        stack.callback(pool.terminate)
        door = await stack.enter_async_context(detour(base)) if detour else base
        links = by_brand(known.brand, ring)[known.brand[0].number]
        yield Stage(examples, settings, known, ring, Addresses(ring.digest), links, _recipients(examples), private, database,
                    pool, http, base, door, sandbox)  # fmt: skip


def _recipients(examples: Path) -> tuple[dict[str, str], ...]:
    with (examples / "recipients.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def _own(settings: Settings, home: Path, public: str) -> Settings:
    secrets = {"SENDGRID_WEBHOOK_KEY": public, "SENDGRID_API_KEY": "SG.demo-key-that-only-the-sandbox-knows"}
    return settings.model_copy(update={"home": home, "database_url": SecretStr("")}).lending(secrets)


def _at(known: Catalogue, sandbox: str) -> Catalogue:
    """Point every account at the sandbox, which is the only thing that the demo ever calls."""
    accounts = tuple(account.model_copy(update={"api_base": sandbox, "settle": SETTLE}) for account in known.account)
    return Catalogue.model_validate(known.model_copy(update={"account": accounts}).model_dump(by_alias=True))


async def _migrated(database: str, known: Catalogue, ring: KeyRing) -> None:
    connection = await db.connect(database)
    try:
        await db.migrate(connection)
        await numbers.introduce(connection, known, ring.fingerprints, CHANNELS, now=now())
    finally:
        await connection.close()


@asynccontextmanager
async def _served(settings: Settings, known: Catalogue, ring: KeyRing, database: str) -> AsyncIterator[str]:
    runner = wire.runner(service.create_app(settings, known, ring, database_url=database))
    await runner.setup()
    try:
        await _listen(runner, settings.port)
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except OSError:  # the usual port is taken
        await web.TCPSite(runner, "127.0.0.1", 0).start()


@asynccontextmanager
async def _sandbox() -> AsyncIterator[str]:
    """Run the sandbox as a process of its own and lend its URL. It ends with us, however we end, and not before."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(  # in a session of its own: whatever is sent to our group, we end it last
        sys.executable, "-c", SANDBOX, "sendgrid", stdin=pipe, stdout=pipe, start_new_session=True
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), STARTING) if process.stdout else b""
        if not line.strip().isdigit():
            raise Unavailable("the sandbox did not start")
        yield f"http://127.0.0.1:{int(line)}"
    except TimeoutError:
        raise Unavailable("the sandbox did not start in time") from None
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
