"""A real browser at the real service: Debian's Chromium, driven by Playwright, on pages that came over HTTP."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, async_playwright
from pydantic import SecretStr

from mailprefs import catalogue
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web import wire
from mailprefs.web.keys import POOL

from .scenes import Tour

HERE = Path(__file__).parent
BRINGS = "no browser here; this brings one: apt-get install -y chromium"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let all that looks through one browser run in one worker."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))


def chromium() -> str:
    """Return the path of a browser. Where there is none, the test is skipped, or fails if a skip would hide something."""
    found = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(BRINGS)
    return found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A browser, without any extension, that asks nothing of anybody but the page."""
    path = chromium()
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-background-networking"])
        yield running
        await running.close()


@dataclass(frozen=True, slots=True)
class Stage:
    """A running service, and what tests look behind it with."""

    base: str  # its URL
    database: str
    catalogue: Catalogue
    ring: KeyRing
    addresses: Addresses


@pytest.fixture(scope="session")
def brands() -> Catalogue:
    """An open brand, one in a colour that no text can stand on, and a private one."""
    return catalogue.load(HERE / "catalogue.toml")


@asynccontextmanager
async def serving(brands: Catalogue, ring: KeyRing, url: str) -> AsyncIterator[tuple[web.Application, str]]:
    """Lend a running service that can mail, and its URL."""
    settings = Settings().model_copy(update={"smtp_url": SecretStr("smtp://127.0.0.1:9")})
    app = service.create_app(settings, brands, ring, database_url=url, only=("public",))
    runner = wire.runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield app, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(brands: Catalogue, knowing: Callable[[Catalogue, KeyRing], AbstractAsyncContextManager[str]]) -> AsyncIterator[Stage]:
    """The whole service with a database of its own, for the tests of one file."""
    ring = KeyRing.new(date(2026, 11, 22))
    async with knowing(brands, ring) as url, serving(brands, ring, url) as (_, base):
        yield Stage(base, url, brands, ring, Addresses(ring.digest))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def behind(stage: Stage) -> AsyncIterator[asyncpg.Connection]:
    """A look behind the service, at its database."""
    connection = await asyncpg.connect(stage.database, server_settings={"timezone": "UTC"})
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def tour(stage: Stage, behind: asyncpg.Connection) -> AsyncIterator[Tour]:
    """The way to every page, also to those of a service that lost sight of its database."""
    async with serving(stage.catalogue, stage.ring, stage.database) as (app, lost):
        app[POOL].terminate()
        yield Tour(stage.base, lost, behind, stage.catalogue, stage.ring, stage.addresses)
