"""What commands open: settings, catalogue, key ring, database. Each says what to do when it is not there.

What only a database needs is imported with it: minting waits for no provider.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mailprefs import catalogue, settings, turning
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue, Scope
from mailprefs.cli.saying import no_account, tell
from mailprefs.errors import Misconfigured, Unavailable, Unreadable
from mailprefs.links import KeyRing, Links, by_brand
from mailprefs.settings import Settings

if TYPE_CHECKING:
    from asyncpg import Connection

_NO_DATABASE = (
    "there is no database in {home}. `mailprefs serve` makes one, and so do migrate, work and import; "
    "MAILPREFS_DATA names another place, MAILPREFS_CONFIG the catalogue that it lies beside, DATABASE_URL a PostgreSQL of yours."
)


@dataclass
class Opening:
    """Opens each thing when it is first wanted."""

    settings: Settings = field(default_factory=settings.load)

    @cached_property
    def catalogue(self) -> Catalogue:
        return catalogue.load(self.settings.config)

    @cached_property
    def ring(self) -> KeyRing:
        return turning.load(self.settings.keys.get_secret_value())

    @cached_property
    def addresses(self) -> Addresses:
        return Addresses(self.ring.digest)

    def account(self, name: str) -> Account:
        """Return an account of the catalogue. Raises BadParameter, which says which there are."""
        if (found := self.catalogue.account_named(name)) is None:
            raise no_account(name, [each.name for each in self.catalogue.account])
        return found

    def links(self, topic: Scope) -> Links:
        return by_brand(self.catalogue.brand, self.ring)[topic.brand]

    @asynccontextmanager
    async def database(self, *, make: bool = False) -> AsyncIterator[str]:
        """Lend the URL of the database: DATABASE_URL, else the embedded server, which is brought up to date.

        Raises Misconfigured if there is none, unless it may ``make`` one: an empty database would say that all may be sent.
        """
        if self.settings.database_url is not None:
            yield self.settings.database_url.get_secret_value()
            return
        from mailprefs import embedded

        home = self.settings.home.absolute() / "postgres"
        if not embedded.is_made(home):
            if not make:
                raise Misconfigured(_NO_DATABASE.format(home=home))
            _ = self.catalogue, self.ring  # nothing is made where one of them is missing: it is the wrong place
            tell(f"a new database is made in {home}")
        async with embedded.running(home) as url:
            await self._ready(url)
            yield url

    @asynccontextmanager
    async def connected(self, *, make: bool = False) -> AsyncIterator[Connection]:
        """Lend a connection to a database that knows our numbers. Raises as ``database``, and Unavailable if it goes away meanwhile."""
        async with self.database(make=make) as url, self.session(url) as connection:
            yield connection

    @asynccontextmanager
    async def session(self, url: str) -> AsyncIterator[Connection]:
        """Lend a connection to the database at a URL, as ``connected`` does."""
        import asyncpg

        from mailprefs import db, numbers
        from mailprefs.providers import CHANNELS

        connection = await db.connect(url)
        try:
            await numbers.ready(connection, self.catalogue, self.ring.fingerprints, CHANNELS, now=now())
            yield connection
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            if db.is_trouble(error):
                raise Unavailable("the database went away. What was recorded before that is kept; try again.") from None
            raise
        finally:
            connection.terminate()  # all is committed, and close() waits for a server that may be gone

    async def migrated(self, connection: Connection) -> list[str]:
        """Bring the database up to date, make it know the catalogue, and return what was applied. Raises Misconfigured if it cannot be."""
        from mailprefs import db, numbers
        from mailprefs.providers import CHANNELS

        applied = await db.migrate(connection)
        await numbers.introduce(connection, self.catalogue, self.ring.fingerprints, CHANNELS, now=now())
        return applied

    async def _ready(self, url: str) -> None:
        from mailprefs import db

        connection = await db.connect(url)
        try:
            await self.migrated(connection)
        finally:
            await connection.close()


def contents(file: Path) -> bytes:
    """Return what a file holds, ``-`` being standard input. Raises Unreadable, which names it."""
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise Unreadable(f"{file} cannot be read: {error.strerror}") from None


def now() -> datetime:
    """The machine's time: a command is a door."""
    return datetime.now(UTC)
