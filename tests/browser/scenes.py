"""Every page that a person can come to, by its name, and how they come to it: by links and presses, each as somebody of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

import asyncpg
from playwright.async_api import Page

from mailprefs import directory, languages, passes, post
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Brand, Catalogue
from mailprefs.directory import Entry
from mailprefs.links import KeyRing, Links
from mailprefs.passes import Purpose
from mailprefs.web import pages
from mailprefs.web.screens import AGAIN, Offered
from mailprefs.words import Address

LATE = timedelta(days=10)  # after every link that ends


@dataclass(frozen=True, slots=True)
class Tour:
    """A running service, and what tests look behind it with."""

    base: str  # its URL
    lost: str  # the URL of another that cannot reach its database
    behind: asyncpg.Connection
    catalogue: Catalogue
    ring: KeyRing
    addresses: Addresses
    _people: count[int] = field(default_factory=lambda: count(1))

    async def person(self) -> Address:
        """Return the address of somebody new, whose phone we know as well."""
        number = next(self._people)
        mail, phone = self.addresses.read(f"jane{number}@example.com"), self.addresses.read(f"+1500555{number:04}")
        await directory.know(self.behind, [Entry(each, party=f"party{number}") for each in (mail, phone)], now=datetime.now(UTC))
        return mail

    def token(self, whose: Address, topic: str = "connective/newsletter") -> str:
        brand = self._brand(topic)
        return Links(self.ring, brand.link_host, brand.mailto).token(whose.key, self.catalogue.topic(topic))

    def managed(self, whose: Address, topic: str = "connective/newsletter", ago: timedelta = timedelta()) -> str:
        now = datetime.now(UTC) - ago
        return passes.write(self.ring, passes.fresh(Purpose.MANAGE, whose.key, self._brand(topic).number * 256, now))

    async def asked(self, whose: Address, topic: str = "connective/newsletter", ago: timedelta = timedelta()) -> str:
        """Return the link by which somebody was asked whether they want a topic."""
        now, scope = datetime.now(UTC), self._brand(topic).number * 256 + self.catalogue.topic(topic).number % 256
        assert await post.ask(self.behind, Purpose.CONFIRM, whose, scope, language=None, now=now, to=whose.text)
        id_ = await self.behind.fetchval("select id from mail where key = $1 order by asked_at desc limit 1", whose.key)
        return passes.write(self.ring, passes.Pass(Purpose.CONFIRM, whose.key, scope, id_, now - ago))

    def _brand(self, topic: str) -> Brand:
        return next(brand for brand in self.catalogue.brand if brand.name == topic.partition("/")[0])

    async def rows(self, whose: Address | None = None) -> int:
        """Return how many rows the ledger has, of one address or of all."""
        return int(await self.behind.fetchval("select count(*) from consent where $1::uuid is null or key = $1", whose and whose.key))


Scene = Callable[[Page, Tour, str], Awaitable[None]]


async def press(page: Page, control: str) -> None:
    """Press, and wait for the whole page that comes of it."""
    async with page.expect_navigation():
        await page.click(control)


async def confirm(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.base}/u/{tour.token(await tour.person(), topic)}")


async def result(page: Page, tour: Tour, topic: str) -> None:
    await confirm(page, tour, topic)
    await press(page, "button[value=this]")


async def everything(page: Page, tour: Tour, topic: str) -> None:
    await confirm(page, tour, topic)
    await press(page, "button[value=all]")


async def stopped(page: Page, tour: Tour, topic: str) -> None:
    await result(page, tour, topic)
    await page.goto(page.url)


async def undone(page: Page, tour: Tour, topic: str) -> None:
    await result(page, tour, topic)
    await press(page, "button[name=undo]")


async def late(page: Page, tour: Tour, topic: str) -> None:
    """The time to undo has ended: an undo of somebody else's is as good as an old one."""
    await result(page, tour, topic)
    await page.evaluate("() => { document.querySelector('button[name=undo]').value += 'x' }")
    await press(page, "button[name=undo]")


