"""Letters for tests: the corpus under payloads/mail, with tokens of the test's own key ring in their places, and what became of one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.letters import Letter
from mailprefs.links import Links

FOLDER = Path(__file__).parent.parent / "payloads" / "mail"
ENTRIES: list[dict[str, Any]] = tomllib.loads((FOLDER / "corpus.toml").read_text(encoding="utf-8"))["letter"]
ROOT, MARKETING, NEWSLETTER = 0, 257, 272
AUTHSERV = "mx.example.com"

Row = tuple[Any, ...]  # whose key, scope, cause, effect


@dataclass(frozen=True)
class Postbox:
    """Writes letters of the corpus, and knows who is who."""

    links: Links
    addresses: Addresses
    catalogue: Catalogue

    @property
    def token(self) -> str:
        """The token of jane@example.org for the newsletter."""
        return self.links.token(self.addresses.read("jane@example.org").key, self.catalogue.topic("newsletter"))

    def filled(self, text: str) -> str:
        cut = f"{self.token[:30]}=\n{self.token[30:]}"
        return text.replace("%TOKEN%", self.token).replace("%token%", self.token.lower()).replace("%TOKEN_QP%", cut)

    def letter(self, entry: Mapping[str, Any]) -> Letter:
        raw = self.filled((FOLDER / entry["file"]).read_text(encoding="utf-8")).encode()
        return Letter(raw, self.filled(entry["to"]), entry.get("from"))

    def expected(self, entry: Mapping[str, Any]) -> set[Row]:
        """The rows of the ledger that an entry calls for."""
        rows = [(whose, ROOT, "bounce", "stop") for whose in entry.get("hard", ())]
        rows += [(whose, MARKETING, "complaint", "stop") for whose in entry.get("complained", ())]
        rows += [(whose, MARKETING, "complaint", "note") for whose in entry.get("noted", ())]
        rows += [(whose, scope, "choice", "stop") for whose, scopes in entry.get("left", {}).items() for scope in scopes]
        return {(self.addresses.heard(whose).key, *rest) for whose, *rest in rows}


async def rows(conn: asyncpg.Connection) -> set[Row]:
    """Return what the ledger holds."""
    found = await conn.fetch("select key, scope, cause, effect, door from consent")
    assert {row["door"] for row in found} <= {"mail"}
    return {tuple(row)[:4] for row in found}


async def soft(conn: asyncpg.Connection) -> set[Any]:
    """Return whose soft bounces were counted."""
    return {row["key"] for row in await conn.fetch("select key from soft_bounce")}


async def aside(conn: asyncpg.Connection) -> list[str]:
    """Return why letters were kept aside."""
    return [row["reason"] for row in await conn.fetch("select reason from event where account = 'mail' order by reason")]


async def counted(conn: asyncpg.Connection) -> dict[str, int]:
    """Return how many of what was heard by mail."""
    return {row["kind"]: row["events"] for row in await conn.fetch("select kind, events from heard where account = 'mail'")}
