"""The recipient's door. A link may only stop, and take back the very stop it made; it never turns anything on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

from aiohttp import web

from mailprefs import choices, db, decisions, ledger, links, receipts, telemetry
from mailprefs.catalogue import Brand, Topic
from mailprefs.choices import State
from mailprefs.errors import Forged, MailprefsError, Unavailable
from mailprefs.links import KeyState, Token
from mailprefs.masks import Mask, mask
from mailprefs.web import bursts, evenness, forms, presses, problems, screens, signals
from mailprefs.web.keys import BURSTS, HOUSE, POOL, THOUGHTS, House
from mailprefs.web.presses import Made, Page
from mailprefs.words import MARKETING, Address, Cause, Change, Channel, Door, Effect

BODY = 8 * 1024  # bytes of a press that are read, for evidence alone
PATIENCE = 5.0  # seconds

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

    @property
    def open(self) -> bool:
        """True if its pages may say who it is for and how things stand: not of a private brand, nor by a key that leaked."""
        return self.brand is not None and self.brand.page == "open" and self.undoable


@dataclass(frozen=True, slots=True)
class Seen:
    """What the pages of an open brand know of whom a link is for; nothing where that is private, unknown, erased or out of reach."""

    mask: Mask | None = None
    channel: Channel = Channel.EMAIL
    locale: str | None = None
    since: datetime | None = None  # all that the link names has been stopped since then


def pressed(house: House, token: Token) -> Press:
    """Return what a token stops, and for whom."""
    key = house.ring.key(token.key_id)
    undoable = key is not None and key.state is not KeyState.COMPROMISED
    return Press(Address(token.address), house.catalogue.left_by(token.scope), house.catalogue.brand_of(token.scope), undoable)


@routes.get("/u/{token}")
async def confirm(request: web.Request) -> web.Response:
    """Show what would stop, and a button. Changes nothing, whoever looks: scanners open every link."""
    press = _read(request)
    if press is None:
        return screens.ends_here(request)
    async with evenness.evenly(request, hidden=not press.open and signals.asks(request)):
        return await _confirm(request, press)


@routes.post("/u/{token}")
async def stop(request: web.Request) -> web.Response:
    """Stop what the link names. The token is in the path, so no body can veto an opt-out (RFC 8058 §3.2)."""
    press = _read(request)
    body = await _evidence(request)
    if press is None:
        telemetry.count("refused_links")
        return screens.ends_here(request)
    form = {} if b"One-Click" in body else _fields(body)  # no body vetoes a mailbox provider's press
    if forms.by_script(request) and b"One-Click" not in body:
        telemetry.count("presses_by_script")
        return await _confirm(request, press)
    try:
        if form.keys() & {"again", "undo", "form"}:
            async with evenness.evenly(request, hidden=not press.open):
                return await _pressed(request, press, form)
        return await _one_click(request, press, b"One-Click" in body)
    except Unavailable as error:
        telemetry.count("presses_not_saved")
        return screens.not_saved(request, press.brand, error)


async def _pressed(request: web.Request, press: Press, form: dict[str, str]) -> web.Response:
    if "again" in form:
        return await _once_more(request, press, form["again"])
    if "undo" in form:
        return await _undo(request, press, form["undo"])
    return await _page(request, press, form)


@routes.get("/favicon.ico")
async def icon(_request: web.Request) -> web.Response:
    """Answer the question that browsers ask unasked."""
    return web.Response(status=204, headers={"Cache-Control": "public, max-age=31536000, immutable"})


def _read(request: web.Request) -> Press | None:
    house = request.app[HOUSE]
    try:
        return pressed(house, links.read(house.ring, request.match_info["token"]))
    except Forged:
        return None


async def _one_click(request: web.Request, press: Press, marked: bool) -> web.Response:
    """Answer a mailbox provider: 200, empty, no cookie, no redirect, after the commit (RFC 8058 §3.1)."""
    changes = [_change(request, press, scope, Door.LINK, uuid4().hex) for scope in press.scopes]
    await presses.record(request, changes)
    telemetry.count("one_clicks", marked=str(marked).lower())
    return web.Response(status=200)


# The page's presses


async def _page(request: web.Request, press: Press, form: dict[str, str]) -> web.Response:
    """Answer a person who pressed the button: what stopped, and for half an hour the way back."""
    house = request.app[HOUSE]
    bursts.noticed(request, request.app[BURSTS], house.clock())
    scopes = press.marketing if form.get("stop") == "all" else press.scopes
    meant = replace(press, scopes=scopes)
    whose = await _whose(request, meant)
    # after many in a day it is recorded as a press of the link: for good, which adds a row but once, and asks nothing
    often = not request.app[THOUGHTS].allowed(press.address.key, house.clock())
    door, nonce = (Door.LINK, uuid4().hex) if often else (Door.PAGE, forms.nonce(house, form["form"]))
    made, own = await _stopped(request, meant, Made(" ".join(map(str, scopes)), nonce, house.clock(), door), whose)
    # a private page offers the way back whether or not it was stopped before: it would tell
    undo = presses.way_back(house, Page.LINK, press.address, made) if press.undoable and not often and (own or not press.open) else ""
    return await _result(request, meant, undo, made.at)


async def _whose(request: web.Request, press: Press) -> Sequence[Address]:
    """Return who a press is for: "stop all marketing" is meant for the same person's phone as well (docs/state.md §5)."""
    if not press.everything:
        return [press.address]
    async with db.acquired(request.app[POOL]) as connection:
        return (await choices.person(connection, press.address)).everyone


