"""Every page, in every language: as anybody may come to it, whatever they see, hear or press with."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Frame, Page, Response, Route

from mailprefs import languages

from .scenes import SCENES, Tour

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERY = (
    os.environ.get("MAILPREFS_TEST_PAGES") == "all"
)  # each page in each theme, width and brand too, axe on all; else each in one of these
PICTURES = os.environ.get("MAILPREFS_TEST_PICTURES")  # a folder to put them in, to be looked at
ONLY = os.environ.get("MAILPREFS_TEST_SCENES", "").split()
LARGEST = 15 * 1024  # bytes of HTML
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]
LOCALES = {"zh-Hans": "zh-CN"}
LOOKS = list(product(("light", "dark"), (320, 1280), ("connective/newsletter", "sun/news")))

# what stands out of the window, and what is too small for a finger; the first that has words is cut if they do not fit it
MEASURE = """() => {
  const root = document.documentElement, shown = e => e.getClientRects().length && getComputedStyle(e).visibility !== 'hidden';
  const targets = [...document.querySelectorAll('a, button, summary, input:not([type=hidden])')].filter(shown);
  const words = e => (e.innerText || e.name).trim().slice(0, 40);
  return {
    lang: root.lang, dir: root.dir, h1: document.querySelectorAll('h1').length,
    over: Math.max(root.scrollWidth, document.body.scrollWidth) - root.clientWidth,
    small: targets.filter(e => { const b = e.getBoundingClientRect(); return b.height < 43.9 || b.width < 24 }).map(words),
    cut: targets.filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline').map(words),
  }
}"""
SPACING = """() => { const made = document.createElement('style'); made.textContent =
  '*{line-height:1.5!important;letter-spacing:.12em!important;word-spacing:.16em!important} p{margin-bottom:2em!important}';
  const sheet = new CSSStyleSheet(); sheet.replaceSync(made.textContent); document.adoptedStyleSheets = [sheet]; }"""
LARGE = "() => { const s = new CSSStyleSheet(); s.replaceSync('html{font-size:200%!important}'); document.adoptedStyleSheets = [s]; }"


@dataclass
class Watched:
    """A page of a browser, with all that it asked for and complained about since it was last looked at."""

    page: Page
    pages: int = 0  # it has shown
    requests: list[str] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("framenavigated", self._shown)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("response", self._answered)
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))

    def _shown(self, _frame: Frame) -> None:
        self.pages += 1

    def _answered(self, answer: Response) -> None:  # Playwright takes no built-in function
        self.answers.append(answer)

    def forget(self) -> None:
        self.pages = 0
        self.requests.clear()
        self.answers.clear()
        self.messages.clear()


@asynccontextmanager
async def looking(browser: Browser, language: str, **more: Any) -> AsyncIterator[Watched]:
    context = await browser.new_context(locale=LOCALES.get(language, language), viewport={"width": 320, "height": 640}, **more)
    yield Watched(await context.new_page())
    assert await context.cookies() == []
    await context.close()


def looks() -> Iterator[list[tuple[Any, ...]]]:
    """For each page in each language: how it is looked at. In turn, or in every way."""
    turns = cycle(LOOKS)
    while True:
        yield LOOKS if EVERY else [next(turns)]


@pytest.mark.timeout(1800 if EVERY else 300)  # seconds
@pytest.mark.parametrize("language", languages.known())
async def test_every_page_is_for_everybody(browser: Browser, tour: Tour, language: str) -> None:
    turns, place = looks(), list(languages.known()).index(language)
    for _ in range(place):  # so that each page is looked at differently in each language
        next(turns)
    found: dict[str, Any] = {}
    async with looking(browser, language) as watched:
        for n, name in enumerate(ONLY or SCENES):
            for scheme, width, topic in next(turns):
                await watched.page.emulate_media(color_scheme=scheme)
                await watched.page.set_viewport_size({"width": width, "height": 800})
                await SCENES[name](watched.page, tour, topic)
                if PICTURES:
                    path = Path(PICTURES) / f"{name}-{language}-{width}-{scheme}-{topic.partition('/')[0]}.png"
                    await watched.page.screenshot(path=path, full_page=True)
                faults = await faults_of(watched, language)
                if EVERY or n % len(languages.known()) == place:  # it takes a second
                    faults |= await barriers(watched.page)
                watched.forget()
                if faults:
                    found[f"{name} {scheme} {width} {topic}"] = faults
    assert found == {}


# each button of a topic: how far it stands from the edge of its row, and from the height of the state that it changes
BESIDE = """() => [...document.querySelectorAll('.topic .cell button')].map(button => {
  const cell = button.parentElement, row = cell.parentElement.getBoundingClientRect(), at = button.getBoundingClientRect();
  const state = cell.querySelector('.state').getBoundingClientRect(), rtl = getComputedStyle(button).direction === 'rtl';
  return [Math.round(rtl ? at.left - row.left : row.right - at.right), Math.max(0, at.top - state.bottom, state.top - at.bottom)]
})"""


@pytest.mark.parametrize("language", ["de", "ar"])  # the longest words, and the mirrored page
async def test_each_button_stands_beside_what_it_stops_at_the_edge_of_its_row(browser: Browser, tour: Tour, language: str) -> None:
    async with looking(browser, language) as watched:
        await SCENES["preferences"](watched.page, tour, "connective/newsletter")
        for width in (390, 768, 1280):
            await watched.page.set_viewport_size({"width": width, "height": 800})
            assert await watched.page.evaluate(BESIDE) == [[0, 0]] * 2, width


async def faults_of(watched: Watched, language: str) -> dict[str, Any]:
    """Return what is wrong with a page, by what it is."""
    page = watched.page
    faults: dict[str, Any] = {}
    seen = await page.evaluate(MEASURE)
    expected = {"lang": language, "dir": languages.known()[language].direction, "h1": 1, "over": 0, "small": [], "cut": []}
    faults |= {name: value for name, value in seen.items() if value != expected[name]}
    last = [answer for answer in watched.answers if answer.request.is_navigation_request()][-1]
    faults |= {"requests": watched.requests} if len(watched.requests) != watched.pages else {}  # one for each page
    faults |= {"messages": watched.messages} if [m for m in watched.messages if "Failed to load resource" not in m] else {}
    size = len(await last.body())
    faults |= {"bytes": size} if size > LARGEST else {}
    for style, wide in ((SPACING, (320,)), (LARGE, (320, 640, 1280))):
        faults |= await grown(page, style, wide)
    return faults


async def barriers(page: Page) -> dict[str, Any]:
    """Return what axe finds on a page."""
    results = await Axe().run(page, options={"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations", "incomplete"]})
    each = [one for kind in ("violations", "incomplete") for one in results.response[kind]]
    return {one["id"]: [node["html"] for node in one["nodes"]] for one in each}


async def grown(page: Page, style: str, widths: tuple[int, ...]) -> Mapping[str, Any]:
    """Return what stands out of the page with larger or wider letters."""
    size = page.viewport_size
    found = {}
    await page.evaluate(style)
    for width in widths:
        await page.set_viewport_size({"width": width, "height": 800})
        seen = await page.evaluate(MEASURE)
        if seen["over"] or seen["cut"]:
            found[f"{'spacing' if style is SPACING else 'large'} {width}"] = (seen["over"], seen["cut"])
    await page.evaluate("() => { document.adoptedStyleSheets = [] }")
    if size:
        await page.set_viewport_size(size)
    return found


WRONG = (
    """<!doctype html><html lang="en" dir="ltr"><meta name="viewport" content="width=device-width"><h1>One</h1><h1>Two</h1>
