"""The link to one's choices, as it was mailed. Opening it takes a press, so that no scanner does; then all may be changed for an hour.

Who has it reads that mailbox: so it may turn on what its recipient turned off. It is kept in no cookie, only in the page's own forms.
"""

from __future__ import annotations

from aiohttp import web

from mailprefs import db, passes, post
from mailprefs.catalogue import Brand
from mailprefs.errors import Forged, Unavailable
from mailprefs.passes import Pass, Purpose
from mailprefs.web import board, forms, screens, signals
from mailprefs.web.board import Visit
from mailprefs.web.keys import HOUSE, POOL
from mailprefs.words import Address

routes = web.RouteTableDef()


@routes.get("/m/{token}")
async def look(request: web.Request) -> web.Response:
    """Show a button that opens one's choices. Changes nothing but what the browser's privacy signal asks for."""
    found = _read(request)
    if found is None:
        return screens.ends_here(request)
    link, brand = found
    try:
        honoured = await signals.honour(request, Address(link.key), brand)
    except Unavailable:
        return screens.away(request, brand)
    return _open(request, brand, honoured) if link.works(request.app[HOUSE].clock()) else _ended(request, brand)


@routes.post("/m/{token}")
async def choose(request: web.Request) -> web.Response:
    """Open the page, or do what was pressed on it, for as long as the session lasts."""
    found, form = _read(request), await forms.fields(request)
    if found is None:
        return screens.ends_here(request)
    link, brand = found
    named = form.get("session", "")
    session = _session(request, link, named)
    try:
        if form.get("again") == board.MAILED:
            return board.mailed(request, brand)
        if "mail" in form and not forms.unpressed(request):
            return await board.mail(request, Visit(Address(link.key), brand))
        if session is None or (not named and forms.unpressed(request)):
            return _open(request, brand) if link.works(request.app[HOUSE].clock()) else _ended(request, brand)
        async with db.acquired(request.app[POOL]) as connection:
            if await post.is_closed(connection, link):
                return _ended(request, brand)
            if "close" in form:
                await post.close(connection, link, now=request.app[HOUSE].clock())
                return screens.show(request, "closed", brand)
        return await board.press(request, Visit(Address(link.key), brand, session=session), form)
    except Unavailable as error:
        return screens.not_saved(request, brand, error, session=named if session else "")


def _read(request: web.Request) -> tuple[Pass, Brand] | None:
    house = request.app[HOUSE]
    try:
        link = passes.read(house.ring, Purpose.MANAGE, request.match_info["token"])
    except Forged:
        return None
    brand = house.catalogue.brand_of(link.scope)
    return (link, brand) if brand else None


def _session(request: web.Request, link: Pass, value: str) -> Pass | None:
    """Return the session that a form names, or the one that opening the link begins; None if that has ended, or is another's."""
    now = request.app[HOUSE].clock()
    if not value:
        return link.opened(now) if link.works(now) else None
    try:
        session = passes.read(request.app[HOUSE].ring, Purpose.SESSION, value)
    except Forged:
        return None
    return session if (session.key, session.id) == (link.key, link.id) and session.works(now) else None


def _open(request: web.Request, brand: Brand, honoured: bool = False) -> web.Response:
    return screens.show(request, "open", brand, honoured=honoured)


def _ended(request: web.Request, brand: Brand) -> web.Response:
    return screens.show(request, "ended", brand, mailing=brand.number in request.app[HOUSE].mailing)
