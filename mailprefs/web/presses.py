"""Presses of a page: recorded together, and for half an hour taken back by whoever has that page, as far as the press itself reached.

What takes one back says, signed, whose it was, when, and under which name it was recorded; then what was pressed, in the page's own
words. So it is as long for somebody we know as for a stranger.
"""

from __future__ import annotations

import asyncio
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from aiohttp import web
from itsdangerous import BadData

from mailprefs import db, ledger, telemetry
from mailprefs.web.keys import HOUSE, POOL, PRESSES, House
from mailprefs.words import Address, Change, Door

_MADE = struct.Struct(">16s16sd?")  # whose press, its nonce, when it was, and whether a mailed link let them in; then what was pressed


class Page(StrEnum):
    """Where it was pressed. Each has keys of its own: none takes back what another made."""

    LINK = "undo"
    CHOICES = "change"


@dataclass(frozen=True, slots=True)
class Made:
    """A press, under the name that it is recorded by: so that a reload is no second press, and an undo finds it."""

    what: str  # in the words of its page
    nonce: str
    at: datetime
    door: Door = Door.PAGE

    def left(self, now: datetime) -> timedelta:
        """Return how long it can be taken back; less than zero if it cannot."""
        return self.at + ledger.UNDO - now


async def record(request: web.Request, changes: Sequence[Change]) -> list[bool]:
    """Record each and return which of them added a row of its own. Raises Unavailable: then nothing was acknowledged."""
    # all at once: they are committed together, in a time that does not tell how many there are
    added = await asyncio.gather(*(request.app[PRESSES].record(change, now=request.app[HOUSE].clock()) for change in changes))
    for change, new in zip(changes, added, strict=True):
        telemetry.count("presses", door=change.door, effect=change.effect, new=str(new).lower())
    return added


async def first_time(request: web.Request, changes: Sequence[Change]) -> datetime | None:
    """Return when this press was recorded the first time; None if anything was opened or taken back since, so that it is a new one."""
    async with db.acquired(request.app[POOL]) as connection:
        if any([await ledger.overruled(connection, change) for change in changes]):
            return None
        return await ledger.acknowledged(connection, changes[0]) or changes[0].happened_at


def way_back(house: House, page: Page, address: Address, made: Made) -> str:
    """Return what takes back a press. Whom else it took effect for is looked up again then."""
    packed = _MADE.pack(address.key.bytes, UUID(hex=made.nonce).bytes, made.at.timestamp(), made.door is Door.MANAGE) + made.what.encode()
    return str(house.ring.timed(page).dumps(urlsafe_b64encode(packed).decode()))  # so dense that it is as long for everybody


def made(house: House, page: Page, address: Address, value: str) -> Made | None:
    """Return the press that an undo names; None if it is odd, forged, late, or somebody else's. Its age counts from the press."""
    try:
        packed = urlsafe_b64decode(house.ring.timed(page).loads(value, max_age=int(ledger.UNDO.total_seconds())))
        key, nonce, at, managed = _MADE.unpack_from(packed)
        what, door = packed[_MADE.size :].decode(), Door.MANAGE if managed else Door.PAGE
        found = Made(what, UUID(bytes=nonce).hex, datetime.fromtimestamp(at, UTC), door)
    except (BadData, ValueError, TypeError, OverflowError, struct.error):
        return None
    return found if key == address.key.bytes and found.left(house.clock()) >= timedelta() else None


async def take_back(request: web.Request, stops: Sequence[Change]) -> None:
    """Take back those of these stops that were recorded within half an hour; every other stop stands. Raises Unavailable."""
    now = request.app[HOUSE].clock()
    async with db.acquired(request.app[POOL]) as connection:
        lately = [stop for stop in stops if await ledger.pressed(connection, stop, now=now)]
    await record(request, [ledger.withdrawal(stop, now=now) for stop in lately])