<p style="width:400px">wide</p><button style="height:20px">low</button>
<button style="width:60px;height:44px;overflow:hidden;white-space:nowrap">cut off at its edge</button>
<img src="more"><script>console.log("heard")</script>"""
    + "x " * LARGEST
)
TIGHT = """<!doctype html><html lang="en" dir="ltr"><meta name="viewport" content="width=device-width"><h1>One</h1>
<button style="width:180px;height:44px;overflow:hidden;white-space:nowrap;font-size:1rem">fits until it grows</button>"""


@pytest.mark.parametrize(
    ("page", "faults"),
    [
        (WRONG, {"h1", "over", "small", "cut", "requests", "messages", "bytes", "spacing 320", "large 320", "large 640", "large 1280"}),
        (TIGHT, {"spacing 320", "large 320", "large 640", "large 1280"}),
    ],
    ids=["wrong", "tight"],
)
async def test_what_is_wrong_with_a_page_is_found(browser: Browser, page: str, faults: set[str]) -> None:
    """The control of all that is looked at above."""

    async def served(route: Route) -> None:
        await route.fulfill(body=page, content_type="text/html")

    async with looking(browser, "en") as watched:
        await watched.page.route("**/*", served)
        await watched.page.goto("https://www.example.com/")
        assert set(await faults_of(watched, "en")) == faults
        assert await barriers(watched.page) if page is WRONG else True