async def _stopped(request: web.Request, press: Press, made: Made, whose: Sequence[Address]) -> tuple[Made, bool]:
    """Record a press, and return it with whether any row is its own.

    A form pressed again is the press that it was the first time, with its time and so its receipt; after anything was opened, a new one.
    """
    changes = _stops(press, made, whose)
    added = await presses.record(request, changes)
    if all(added) or made.door is Door.LINK:  # a link's name is its own: what adds no row was repeated, and holds
        return made, any(added)
    if at := await presses.first_time(request, changes):
        return replace(made, at=at), any(added)
    return await _stopped(request, press, replace(made, nonce=uuid4().hex), whose)


def _stops(press: Press, made: Made, whose: Sequence[Address]) -> list[Change]:
    """Return what a press is recorded as, for each address and scope."""
    return [
        Change(each, scope, Cause.CHOICE, Effect.STOP, made.door, f"{made.nonce}-{scope}", made.at)
        for each in whose
        for scope in press.scopes
    ]


async def _undo(request: web.Request, press: Press, value: str) -> web.Response:
    """Take back the very stop that this page made, within half an hour of when it was received; every other stop stands."""
    house = request.app[HOUSE]
    found, honoured = _made(house, press, value), await signals.honour(request, press.address, press.brand)
    if found is None:  # late, or made on somebody else's page: nothing is said of how things stand
        return await _show(request, "undone", press, await _seen(request, press), held=None, honoured=honoured, form=forms.fresh(house))
    made, undone = found
    await presses.take_back(request, _stops(undone, made, await _whose(request, undone)))
    held = await _held(request, undone, any)
    return await _show(request, "undone", undone, await _seen(request, undone), held=held, honoured=honoured, form=forms.fresh(house))


def _made(house: House, press: Press, value: str) -> tuple[Made, Press] | None:
    """Return the press that an undo names, and what it stopped; None if it is odd, forged, late, or another's."""
    made = presses.made(house, Page.LINK, press.address, value) if press.undoable else None
    try:
        return (made, replace(press, scopes=tuple(map(int, made.what.split())))) if made else None
    except ValueError:
        return None


async def _once_more(request: web.Request, press: Press, value: str) -> web.Response:
    """Show what a press came to once more, in another language. Records nothing."""
    found = _made(request.app[HOUSE], press, value)
    if found is None:
        return await _confirm(request, press)
    made, meant = found
    return await _result(request, meant, value, made.at)


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
        return {name: values[-1] for name, values in parse_qs(body.decode("ascii"), max_num_fields=16, keep_blank_values=True).items()}
    except (UnicodeDecodeError, ValueError):
        return {}


# What is shown


