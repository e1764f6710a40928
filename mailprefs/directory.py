"""Whose text we know: the addresses an application gave us, beside the keys that outlive them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mailprefs.db import Connection, queries
from mailprefs.words import Address, Channel

MOST = 20  # addresses of one person; more of them are a mistake of the application's


@dataclass(frozen=True, slots=True)
class Entry:
    """An address and what an application says about it."""

    address: Address
    locale: str | None = None
    region: str | None = None
    party: str | None = None


async def know(connection: Connection, entries: Sequence[Entry], *, now: datetime) -> int:
    """Remember addresses, in the caller's transaction, and return how many were new. Lifts nothing.

    Pushes that waited for the text of an address are due at once.
    """
    columns = {
        "bucket": [e.address.bucket for e in entries],
        "key": [e.address.key for e in entries],
        "channel": [e.address.channel for e in entries],
        "plaintext": [e.address.text for e in entries],
        "locale": [e.locale for e in entries],
        "region": [e.region for e in entries],
        "party": [e.party for e in entries],
    }
    new = int(await queries("directory").know(connection, **columns))
    await queries("directory").wake_pushes(connection, bucket=columns["bucket"], key=columns["key"], now=now)
    return new


async def party(connection: Connection, address: Address) -> list[Address]:
    """Return the other addresses of the same person, e-mail and phone, where an application tied them together."""
    rows = queries("directory").party(connection, bucket=address.bucket, key=address.key, most=MOST)
    return [Address(row["key"], Channel(row["channel"]) if row["channel"] else None) async for row in rows]
