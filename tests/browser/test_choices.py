"""The pages of one's choices in a real browser: by keyboard, narrow and wide, light and dark, in every language, and what axe finds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from aiohttp import web
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page
from pydantic import SecretStr

from mailprefs import directory, languages, ledger, passes, post
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Brand, Catalogue
from mailprefs.directory import Entry
from mailprefs.links import KeyRing, Links
from mailprefs.passes import Pass, Purpose
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web import wire
from mailprefs.words import Cause, Change, Door, Effect

from .conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SMALL = """[...document.querySelectorAll('a,button,summary,input:not([type=hidden])')]
  .map(each => [each.textContent, each.getBoundingClientRect()])
  .filter(([_, box]) => box.height < 44 || box.width < 24).map(([text]) => text)"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(brands: Catalogue, knowing: Callable[[Catalogue, KeyRing], AbstractAsyncContextManager[str]]) -> AsyncIterator[Stage]:
    """A service that can mail, with a person who gets one thing, pauses another, and stopped a third."""
    sending = [Brand.model_validate(each.model_dump(by_alias=True, exclude={"logo"}) | {"from": "a@example.com"}) for each in brands.brand]
    known = brands.model_copy(update={"brand": tuple(sending)})
    settings = Settings().model_copy(update={"smtp_url": SecretStr("smtp://127.0.0.1:9")})
    ring = KeyRing.new(date(2026, 11, 22))
    async with knowing(known, ring) as url:
        runner = wire.runner(service.create_app(settings, known, ring, database_url=url, only=("public",)))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Stage(f"http://127.0.0.1:{runner.addresses[0][1]}", url, known, ring, Addresses(ring.digest))
        await runner.cleanup()


class Guest:
    """Whose pages are looked at."""

    def __init__(self, stage: Stage, conn: asyncpg.Connection) -> None:
        self.stage, self.conn, self.now = stage, conn, datetime.now(UTC)
        self.brand = next(brand for brand in stage.catalogue.brand if brand.page == "open")
        self.private = next(brand for brand in stage.catalogue.brand if brand.page == "private")

    def link(self, name: str, brand: Brand | None = None) -> str:
        brand = brand or self.brand
        topic = next(t for t in self.stage.catalogue.topics if t.brand == brand.number and t.stream == "marketing")
        return "/p/" + Links(self.stage.ring, brand.link_host, brand.mailto).token(self.stage.addresses.read(name).key, topic)

    def managed(self, name: str, age: timedelta = timedelta()) -> str:
        one = passes.fresh(Purpose.MANAGE, self.stage.addresses.read(name).key, self.brand.number * 256, self.now - age)
        return "/m/" + passes.write(self.stage.ring, one)

    async def question(self) -> str:
        new, topic = self.stage.addresses.read("new@example.org"), self.brand.topic[0]
        scope = self.brand.number * 256 + topic.number
        await post.ask(self.conn, Purpose.CONFIRM, new, scope, language=None, now=self.now, to=new.text)
        id_ = await self.conn.fetchval("select id from mail where key = $1 limit 1", new.key)
        return "/c/" + passes.write(self.stage.ring, Pass(Purpose.CONFIRM, new.key, scope, id_, self.now))

    async def lives(self, name: str) -> None:
        """Let somebody have a phone, a stop, and a break of one topic."""
        jane, phone = self.stage.addresses.read(name), self.stage.addresses.read("+12025550123")
        await directory.know(self.conn, [Entry(each, party="p1") for each in (jane, phone)], now=self.now)
        first, second, *_ = (self.brand.number * 256 + t.number for t in self.brand.topic if t.stream == "marketing" and not t.sensitive)
        facts = [
            Change(phone, first, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "1", self.now),
            Change(jane, second, Cause.CHOICE, Effect.STOP, Door.LINK, "2", self.now),
            Change(jane, first, Cause.PAUSE, Effect.STOP, Door.PAGE, "3", self.now, self.now + timedelta(days=30)),
        ]
        await ledger.record(self.conn, facts, now=self.now)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def guest(stage: Stage, behind: asyncpg.Connection) -> Guest:
    found = Guest(stage, behind)
    await found.lives("jane@example.org")
    return found


async def sound(page: Page, width: int, heard: list[str]) -> list[Any]:
    """Return what is wrong with a page as it stands: for axe, for a thumb, for a narrow screen, or for its own policy."""
    found = (await Axe().run(page, options={"runOnly": RULES})).response["violations"]
    wrong: list[Any] = [(each["id"], [node["html"][:90] for node in each["nodes"]]) for each in found]
    wrong += [("small", text) for text in await page.evaluate(SMALL)]
    wide = await page.evaluate("document.documentElement.scrollWidth")
    return wrong + ([("wide", wide)] if wide > width else []) + [("console", each) for each in heard]


WHOLE = [("de", 320, "light"), ("ar", 1280, "dark")]  # where words are longest, and where they run the other way
CASES = WHOLE + [(code, 320, "dark") for code in languages.known()]  # the others: what is longest, and what is asked


@pytest.mark.parametrize(("code", "width", "theme"), CASES)
async def test_every_page_of_choices_is_sound(browser: Browser, guest: Guest, code: str, width: int, theme: Any) -> None:
    paths: dict[str, tuple[str, str]] = {
        "preferences": (guest.link("jane@example.org"), ""),
        "stopped": (guest.link(f"{code}{width}@example.org"), 'button[value="all"]'),
        "private": (guest.link("jane@example.org", guest.private), ""),
        "wrong address": (f"/preferences?brand={guest.brand.name}", "button.first"),
        "mailed": (guest.link(f"{code}{width}@example.org", guest.private), 'button[name="mail"]'),
        "open": (guest.managed("jane@example.org"), ""),
        "session": (guest.managed("jane@example.org"), 'button[name="open"]'),
        "ended": (guest.managed("jane@example.org", timedelta(hours=2)), ""),
        "wanted": (await guest.question(), ""),
    }
    if (code, width, theme) not in WHOLE:
        paths = {name: paths[name] for name in ("preferences", "wanted")}
    context = await browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme, java_script_enabled=True)
    page = await context.new_page()
    heard: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    wrong: dict[str, Any] = {}
    for name, (path, press) in paths.items():
        asked.clear()
        answer = await page.goto(f"{guest.stage.base}{path}{'&' if '?' in path else '?'}lang={code}")
        assert answer
        assert len(await answer.body()) < 30_000
        if press:
            await page.click(press)
        if found := await sound(page, width, heard):
            wrong[name] = found
        assert await page.get_attribute("html", "lang") == code
        assert {each.split("?")[0] for each in asked} == {f"{guest.stage.base}{path}".split("?")[0]}, "nothing else is asked for"
    await context.close()
    assert wrong == {}


async def test_a_topic_is_stopped_and_taken_back_by_keyboard_alone_without_a_script(browser: Browser, guest: Guest) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(guest.stage.base + guest.link("keys@example.org"))
    key = guest.stage.addresses.read("keys@example.org").key
    for effect in ("stop", "withdraw"):
        for _ in range(20):
            await page.keyboard.press("Tab")
            at = page.locator(":focus")
            if await at.get_attribute("name") == ("do" if effect == "stop" else "undo") and await at.get_attribute("value") != "all":
                break
        async with page.expect_navigation():
            await page.keyboard.press("Enter")
        rows = await guest.conn.fetch("select effect from consent where key = $1 order by at desc, evidence desc", key)
        assert effect in {row[0] for row in rows}
        assert (await page.title()).startswith("Saved" if effect == "stop" else "Undone")
    await context.close()