async def _confirm(request: web.Request, press: Press) -> web.Response:
    """Show what would stop; or, of an open brand, since when it has been. Without a database it says no more than the link does."""
    try:
        seen, honoured = await _seen(request, press), await signals.honour(request, press.address, press.brand)
    except Unavailable:
        seen, honoured = Seen(), False
    name = "stopped" if seen.since else "confirm"
    return await _show(request, name, press, seen, honoured=honoured, form=forms.fresh(request.app[HOUSE]), since=seen.since)


async def _result(request: web.Request, press: Press, undo: str, at: datetime) -> web.Response:
    """Say that it is stopped, which was read back; where it cannot be, that it was saved."""
    house = request.app[HOUSE]
    receipt = receipts.issue(house.ring, press.address, press.scopes, at)
    try:
        if not await _held(request, press, all):  # somebody took it back in this very moment
            return await _show(request, "undone", press, await _seen(request, press), held=False, form=forms.fresh(house))
        seen, coming = await _seen(request, press), await _coming(request, press)
        honoured = await signals.honour(request, press.address, press.brand)
    except Unavailable:
        return screens.saved(request, press.brand, number=receipt.number)
    left = max(1, ceil((at + ledger.UNDO - house.clock()) / timedelta(minutes=1)))
    return await _show(
        request,
        "result",
        press,
        seen,
        again=undo or None,
        honoured=honoured,
        undo=undo,
        minutes=left,
        coming=coming,
        form=forms.fresh(house),
        receipt=receipt,
    )


async def _show(request: web.Request, name: str, press: Press, seen: Seen, *, again: str | None = None, **values: Any) -> web.Response:
    mailing = press.undoable and press.brand is not None and press.brand.number in request.app[HOUSE].mailing
    known = {
        "topic": _named(request.app[HOUSE], press),
        "everything": press.everything,
        "open": press.open,
        "seen": seen,
        "path": f"/p/{request.match_info['token']}" if press.brand else "",
        "mailing": mailing,
    }
    return screens.show(request, name, press.brand, locale=seen.locale, again=again, **(known | values))


def _named(house: House, press: Press) -> Topic | None:
    """Return the topic as a page may name it: membership is itself sensitive, so never one of a private brand, or a sensitive one."""
    topic = house.catalogue.title_of(press.scopes[0])
    return topic if press.brand and press.brand.page == "open" and topic and not topic.sensitive else None


async def _seen(request: web.Request, press: Press) -> Seen:
    if not press.open or press.brand is None:
        return Seen()
    house = request.app[HOUSE]
    async with db.acquired(request.app[POOL]) as connection:
        person = await choices.person(connection, press.address)
        # not `is_held`: who is held by mail that came back alone has not stopped anything, and may want to
        states = [
            await choices.topic(connection, press.address, press.brand, house.catalogue, scope, now=house.clock()) for scope in press.scopes
        ]
        stopped = all(each.state is State.STOPPED for each in states)
        scopes = [house.catalogue.by_number[scope] for scope in press.scopes]
        theirs = [await choices.since(connection, press.address, scope) for scope in scopes] if stopped else []
        since = max((each for each in theirs if each), default=None) if all(theirs) else None
    address = person.address
    return Seen(mask(address.text) if address.text else None, address.channel or Channel.EMAIL, person.locale, since)


async def _held(request: web.Request, press: Press, how: Any) -> bool:
    async with db.acquired(request.app[POOL]) as connection:
        held = [await decisions.is_held(connection, press.address, scope, now=request.app[HOUSE].clock()) for scope in press.scopes]
    return bool(how(held))


async def _coming(request: web.Request, press: Press) -> list[Topic]:
    """Return the other topics that this address still gets, as the page of an open brand may name them."""
    house = request.app[HOUSE]
    if not press.open or press.brand is None:
        return []
    async with db.acquired(request.app[POOL]) as connection:
        sheet = await choices.sheet(connection, press.address, press.brand, house.catalogue, now=house.clock())
    own = sheet.person.address.channel or Channel.EMAIL
    return [row.topic for row in sheet.rows if own in row.cells and row.cells[own].state is State.GETS]
