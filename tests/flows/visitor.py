"""Somebody with a browser at the pages of their choices, at a service whose time stands still until it is moved."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from mailprefs import directory, passes
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Brand, Catalogue
from mailprefs.directory import Entry
from mailprefs.links import KeyRing, Links
from mailprefs.passes import Purpose
from mailprefs.words import Address

from .doors import Doors, opened

PRESSED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"}  # as a browser says that somebody pressed
SCRIPTED = {"Sec-Fetch-Mode": "navigate"}
ELSEWHERE = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site"}  # `fetch` or a beacon of another site's page


@dataclass
class Visitor:
    """Somebody with a browser, at a service whose time stands still until it is moved."""

    doors: Doors
    conn: asyncpg.Connection
    catalogue: Catalogue
    ring: KeyRing
    addresses: Addresses
    clock: list[datetime]
    text: str = ""
    path: str = ""  # of the page that is shown
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    async def get(self, path: str, headers: Mapping[str, str] = PRESSED) -> str:
        self.path = path
        async with self.doors.http.get(self.doors.base + path, headers=headers) as answer:
            self.status, self.text, self.headers = answer.status, await answer.text(), answer.headers
        return self.text

    async def post(self, path: str, headers: Mapping[str, str] = PRESSED, /, **fields: str) -> str:
        data = {name: self.hidden(name) for name in ("form", "session") if self.path == path and self.hidden(name)} | fields
        self.path = path
        async with self.doors.http.post(self.doors.base + path, data=data, headers=headers) as answer:
            self.status, self.text, self.headers = answer.status, await answer.text(), answer.headers
        return self.text

    def hidden(self, name: str) -> str:
        found = re.search(rf'type="hidden" name="{name}" value="([^"]*)"', self.text)
        return found[1] if found else ""

    @property
    def undo(self) -> str:
        found = re.search(r'name="undo" value="([^"]+)"', self.text)
        return found[1] if found else ""

    @property
    def deeds(self) -> set[str]:
        return set(re.findall(r'name="do" value="([^"]+)"', self.text))

    def link(self, address: Address, topic: str = "newsletter", ring: KeyRing | None = None) -> str:
        return "/p/" + Links(ring or self.ring, "go.example.com", "u@go.example.com").token(address.key, self.catalogue.topic(topic))

    def managed(self, address: Address) -> str:
        return "/m/" + passes.write(self.ring, passes.fresh(Purpose.MANAGE, address.key, 256, self.clock[-1]))

    async def known(self, *texts: str, party: str | None = None) -> list[Address]:
        found = [self.addresses.read(text) for text in texts]
        await directory.know(self.conn, [Entry(each, party=party) for each in found], now=self.clock[-1])
        return found

    async def rows(self, address: Address) -> list[tuple[Any, ...]]:
        query = "select scope, cause, effect, door from consent where key = $1 order by at, evidence"
        return [tuple(row) for row in await self.conn.fetch(query, address.key)]


def with_brand(catalogue: Catalogue, **changes: Any) -> Catalogue:
    """Return the catalogue with another brand in place of its first."""
    brand = Brand.model_validate(catalogue.brand[0].model_dump(by_alias=True) | changes)
    return catalogue.model_copy(update={"brand": (brand, *catalogue.brand[1:])})


@asynccontextmanager
async def visiting(
    database: str,
    conn: asyncpg.Connection,
    catalogue: Catalogue,
    ring: KeyRing,
    addresses: Addresses,
    now: datetime,
    *,
    least: float = 0.0,
    **changes: Any,
) -> AsyncIterator[Visitor]:
    """Lend a visitor at a service whose first brand is changed so; SMTP_URL must be set before."""
    known, clock = with_brand(catalogue, **({"from": "Connective Care <hello@example.com>"} | changes)), [now]
    async with opened(database, known, ring, clock=lambda: clock[-1], least=least) as doors:
        yield Visitor(doors, conn, known, ring, addresses, clock)
