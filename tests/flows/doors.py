"""The whole service on a free port, over real HTTP, with a key to get in by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from mailprefs import apikeys, numbers
from mailprefs.apikeys import Power
from mailprefs.catalogue import Catalogue
from mailprefs.cli.service import listening
from mailprefs.links import KeyRing
from mailprefs.providers import CHANNELS
from mailprefs.sandbox import sendgrid
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web import evenness
from mailprefs.web.keys import HOUSE, utcnow


@dataclass(frozen=True)
class Doors:
    """What a test needs to knock at every door."""

    base: str
    port: int
    http: ClientSession
    api_key: str
    signing_key: str  # with which SendGrid would sign a delivery

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}


@asynccontextmanager
async def opened(
    database: str, catalogue: Catalogue, ring: KeyRing, *, clock: Callable[[], datetime] = utcnow, least: float = 0.0
) -> AsyncIterator[Doors]:
    """Lend the doors of a service on this database, released there. Its accounts are those of SendGrid, all with one signing key."""
    private, public = sendgrid.key_pair()
    secrets = {v: public if name == "webhook_key" else "SG." + "x" * 40 for a in catalogue.account for name, v in a.secrets.items()}
    app = service.create_app(Settings().lending(secrets), catalogue, ring, database_url=database)
    app[HOUSE], app[evenness.LEAST] = replace(app[HOUSE], clock=clock), least
    key = await _released(database, catalogue, ring)
    async with (
        listening(app, "127.0.0.1", 0) as port,
        ClientSession(cookie_jar=DummyCookieJar(), connector=TCPConnector(limit=0), timeout=ClientTimeout(60)) as http,
    ):
        yield Doors(f"http://127.0.0.1:{port}", port, http, key, private)


async def _released(database: str, catalogue: Catalogue, ring: KeyRing) -> str:
    """Make the database know the catalogue, and return a key of the API."""
    connection = await asyncpg.connect(database)
    try:
        await numbers.introduce(connection, catalogue, ring.fingerprints, CHANNELS, now=datetime.now(UTC))
        _, text = await apikeys.issue(connection, list(Power), "tests", now=datetime.now(UTC))
        return text
    finally:
        await connection.close()
