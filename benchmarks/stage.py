"""What the benchmarks stand on: a server, a fresh database that knows our numbers, keys, and the service as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import asyncpg

from mailprefs import catalogue, db, embedded, numbers
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing, Links
from mailprefs.providers import CHANNELS
from mailprefs.sandbox import sendgrid

HERE = Path(__file__).parent
_PORT = re.compile(r"http://127\.0\.0\.1:(\d+)")
STARTING = 60.0  # seconds


@dataclass(frozen=True)
class Stage:
    """Everything that a path needs to be measured."""

    home: Path
    server: str  # the URL of a server on which databases can be made
    catalogue: Catalogue
    ring: KeyRing = field(repr=False)
    webhook_key: str = field(repr=False)  # the provider's private one
    secrets: dict[str, str] = field(repr=False)

    @cached_property
    def addresses(self) -> Addresses:
        return Addresses(self.ring.digest)

    @property
    def links(self) -> Links:
        brand = self.catalogue.brand[0]
        return Links(self.ring, brand.link_host, brand.mailto)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Lend the URL of a fresh database that is up to date and knows our numbers."""
        name = f"bench_{uuid4().hex}"
        await self._said(f'create database "{name}"')
        url = re.sub(r"(//[^/]*/)[^?]*", rf"\g<1>{name}", self.server)
        try:
            async with connected(url) as connection:
                await db.migrate(connection)
                await numbers.introduce(connection, self.catalogue, self.ring.fingerprints, CHANNELS, now=datetime.now(UTC))
            yield url
        finally:
            await self._said(f'drop database "{name}" with (force)')

    async def _said(self, statement: str) -> None:
        async with connected(self.server) as connection:
            await connection.execute(statement)

    def environment(self, url: str) -> dict[str, str]:
        """Return what our commands find in theirs."""
        own = {"DATABASE_URL": url, "MAILPREFS_CONFIG": str(HERE / "catalogue.toml"), "MAILPREFS_KEYS": str(self.home / "keys.json")}
        return {**os.environ, **self.secrets, **own, "PORT": "0"}

    @asynccontextmanager
    async def service(self, url: str, *command: str) -> AsyncIterator[Served]:
        """Lend the service on a database: the real one, or what a Python module serves in its place."""
        words = command or ("mailprefs", "serve", "--only", "public,hooks", "--json-log")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *words, stderr=PIPE, env=self.environment(url), cwd=HERE.parent
        )
        try:
            port = await asyncio.wait_for(_port(process), STARTING)
            yield Served(process.pid, port)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()


@dataclass(frozen=True)
class Served:
    """A service that listens on loopback."""

    pid: int
    port: int


async def _port(process: Process) -> int:
    assert process.stderr is not None
    said = b""
    async for line in process.stderr:
        if found := _PORT.search(line.decode()):
            return int(found[1])
        said += line
    raise SystemExit(f"the service did not start:\n{said.decode()}")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection without limits."""
    connection = await db.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """Lend a stage on BENCH_DATABASE_URL, else on an embedded PostgreSQL with the programs of BENCH_BINARIES, or those that come along."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailprefs-bench-", ignore_cleanup_errors=True)))
        server = os.environ.get("BENCH_DATABASE_URL")
        if not server:
            binaries = os.environ.get("BENCH_BINARIES")
            server = await stack.enter_async_context(embedded.running(home / "postgres", Path(binaries) if binaries else None))
        ring = KeyRing.new(datetime.now(UTC).date())
        (home / "keys.json").touch(mode=0o600)
        (home / "keys.json").write_text(ring.dumped())
        private, public = sendgrid.key_pair()
        secrets = {"BENCH_WEBHOOK_KEY": public, "BENCH_OTHER_WEBHOOK_KEY": sendgrid.key_pair()[1], "BENCH_API_KEY": "SG." + "x" * 40}
        yield Stage(home, server, catalogue.load(HERE / "catalogue.toml"), ring, private, secrets)
