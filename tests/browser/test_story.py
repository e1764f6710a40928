"""The whole way of a person who only has a keyboard, and what they see, hear and print on it, whatever their browser is set to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from mailprefs import languages

from .scenes import SCENES, Tour
from .test_pages import EVERY, LOCALES, MEASURE

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEWSLETTER = "connective/newsletter"
PICTURES = os.environ.get("MAILPREFS_TEST_PICTURES")  # a folder to put them in, to be looked at
SOME = ("confirm", "saved", "result", "session", "wanted") if EVERY else ("confirm", "saved")  # the fullest pages
MANY = 60  # more presses of Tab than any page has stops

# what has the focus: where it stands in the source and on the page, and the ring around it
FOCUSED = """async () => {
  await new Promise(requestAnimationFrame);  // by then it has been scrolled to
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const box = e.getBoundingClientRect(), look = getComputedStyle(e), rtl = document.dir === 'rtl';
  return {
    place: [...document.querySelectorAll('*')].indexOf(e),
    top: Math.round(box.top + scrollY), start: Math.round(rtl ? -box.right : box.left),
    ring: look.outlineStyle === 'solid' ? parseFloat(look.outlineWidth) : 0,
    seen: box.top >= 6 && box.bottom <= innerHeight - 6
      && e.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)),
  }
}"""
MOVING = """() => [...document.querySelectorAll('*')].filter(e => { const look = getComputedStyle(e);
  return look.animationName !== 'none' || look.transitionDuration !== '0s' }).length + document.getAnimations().length"""
READABLE = "e => e.checkVisibility({contentVisibilityAuto: true}) && e.getBoundingClientRect().height > 20"
BACKGROUND = "e => getComputedStyle(e).backgroundColor"

# what a screen reader says of two pages, from the first word to the last
HEARD = {
    "confirm": """\
- heading "Stop these emails?" [level=1]
- paragraph: Nothing changes until you press a button.
- term: What stops
- definition:
  - strong: Monthly newsletter
  - paragraph: Email · Once a month
- term: For this address
- definition: starts with j, at a domain that starts with e and ends in .com
- term: What continues
- definition: Messages about an order or an account you have with us.
- button "Stop these emails"
- button "Stop all marketing emails"
- paragraph: All news, offers and surveys from Connective Care.
- paragraph:
  - link "Choose topic by topic":
- paragraph: Not your address? Then this email was forwarded to you. You can close this page.""",
    "preferences": """\
- heading "Choose what you get" [level=1]
- paragraph: From Connective Care, sent to starts with j, at a domain that starts with e and ends in .com
- button "Stop all marketing"
- paragraph: Stops all news, offers and surveys, by email and by text.
- region "Topics":
  - heading "Topics" [level=2]
  - paragraph: Press Stop and it stops right away. You do not need to sign in.
  - heading "Monthly newsletter" [level=3]
  - paragraph: Once a month
  - heading "Email" [level=4]
  - paragraph: You get this
  - 'button "Stop : Monthly newsletter, Email"'
  - heading "Offers and discounts" [level=3]
  - heading "Email" [level=4]
  - paragraph: You get this
  - 'button "Stop : Offers and discounts, Email"'
- heading "Take a break" [level=2]
- paragraph: Pauses every topic you get. They start again by themselves.
- 'button "Take a break: 30 days"'
- 'button "Take a break: 60 days"'
- 'button "Take a break: 90 days"'
- heading "Turn something on" [level=2]
- paragraph: We email you a link. It shows us that this address is yours.
- button "Email me the link"
- heading "Ads" [level=2]
- paragraph: We may share information about you so that you see our ads on other sites.
- paragraph: Sharing allowed
- button "Stop sharing for ads"
- paragraph: "You can also leave the ads of many companies, on pages of the ad industry:"
- paragraph:
  - link "NAI":
  - link "DAA":