async def preferences(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.base}/p/{tour.token(await tour.person(), topic)}")


async def saved(page: Page, tour: Tour, topic: str) -> None:
    await preferences(page, tour, topic)
    await press(page, "button[name=do] >> nth=1")


async def paused(page: Page, tour: Tour, topic: str) -> None:
    await preferences(page, tour, topic)
    await press(page, "button[value='pause.30']")


async def private(page: Page, tour: Tour, topic: str) -> None:
    await preferences(page, tour, "quiet/letters")


async def nameless(page: Page, tour: Tour, topic: str) -> None:
    """What a private brand says of a stop."""
    await result(page, tour, "quiet/letters")


async def ask(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.base}/preferences?brand={topic.partition('/')[0]}")


async def wrong(page: Page, tour: Tour, topic: str) -> None:
    await ask(page, tour, topic)
    await page.fill("input[type=email]", "jane")
    await press(page, "button.first")


async def mailed(page: Page, tour: Tour, topic: str) -> None:
    await preferences(page, tour, topic)
    await press(page, "button[name=mail]")


async def manage(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.base}/m/{tour.managed(await tour.person(), topic)}")


async def session(page: Page, tour: Tour, topic: str) -> None:
    await manage(page, tour, topic)
    await press(page, "button.first")
    await press(page, "button[name=do] >> nth=1")


async def closed(page: Page, tour: Tour, topic: str) -> None:
    await manage(page, tour, topic)
    await press(page, "button.first")
    await press(page, "button[name=close]")


async def ended(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.base}/m/{tour.managed(await tour.person(), topic, LATE)}")


async def wanted(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.base}/c/{await tour.asked(await tour.person(), topic)}")


async def answered(page: Page, tour: Tour, topic: str) -> None:
    await wanted(page, tour, topic)
    await press(page, "button[value=yes]")


async def unanswered(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.base}/c/{await tour.asked(await tour.person(), topic, LATE)}")


async def nowhere(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.base}/u/cut-short")


async def away(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.lost}/p/{tour.token(await tour.person(), topic)}")


async def unsaved(page: Page, tour: Tour, topic: str) -> None:
    await page.goto(f"{tour.lost}/u/{tour.token(await tour.person(), topic)}")
    await press(page, "button[value=all]")


async def unsure(page: Page, tour: Tour, topic: str) -> None:
    await prepared(page, tour, topic, "unsure")


async def kept(page: Page, tour: Tour, topic: str) -> None:
    await prepared(page, tour, topic, "kept")


async def prepared(page: Page, tour: Tour, topic: str, name: str) -> None:
    """Show what is said in a session whose database goes away at the worst moment; that it is said then, `flows.between` shows."""
    brand = next(brand for brand in tour.catalogue.brand if brand.name == topic.partition("/")[0])
    language = languages.chosen(asked="", stored=None, accepted=await page.evaluate("() => navigator.language"), usual="en")
    offered = [Offered(each.code, each.name, each.direction, f"?lang={each.code}") for each in languages.known().values()]
    text, policy = pages.render(name, brand, language, mailing=True, languages=offered, again=AGAIN, session="x" * 150, number="")
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
    await page.route("**/prepared", lambda route: route.fulfill(body=text, headers=headers))
    await page.goto(f"{tour.base}/prepared")
    await page.unroute("**/prepared")


SCENES: Mapping[str, Scene] = {
    scene.__name__: scene
    for scene in (
        confirm,
        result,
        everything,
        stopped,
        undone,
        late,
        preferences,
        saved,
        paused,
        private,
        nameless,
        ask,
        wrong,
        mailed,
        manage,
        session,
        closed,
        ended,
        wanted,
        answered,
        unanswered,
        nowhere,
        away,
        unsaved,
        unsure,
        kept,
    )
}
