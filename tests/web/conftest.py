"""The whole service on a free port, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
from aiohttp import ClientSession, DummyCookieJar, web

from mailprefs import apikeys
from mailprefs.apikeys import Power
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing
from mailprefs.sandbox import sendgrid
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web import wire

API_KEY = "SG." + "x" * 40


@pytest.fixture(scope="session")
def signing() -> tuple[str, str]:
    """The private and the public key of SendGrid's webhook."""
    return sendgrid.key_pair()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, signing: tuple[str, str], database: str) -> Settings:
    for variable in ("SENDGRID_WEBHOOK_KEY", "SENDGRID_SECOND_WEBHOOK_KEY"):
        monkeypatch.setenv(variable, signing[1])
    for variable in ("SENDGRID_API_KEY", "SENDGRID_SECOND_API_KEY"):
        monkeypatch.setenv(variable, API_KEY)
    monkeypatch.setenv("DATABASE_URL", database)
    return Settings()


@pytest.fixture
async def app(settings: Settings, shared_catalogue: Catalogue, ring: KeyRing, database: str) -> web.Application:
    return service.create_app(settings, shared_catalogue, ring, database_url=database)


@pytest.fixture
async def base(app: web.Application) -> AsyncIterator[str]:
    """The URL of the running service."""
    runner = wire.runner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(cookie_jar=DummyCookieJar()) as session:
        yield session


@pytest.fixture
async def bearer(conn: asyncpg.Connection) -> dict[str, str]:
    """The header of a key with every power."""
    _, text = await apikeys.issue(conn, list(Power), "tests", now=datetime.now(UTC))
    return {"Authorization": f"Bearer {text}"}