- region "Always sent":
  - heading "Always sent" [level=2]
  - list:
    - listitem:
      - heading "Orders and receipts" [level=3]
    - listitem:
      - paragraph: Messages about an order or an account you have with us.
  - paragraph: You need these, so they are always sent.""",
}


@asynccontextmanager
async def opened(browser: Browser, *, width: int = 320, height: int = 640, language: str = "en", **more: Any) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": width, "height": height}, locale=LOCALES.get(language, language), **more)
    yield await context.new_page()
    await context.close()


async def pictured(page: Page, name: str, whole: bool = True) -> None:
    if PICTURES:
        await page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=whole)


async def stops(page: Page) -> list[dict[str, Any]]:
    """Return everything that Tab comes to on a page, in that order, back to the start."""
    found: list[dict[str, Any]] = []
    for _ in range(MANY):
        await page.keyboard.press("Tab")
        at = await page.evaluate(FOCUSED)
        if at is None or (found and at["place"] == found[0]["place"]):
            return found
        found.append(at)
    raise AssertionError("Tab never comes round")


async def pressed(page: Page, selector: str, key: str = "Enter") -> str:
    """Tab to a control, press it, and return the title of the page that comes."""
    for _ in range(MANY):
        await page.keyboard.press("Tab")
        if await page.locator(":focus").count() and await page.locator(":focus").evaluate("(e, s) => e.matches(s)", selector):
            break
    else:
        raise AssertionError(f"Tab never comes to {selector}")
    async with page.expect_navigation():
        await page.keyboard.press(key)
    return await page.title()


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
async def test_the_whole_way_is_gone_by_keyboard_alone(browser: Browser, tour: Tour, script: bool) -> None:
    whose = await tour.person()
    async with opened(browser, java_script_enabled=script) as page:
        await page.goto(f"{tour.base}/u/{tour.token(whose)}")
        titles = [await page.title()]
        for selector, key in (
            ("button[value=this]", "Enter"),
            ("button[name=undo]", "Space"),
            ("a[href^='/p/']", "Enter"),
            ("button[value='pause.30']", "Space"),
            ("button[name=undo]", "Enter"),
            ("button[value=all]", "Enter"),
        ):
            titles.append(await pressed(page, selector, key))
        assert [title.removesuffix(" · Connective Care") for title in titles] == [
            "Stop these emails?",
            "Stopped",
            "Undone",
            "Choose what you get",
            "Saved · Choose what you get",
            "Undone · Choose what you get",
            "Saved · Choose what you get",
        ]
        assert "Stopped" in await page.inner_text(".notice"), "what was read back"
    rows = await tour.behind.fetch("select cause, effect from consent where key = $1 order by at, evidence", whose.key)
    effects = [("choice", "stop"), ("choice", "withdraw"), ("pause", "stop"), ("pause", "withdraw"), ("choice", "stop")]
    assert sorted(map(tuple, rows)) == sorted(effects)


async def test_the_receipt_is_opened_by_keyboard_and_printed_open_and_whole(browser: Browser, tour: Tour) -> None:
    async with opened(browser, java_script_enabled=False) as page:
        await SCENES["result"](page, tour, NEWSLETTER)
        receipt = page.locator("details pre")
        assert not await receipt.evaluate(READABLE), "the control: it is closed on the screen"
        await page.emulate_media(media="print", color_scheme="dark")
        await pictured(page, "print-result")
        assert await receipt.evaluate(READABLE)
        assert await page.locator("button:visible, footer nav:visible").count() == 0, "paper has no buttons"
        assert await page.locator("body").evaluate(BACKGROUND) == "rgb(255, 255, 255)"
        assert (await page.evaluate(MEASURE))["over"] == 0
        await page.emulate_media(media="screen", color_scheme="light")
        await page.locator("summary").focus()
        await page.keyboard.press("Enter")
        assert await receipt.evaluate(READABLE)


@pytest.mark.parametrize("language", ["en", "ar"])
async def test_focus_goes_as_the_page_is_read_and_is_seen_wherever_it_is(browser: Browser, tour: Tour, language: str) -> None:
    async with opened(browser, language=language) as page:
        for name in SOME:
            await SCENES[name](page, tour, NEWSLETTER)
            await page.evaluate("() => scrollTo(0, 0)")
            found = await stops(page)
            assert len(found) > 7, name
            assert [at["place"] for at in found] == sorted(at["place"] for at in found), name
            rows = [(at["top"], at["start"]) for at in found]
            for (top, start), (below, after) in pairwise(rows):
                assert below > top or (abs(below - top) < 8 and after > start), (name, rows)
            assert [at for at in found if at["ring"] < 3 or not at["seen"]] == [], name


@pytest.mark.parametrize("name", list(HEARD))
async def test_a_screen_reader_reads_the_whole_page_in_order(browser: Browser, tour: Tour, name: str) -> None:
    async with opened(browser) as page:
        await SCENES[name](page, tour, NEWSLETTER)
        _, *heard = (await page.locator("main").aria_snapshot()).splitlines()
        assert [line.removeprefix("  ") for line in heard if "/url:" not in line] == HEARD[name].splitlines()


@pytest.mark.parametrize("language", list(languages.known()))
async def test_the_main_button_is_in_view_without_scrolling(browser: Browser, tour: Tour, language: str) -> None:
    async with opened(browser, width=360, height=640, language=language) as page:
        await SCENES["confirm"](page, tour, NEWSLETTER)
        await pictured(page, f"first-{language}")
        box = await page.locator("button.first").bounding_box()
        assert box
        assert box["y"] + box["height"] <= 640
        await page.set_viewport_size({"width": 180, "height": 320})  # the same window, magnified twice
        seen = await page.evaluate(MEASURE)
        assert (seen["over"], seen["cut"]) == (0, [])


async def test_a_default_font_twice_as_large_cuts_nothing(browser: Browser, tour: Tour) -> None:
    async with opened(browser, language="de") as page:
        client = await page.context.new_cdp_session(page)
        for name in SOME:
            await SCENES[name](page, tour, NEWSLETTER)
            for width in (320, 640, 1280):
                await page.set_viewport_size({"width": width, "height": 4000})
                await client.send("Page.setFontSizes", {"fontSizes": {"standard": 32, "fixed": 26}})
                assert await page.evaluate("() => getComputedStyle(document.body).fontSize") == "34px", "the control: the setting is heard"
                await pictured(page, f"large-{name}-{width}", whole=False)  # a picture of what does not fit forgets the setting
                seen = await page.evaluate(MEASURE)
                assert (seen["over"], seen["cut"]) == (0, []), (name, width)


async def test_in_colours_of_ones_own_the_main_button_and_each_state_are_told_apart(browser: Browser, tour: Tour) -> None:
    async with opened(browser, forced_colors="active") as page:
        await SCENES["confirm"](page, tour, NEWSLETTER)
        await pictured(page, "forced-confirm")
        assert await page.evaluate("() => matchMedia('(forced-colors: active)').matches")
        first, other = [await page.locator(which).evaluate(BACKGROUND) for which in ("button.first", "button[value=all]")]
        assert first != other
        await SCENES["saved"](page, tour, NEWSLETTER)
        await pictured(page, "forced-saved")
        marks = [
            await page.locator(f".topic .{state}").first.evaluate("e => getComputedStyle(e, '::before').backgroundColor")
            for state in ("gets", "stopped")
        ]
        assert marks[0] != marks[1], marks
        borders = await page.locator(".card").evaluate_all("all => all.map(e => getComputedStyle(e).borderTopStyle)")
        assert set(borders) == {"solid"}


async def test_nothing_moves(browser: Browser, tour: Tour) -> None:
    async with opened(browser, reduced_motion="reduce") as page:
        await SCENES["saved"](page, tour, NEWSLETTER)
        assert await page.evaluate(MOVING) == 0
        await page.evaluate("() => document.body.animate([{opacity: 0}, {opacity: 1}], 9999)")
        assert await page.evaluate(MOVING) == 1, "the control"


async def test_leaving_takes_no_more_presses_than_joining(browser: Browser, tour: Tour) -> None:
    posts: list[str] = []
    async with opened(browser) as page:
        page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
        taken = {}
        for name, effect in (("result", "stop"), ("answered", "go"), ("saved", "stop")):  # each comes from a link in a mail
            posts.clear()
            await SCENES[name](page, tour, NEWSLETTER)
            taken[name] = len(posts)
            assert await tour.behind.fetchval("select effect from consent order by position desc limit 1") == effect
    assert taken["result"] == taken["saved"] == 1 <= taken["answered"]
