"""A mail gateway that looks into every link: it asks, renders, follows what it finds, and sends forms from a script in the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from aiohttp import ClientSession

PREFETCH = {"Sec-Purpose": "prefetch;prerender", "Purpose": "prefetch", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
LOOKED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}
SCRIPTED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin"}  # form.submit() in the page
PRESSED = SCRIPTED | {"Sec-Fetch-User": "?1"}  # a person did it
DEPTH = 1  # links away from the one in the message


@dataclass
class Form:
    """A form as a browser would send it, once for each of its buttons."""

    action: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[tuple[str, str]] = field(default_factory=list)

    def sent(self) -> Iterator[list[tuple[str, str]]]:
        for button in [*self.buttons, None]:
            yield self.fields + ([button] if button else [])


class Page(HTMLParser):
    """The links and forms of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[Form] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "form":
            self.forms.append(Form(found.get("action", ""), found.get("method", "get").lower()))
        elif tag == "input" and self.forms and "name" in found:
            self.forms[-1].fields.append((found["name"], found.get("value") or "jane@example.org"))
        elif tag == "button" and self.forms and "name" in found:
            self.forms[-1].buttons.append((found["name"], found.get("value", "")))


@dataclass
class Gateway:
    """Counts what it did, so that a test knows that it did something."""

    http: ClientSession
    links: int = 0
    forms: int = 0
    statuses: set[int] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)  # the paths whose forms were sent

    async def open(self, url: str) -> None:
        """Do to one link of a message whatever gateways were seen to do."""
        await self._ask("HEAD", url, PREFETCH)
        await self._ask("GET", url, PREFETCH)
        seen: set[str] = set()
        await self._explore(url, DEPTH, seen)

    async def _explore(self, url: str, depth: int, seen: set[str]) -> None:
        if depth < 0 or url in seen:
            return
        seen.add(url)
        page = Page(await self._ask("GET", url, LOOKED))
        self.links += 1
        if urlsplit(url).path not in self.tried:  # in another language they are the same forms
            self.tried.add(urlsplit(url).path)
            for form in page.forms:
                await self._submit(url, form)
        for link in page.links:
            target = urljoin(url, link)
            if urlsplit(target).netloc == urlsplit(url).netloc:
                await self._explore(target.partition("#")[0], depth - 1, seen)

    async def _submit(self, url: str, form: Form) -> None:
        for fields in form.sent() if form.method == "post" else ():
            answer = await self._ask("POST", urljoin(url, form.action), SCRIPTED, fields)
            self.forms += 1
            for again in Page(answer).forms:  # and once more with what came back
                await self._ask("POST", urljoin(url, again.action), SCRIPTED, next(again.sent()))

    async def _ask(self, method: str, url: str, headers: dict[str, str], fields: list[tuple[str, str]] | None = None) -> str:
        async with self.http.request(method, url, headers=headers, data=fields) as answer:
            self.statuses.add(answer.status)
            return await answer.text()
