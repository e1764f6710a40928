"""Global Privacy Control: a browser that sends ``Sec-GPC: 1`` opts its person out of ads. Do Not Track says nothing here."""

from __future__ import annotations

import asyncio

from aiohttp import web

from mailprefs import choices, db, decisions, telemetry
from mailprefs.catalogue import Brand
from mailprefs.web.keys import HOUSE, POOL, PRESSES
from mailprefs.words import ADS, Address, Cause, Change, Door, Effect


def asks(request: web.Request) -> bool:
    """True if a browser sends Global Privacy Control."""
    return request.headers.get("Sec-GPC") == "1"


async def honour(request: web.Request, address: Address, brand: Brand | None) -> bool:
    """Record the opt-out of ads that a browser asks for, once for each address of this person, and return whether it holds.

    It changes no choice about mail (11 CCR 7025). Whoever allows ads again later, by a mailed link, has said so later than this.
    Raises Unavailable.
    """
    if not asks(request) or brand is None or not brand.ads:
        return False
    now, scope = request.app[HOUSE].clock(), brand.number * 256 + ADS
    async with db.acquired(request.app[POOL]) as connection:
        person = await choices.person(connection, address)
    # one name for all times: the signal comes with every request, and counts once
    stops = [Change(each, scope, Cause.CHOICE, Effect.STOP, Door.PAGE, f"gpc-{scope}", now) for each in person.everyone]
    added = await asyncio.gather(*(request.app[PRESSES].record(stop, now=now) for stop in stops))  # one commit, as any press
    telemetry.count("privacy_signals", sum(added))
    async with db.acquired(request.app[POOL]) as connection:
        return await decisions.is_held(connection, address, scope, now=now)
