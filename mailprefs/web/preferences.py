"""The preference page of a link, and the way in for who has no message at hand. Both stop at once, and turn nothing on."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from mailprefs import db, links, post, telemetry
from mailprefs.catalogue import Brand
from mailprefs.errors import Forged, Unavailable, Unreadable
from mailprefs.links import KeyState
from mailprefs.passes import Purpose
from mailprefs.web import asking, board, evenness, forms, screens, signals
from mailprefs.web.board import Visit
from mailprefs.web.keys import ASKERS, HOUSE, POOL
from mailprefs.words import Address, Channel

routes = web.RouteTableDef()


@routes.get("/p/{token}")
async def look(request: web.Request) -> web.Response:
    """Show what a person gets and can stop; of a private brand, and by a key that leaked, no more than the link itself says."""
    visit = _visit(request)
    if visit is None:
        return screens.ends_here(request)
    try:
        async with evenness.evenly(request, hidden=not visit.open and signals.asks(request)):
            return await board.show(request, visit)
    except Unavailable:
        return screens.away(request, visit.brand)


@routes.post("/p/{token}")
async def choose(request: web.Request) -> web.Response:
    """Do what was pressed, and show the page as it stands then."""
    visit = _visit(request)
    form = await forms.fields(request)
    if visit is None:
        telemetry.count("refused_links")
        return screens.ends_here(request)
    try:
        async with evenness.evenly(request, hidden=not visit.open):
            return await board.press(request, visit, form)
    except Unavailable as error:
        telemetry.count("presses_not_saved")
        return screens.not_saved(request, visit.brand, error)


def _visit(request: web.Request) -> Visit | None:
    """Return whose page a link opens: of the brand that sent it, whatever became of its topic. None for what is no link of a brand."""
    house = request.app[HOUSE]
    try:
        token = links.read(house.ring, request.match_info["token"])
    except Forged:
        return None
    brand, key = house.catalogue.brand_of(token.scope), house.ring.key(token.key_id)
    if brand is None:
        return None
    return Visit(Address(token.address), brand, trusted=key is not None and key.state is not KeyState.COMPROMISED)


async def stray(request: web.Request) -> web.Response:
    """Answer who cut a link short as who has one that does not work: with the way to another."""
    return screens.ends_here(request)


for cut in ("/", *(f"/{door}{slash}" for door in "upmc" for slash in ("", "/"))):
    routes.get(cut)(stray)


@routes.get("/preferences")
async def ask(request: web.Request) -> web.Response:
    """Ask for an address, that a link may be mailed to."""
    return _asking(request, _brand(request, request.query.get("brand", "")))


@routes.post("/preferences")
async def answer(request: web.Request) -> web.Response:
    """Owe a link to an address, whoever that is, and say the same to everybody in the same time."""
    form = await forms.fields(request)
    house, brand = request.app[HOUSE], _brand(request, form.get("brand", ""))
    if brand is not None and form.get("again") == board.MAILED:
        return board.mailed(request, brand)
    if brand is None or brand.number not in house.mailing or forms.unpressed(request):
        return _asking(request, brand)
    try:
        address = house.addresses.read(form.get("address", ""))
        if address.channel is not Channel.EMAIL:
            raise Unreadable
    except Unreadable:
        return _asking(request, brand, typed=form.get("address", ""))
    if request.app[ASKERS].allowed(asking.network(request), house.clock()):
        said = screens.speaking(request, brand).code
        try:
            async with db.acquired(request.app[POOL]) as connection:
                await post.ask(connection, Purpose.MANAGE, address, brand.number * 256, language=said, now=house.clock())
        except Unavailable as error:
            return screens.not_saved(request, brand, error)
    else:
        telemetry.alarm("too_many_askings")
    return board.mailed(request, brand)


def _brand(request: web.Request, name: str) -> Brand | None:
    """Return the brand that was chosen; else the one whose links lead to this host, or the only one."""
    brands = request.app[HOUSE].catalogue.brand
    chosen = [brand for brand in brands if brand.name == name] or [brand for brand in brands if brand.link_host == request.host]
    return chosen[0] if len(chosen) == 1 else brands[0] if len(brands) == 1 else None


def _asking(request: web.Request, brand: Brand | None, *, typed: str | None = None) -> web.Response:
    house = request.app[HOUSE]
    mailing = [each for each in house.catalogue.brand if each.number in house.mailing]
    known: dict[str, Any] = {
        "mailing": brand in mailing,
        "brands": mailing if brand is None else (),
        "wrong": typed is not None,
        "typed": typed or "",
    }
    return screens.show(request, "ask", brand, **known)
