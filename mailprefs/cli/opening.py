"""What commands open: settings, catalogue, key ring, database. Each says what to do when it is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar

import asyncpg

from mailprefs import catalogue, db, embedded, numbers, settings
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue, Scope
from mailprefs.links import KeyRing, Links
from mailprefs.providers import CHANNELS
from mailprefs.settings import Settings

Answer = TypeVar("Answer")


@dataclass
class Opening:
    """Opens each thing when it is first wanted."""

    settings: Settings = field(default_factory=settings.load)

    @cached_property
    def catalogue(self) -> Catalogue:
        return catalogue.load(self.settings.config)

    @cached_property
    def ring(self) -> KeyRing:
        return KeyRing.load(self.settings.keys.get_secret_value())

    @cached_property
    def addresses(self) -> Addresses:
        return Addresses(self.ring.digest)

    def links(self, topic: Scope) -> Links:
        brand = next(brand for brand in self.catalogue.brand if brand.number == topic.brand)
        return Links(self.ring, brand.link_host, brand.mailto)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Lend the URL of the database: DATABASE_URL, else the embedded server, which is brought up to date."""
        if self.settings.database_url is not None:
            yield self.settings.database_url.get_secret_value()
            return
        async with embedded.running(self.settings.home / "postgres") as url:
            await self._ready(url)
            yield url

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection to a database that knows our numbers."""
        async with self.database() as url:
            connection = await db.connect(url)
            try:
                await self.registered(connection)
                yield connection
            finally:
                await connection.close()

    async def registered(self, connection: asyncpg.Connection) -> None:
        """Make the database know the catalogue. Raises Misconfigured where it cannot be, or was never migrated."""
        await numbers.ready(connection, self.catalogue, self.ring.ids, CHANNELS, now=now())

    async def _ready(self, url: str) -> None:
        connection = await db.connect(url)
        try:
            await db.migrate(connection)
        finally:
            await connection.close()


def now() -> datetime:
    """The machine's time: a command is a door."""
    return datetime.now(UTC)


def run(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a command's work to its end."""
    return asyncio.run(coroutine)
