"""The recipient's door. A link may only stop, and take back the very stop it made; it never turns anything on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID, uuid4

from aiohttp import web
from itsdangerous import BadData

from mailprefs import db, decisions, directory, ledger, links, telemetry
from mailprefs.catalogue import Brand
from mailprefs.errors import Forged, MailprefsError, Unavailable
from mailprefs.links import KeyState, Token
from mailprefs.web import pages, problems
from mailprefs.web.keys import HOUSE, POOL, PRESSES, THOUGHTS, House
from mailprefs.words import MARKETING, Address, Cause, Change, Door, Effect

BODY = 8 * 1024  # bytes of a press that are read, for evidence alone
PATIENCE = 5.0  # seconds
FORM = 30 * 24 * 3600  # seconds a page's form keeps its nonce; an older press counts all the same

routes = web.RouteTableDef()


@dataclass(frozen=True, slots=True)
class Press:
    """What a link names: whose mail, and the nodes that a stop lands on."""

    address: Address
    scopes: tuple[int, ...]
    brand: Brand | None
    undoable: bool = True  # a link under a compromised key may stop, nothing else

    @property
    def marketing(self) -> tuple[int, ...]:
        """The marketing nodes above its scopes."""
        return tuple(sorted({scope >> 8 << 8 | MARKETING for scope in self.scopes}))

    @property
    def everything(self) -> bool:
        return self.scopes == self.marketing


def pressed(house: House, token: Token) -> Press:
    """Return what a token stops, and for whom."""
    key = house.ring.key(token.key_id)
    undoable = key is not None and key.state is not KeyState.COMPROMISED
    return Press(Address(token.address), house.catalogue.left_by(token.scope), house.catalogue.brand_of(token.scope), undoable)


@routes.get("/u/{token}")
async def confirm(request: web.Request) -> web.Response:
    """Show what would stop, and a button. Changes nothing, whoever looks: scanners open every link."""
    press = _read(request)
    return _ends_here() if press is None else _confirm(request.app[HOUSE], press)


@routes.post("/u/{token}")
async def stop(request: web.Request) -> web.Response:
    """Stop what the link names. The token is in the path, so no body can veto an opt-out (RFC 8058 §3.2)."""
    press = _read(request)
    body = await _evidence(request)
    if press is None:
        telemetry.count("refused_links")
        return _ends_here()
    form = _fields(body)
    try:
        if "undo" in form and b"One-Click" not in body:  # no body vetoes a mailbox provider's press
            return await _undo(request, press, form["undo"])
        if "form" in form:
            return await _page(request, press, form)
        return await _one_click(request, press, b"One-Click" in body)
    except Unavailable:
        telemetry.count("presses_not_saved")
        return _not_saved()


def _read(request: web.Request) -> Press | None:
    house = request.app[HOUSE]
    try:
        return pressed(house, links.read(house.ring, request.match_info["token"]))
    except Forged:
        return None


async def _one_click(request: web.Request, press: Press, marked: bool) -> web.Response:
    """Answer a mailbox provider: 200, empty, no cookie, no redirect, after the commit (RFC 8058 §3.1)."""
    for scope in press.scopes:
        await _record(request, _change(request, press, scope, Door.LINK, uuid4().hex))
    telemetry.count("one_clicks", marked=str(marked).lower())
    return web.Response(status=200)


async def _page(request: web.Request, press: Press, form: dict[str, str]) -> web.Response:
    """Answer a person who pressed the button: what stopped, and for half an hour the way back."""
    house = request.app[HOUSE]
    scopes = press.marketing if form.get("stop") == "all" else press.scopes
    whose = [press.address, *(await _party(request, press) if scopes == press.marketing else ())]
    # after many in a day it is recorded as a press of the link: for good, which adds a row but once, and asks nothing
    often = not request.app[THOUGHTS].allowed(press.address.key, house.clock())
    door, nonce = (Door.LINK, uuid4().hex) if often else (Door.PAGE, _nonce(house, form["form"]))
    changes = [_change(request, replace(press, address=one), scope, door, f"{nonce}-{scope}") for one in whose for scope in scopes]
    made = [await _stopped(request, change) for change in changes]
    undo = _way_back(house, made) if press.undoable else ""
    stopped = replace(press, scopes=scopes)
    return pages.page("result", undo=undo, form=_form(house), everything=stopped.everything, **_words(house, stopped))


async def _party(request: web.Request, press: Press) -> list[Address]:
    """Return who else is the same person: "stop all marketing" is meant for the phone as well (docs/state.md §5)."""
    async with db.acquired(request.app[POOL]) as connection:
        return await directory.party(connection, press.address)


async def _stopped(request: web.Request, change: Change) -> Change | None:
    """Record a press and return it as it was recorded, None if it added no row. A form pressed again after its undo is a new press."""
    if await _record(request, change):
        return change
    if change.door is Door.LINK:  # its name is its own: it was repeated, and holds
        return None
    async with db.acquired(request.app[POOL]) as connection:
        if not await ledger.taken_back(connection, change):
            return None
    again = replace(change, id=uuid4().hex)
    return again if await _record(request, again) else None


def _way_back(house: House, made: list[Change | None]) -> str:
    """Return what takes back these presses, and nothing if one of them is no row of its own, or for good."""
    presses = [change for change in made if change and change.door is Door.PAGE]
    if len(presses) < len(made):
        return ""
    value = [[change.address.key.hex, change.scope, change.id, change.happened_at.timestamp()] for change in presses]
    return str(house.ring.timed("undo").dumps(value))


async def _undo(request: web.Request, press: Press, value: str) -> web.Response:
    """Take back the very stop that this page made, within half an hour of when it was received; every other stop stands."""
    house = request.app[HOUSE]
    made = _made(house, value)
    if not made or made[0].address.key != press.address.key or not press.undoable:  # late, or made on somebody else's page
        return pages.page("undone", held=None, form=_form(house), **_words(house, press))
    for stop in made:
        await _record(request, ledger.withdrawal(stop, now=house.clock()))
    async with db.acquired(request.app[POOL]) as connection:
        held = [await decisions.is_held(connection, press.address, scope, now=house.clock()) for scope in press.scopes]
    return pages.page("undone", held=any(held), form=_form(house), **_words(house, press))


def _made(house: House, value: str) -> list[Change]:
    """Return the presses that an undo value names; none if it is odd, forged or late. Its age counts from the press, not from the page."""
    try:
        entries = house.ring.timed("undo").loads(value, max_age=int(ledger.UNDO.total_seconds()))
        made = [_pressed(UUID(hex=key), int(scope), str(id), datetime.fromtimestamp(at, UTC)) for key, scope, id, at in entries]
    except (BadData, ValueError, TypeError, OverflowError):
        return []
    return made if all(house.clock() - stop.happened_at <= ledger.UNDO for stop in made) else []


def _pressed(key: UUID, scope: int, id: str, at: datetime) -> Change:
    return Change(Address(key), scope, Cause.CHOICE, Effect.STOP, Door.PAGE, id, at)


async def _record(request: web.Request, change: Change) -> bool:
    added = await request.app[PRESSES].record(change, now=request.app[HOUSE].clock())
    telemetry.count("presses", door=change.door, effect=change.effect, new=str(added).lower())
    return added


def _change(request: web.Request, press: Press, scope: int, door: Door, id: str) -> Change:
    return Change(press.address, scope, Cause.CHOICE, Effect.STOP, door, id, request.app[HOUSE].clock())


async def _evidence(request: web.Request) -> bytes:
    """Return as much of the body as came in order; a broken, endless or encoded one is none, and vetoes nothing."""
    try:
        return await problems.read_body(request, limit=BODY, seconds=PATIENCE)
    except MailprefsError:
        return b""


def _fields(body: bytes) -> dict[str, str]:
    """Return the last value of each field of a form."""
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode("ascii"), max_num_fields=16).items()}
    except (UnicodeDecodeError, ValueError):
        return {}


def _form(house: House) -> str:
    return str(house.ring.timed("form").dumps(uuid4().hex))


def _nonce(house: House, value: str) -> str:
    """Return what a press is called: the nonce of its form, so that a reload is no second press; a new one if the form is odd or old."""
    try:
        return UUID(hex=house.ring.timed("form").loads(value, max_age=FORM)).hex
    except (BadData, ValueError, TypeError, AttributeError):
        return uuid4().hex


def _confirm(house: House, press: Press) -> web.Response:
    return pages.page("confirm", form=_form(house), everything=press.everything, **_words(house, press))


def _words(house: House, press: Press) -> dict[str, Any]:
    """Return what the pages say. A private brand and a sensitive topic are never named: membership is itself sensitive."""
    topic = house.catalogue.title_of(press.scopes[0])
    hidden = press.brand is None or press.brand.page == "private" or topic is None or topic.sensitive
    what = "All marketing emails" if press.everything else "The kind of email this link came in"
    if topic is not None and not hidden:
        what = topic.title.get("en") or next(iter(topic.title.values()))
    continues = press.brand.continues if press.brand else None
    return {"brand": press.brand, "what": what, "continues": (continues or {}).get("en", pages.CONTINUES)}


def _ends_here() -> web.Response:
    """Forged, cut, foreign and malformed all get these bytes."""
    return pages.sorry(404, "This link does not work", "It may have been cut off. Open it again from the email, in full.")


def _not_saved() -> web.Response:
    """Say plainly that nothing was recorded; the press can be repeated."""
    response = pages.sorry(503, "Not saved yet", "Something went wrong here. Please press the button again in a moment.")
    response.headers.update(problems.RETRY)
    return response
