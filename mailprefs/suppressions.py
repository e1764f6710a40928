"""Everything held, on its way out: for another tool or a successor as ``import suppressions`` takes it; for an affiliate, hashed.

15 USC 7704(a)(4)(A)(iv): the address of whoever opted out may be handed on for one purpose alone, to keep mail from it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mailprefs import addresses
from mailprefs.catalogue import Catalogue
from mailprefs.db import Connection, queries
from mailprefs.decisions import name_of
from mailprefs.errors import Misconfigured, Unreadable
from mailprefs.words import BUCKETS, Cause

COLUMNS = ("address", "scope", "cause", "at", "evidence")
HASHED = ("hash", "scope")
SHORTEST = 16  # bytes of a taker's key
_WISHED = (Cause.CHOICE, Cause.COMPLAINT, Cause.MINOR)  # what an affiliate must know; that mail bounced is nobody's wish


@dataclass
class Handover:
    """What was handed over, and what could not be."""

    rows: int = 0
    nameless: int = 0  # addresses whose text is unknown, or erased
    ending: int = 0  # holds that end by themselves, and stay here


Spelling = Callable[[Mapping[str, Any], str], tuple[str, ...] | None]


def spelled(row: Mapping[str, Any], scope: str) -> tuple[str, ...]:
    """Return one hold as ``import suppressions`` takes it."""
    return row["plaintext"], scope, row["cause"], row["off_at"].isoformat(), row["evidence"]


def hashed(key: bytes) -> Spelling:
    """Return what spells one hold under the taker's own key: HMAC-SHA256 of the canonical address, in hex. Raises Misconfigured."""
    if len(key) < SHORTEST:
        raise Misconfigured(f"the taker's key has {SHORTEST} bytes at least; with fewer, addresses can be guessed")
    context = addresses.keyed(key)

    def spell(row: Mapping[str, Any], scope: str) -> tuple[str, ...] | None:
        if row["cause"] not in _WISHED:
            return None
        copy = context.copy()
        copy.update(canonical(row["plaintext"]).encode())
        return copy.digest().hex(), scope

    return spell


def canonical(text: str) -> str:
    """Return an address as it is hashed: e-mail with a folded local part and its domain as lower-case A-label, or a number in E.164."""
    trimmed = text.strip()
    try:
        return addresses.email(trimmed) if "@" in trimmed else addresses.phone(trimmed)
    except Unreadable:
        return trimmed.casefold()


async def stream(
    connection: Connection, catalogue: Catalogue, spell: Spelling, done: Handover, *, now: datetime, progress: Callable[[int], None]
) -> AsyncIterator[bytes]:
    """Give lines of CSV without their header, bucket by bucket, all of one snapshot; ``done`` counts."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for bucket in range(BUCKETS):
            rows = [row async for row in queries("suppressions").held(connection, bucket=bucket, now=now)]
            lines = list(dict.fromkeys(_lines(rows, catalogue, spell, done)))  # two causes at one scope are one hash
            done.rows, done.nameless = done.rows + len(lines), done.nameless + len({row["key"] for row in rows if row["plaintext"] is None})
            yield _csv(lines)
            progress(len(lines))


def _lines(rows: list[Mapping[str, Any]], catalogue: Catalogue, spell: Spelling, done: Handover) -> Iterator[tuple[str, ...]]:
    for row in rows:
        if row["plaintext"] is None:
            continue
        if Cause(row["cause"]).ends:
            done.ending += 1
        elif (line := spell(row, name_of(catalogue, row["scope"]))) is not None:
            yield line


def _csv(lines: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()
