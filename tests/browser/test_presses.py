"""What a browser says of who pressed: a person's press stops, and a script in the page presses nothing."""

from __future__ import annotations

import asyncpg
import pytest
from aiohttp import ClientSession
from playwright.async_api import Browser, Request

from mailprefs.links import Links

from .conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = 5
# Run by the page itself as it loads, the first time in each tab: what Playwright evaluates counts as pressed by a person.
ONCE = """addEventListener('load', () => {
  sessionStorage.loads = 1 + Number(sessionStorage.loads || 0);
  if (sessionStorage.loads == 1) { %s } })"""
SUBMIT = """const form = document.querySelector('main form'), made = document.createElement('input');
  made.type = 'hidden'; made.name = 'stop'; made.value = 'this'; form.append(made); form.submit()"""
CLICK = "document.querySelector('button[value=this]').click()"
NEXT = """addEventListener('load', () => {
  const todo = sessionStorage.todo === undefined ? document.forms.length : Number(sessionStorage.todo);
  if (todo > 0 && document.forms[todo - 1]) { sessionStorage.todo = todo - 1; document.forms[todo - 1].submit() }
  else sessionStorage.done = 1 })"""


def link(stage: Stage, text: str) -> str:
    brand = stage.catalogue.brand[0]
    token = Links(stage.ring, brand.link_host, brand.mailto).token(
        stage.addresses.read(text).key, stage.catalogue.topic("connective/newsletter")
    )
    return f"{stage.base}/u/{token}"


async def rows(behind: asyncpg.Connection, stage: Stage, text: str) -> int:
    return int(await behind.fetchval("select count(*) from consent where key = $1", stage.addresses.read(text).key))


async def test_a_persons_press_stops_and_is_taken_back(browser: Browser, stage: Stage, behind: asyncpg.Connection) -> None:
    page = await browser.new_page()
    await page.goto(link(stage, "jane@example.org"))
    await page.click("button[value=this]")
    assert await page.title() == "Stopped · Connective Care"
    assert await rows(behind, stage, "jane@example.org") == 1
    await page.click("button[name=undo]")
    assert (await page.title()).startswith("Undone")
    await page.close()


@pytest.mark.parametrize("script", [SUBMIT, CLICK], ids=["submit", "click"])
async def test_what_a_script_presses_stops_nothing(browser: Browser, stage: Stage, behind: asyncpg.Connection, script: str) -> None:
    text = f"joe{len(script)}@example.org"
    page = await browser.new_page()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    await page.add_init_script(ONCE % script)
    await page.goto(link(stage, text))
    await page.wait_for_function("() => sessionStorage.loads == 2")
    assert sent == ["GET", "POST"], "the script did press"
    assert await page.title() == "Stop these emails? · Connective Care"
    assert await rows(behind, stage, text) == 0
    await page.click("button[value=this]")  # the control: the same page, pressed
    assert await rows(behind, stage, text) == 1
    await page.close()


async def test_a_gateway_that_renders_and_submits_everything_unsubscribes_nobody(
    browser: Browser, stage: Stage, behind: asyncpg.Connection
) -> None:
    people, sent = [f"guest{n}@example.org" for n in range(MESSAGES)], 0

    def counted(request: Request) -> None:
        nonlocal sent
        sent += request.method == "POST"

    for text in people:
        context = await browser.new_context()
        await context.add_init_script(NEXT)
        page = await context.new_page()
        page.on("request", counted)
        url = link(stage, text)
        for path in (url, url.replace("/u/", "/p/"), f"{url}?lang=de"):
            await page.goto(path)
            await page.wait_for_function("() => sessionStorage.done")
            await page.evaluate("() => sessionStorage.clear()")
        await context.close()
    assert sent >= 3 * MESSAGES
    assert sum([await rows(behind, stage, text) for text in people]) == 0
    async with ClientSession() as http:
        for text in people:
            async with http.post(link(stage, text), data={"List-Unsubscribe": "One-Click"}) as answer:
                assert answer.status == 200
    assert sum([await rows(behind, stage, text) for text in people]) == MESSAGES
