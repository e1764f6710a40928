"""The preference page: what a person gets, and the buttons that change it. Whatever it shows was read back after what was pressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from mailprefs import choices, db, ledger, masks, passes, post
from mailprefs.catalogue import Brand, Topic
from mailprefs.choices import Choice, Sheet, Standing, State
from mailprefs.errors import Unavailable
from mailprefs.passes import Pass, Purpose
from mailprefs.proof import Proof
from mailprefs.web import bursts, deeds, forms, presses, screens, signals
from mailprefs.web.deeds import Act, Deed
from mailprefs.web.keys import BURSTS, HOUSE, POOL, THOUGHTS
from mailprefs.web.presses import Page
from mailprefs.words import Address, Channel, Door


@dataclass(frozen=True, slots=True)
class Visit:
    """Whose page of which brand, and what it may show and do."""

    address: Address
    brand: Brand
    trusted: bool = True  # under a key that leaked, a link may stop and nothing else
    session: Pass | None = None  # a mailed link opened it: this address is proven

    @property
    def open(self) -> bool:
        """True if the page may say which topics there are, and how they stand."""
        return self.session is not None or (self.trusted and self.brand.page == "open")

    @property
    def door(self) -> Door:
        return Door.PAGE if self.session is None else Door.MANAGE

    def may(self, deed: Deed) -> bool:
        """True for what may be pressed here. What opens anything is for who was mailed a link; without topics, there is all or nothing."""
        return self.session is not None or (not deed.act.opens and (self.open or deed.act in (Act.ALL, Act.ADS)))


@dataclass(frozen=True, slots=True)
class News:
    """What a press came to, as the page says it first."""

    deed: Deed | None = None
    undo: str = ""
    left: timedelta = timedelta()  # in which it can be taken back
    undone: bool = False
    late: bool = False  # the time to undo had ended
    refused: bool = False  # one too many for today
    idle: bool = False  # an old form once more, which was recorded the first time


@dataclass(frozen=True, slots=True)
class Cell:
    """How one topic stands over one channel, with the values of its buttons; none where it is not to be pressed."""

    channel: Channel | None
    state: State
    until: datetime | None
    stop: str = ""
    on: str = ""
    carrier: bool = False
    fixed: bool = False  # stopped by what nobody can lift here


@dataclass(frozen=True, slots=True)
class Line:
    """One topic, with a cell for each channel of the page; none where the topic does not use it."""

    topic: Topic
    cells: tuple[Cell | None, ...]


QUIET = News()
MAILED = "mailed"
# how what a deed opens may stand after it did nothing: somebody stopped it since the form was first pressed
_SHUT = {Act.ON: (State.STOPPED, State.UNASKED), Act.ADS_ON: (State.STOPPED,), Act.RESUME: (State.PAUSED,)}


async def show(request: web.Request, visit: Visit, news: News = QUIET) -> web.Response:
    """Return the page as it stands now. Raises Unavailable."""
    house = request.app[HOUSE]
    values: dict[str, Any] = {
        "visit": visit,
        "news": news,
        "form": forms.fresh(house),
        "changed": None,
        "stale": False,
        **_session(request, visit),
    }
    values["honoured"] = await signals.honour(request, visit.address, visit.brand)
    values["mailing"] = visit.trusted and visit.brand.number in house.mailing
    values["left"] = minutes(news.left)
    again = news.undo or (screens.AGAIN if visit.session else None)  # a link would lose the session
    if not visit.open:
        return screens.show(request, "private", visit.brand, again=again, **values)
    async with db.acquired(request.app[POOL]) as connection:
        sheet = await choices.sheet(connection, visit.address, visit.brand, house.catalogue, now=house.clock())
    lines = [_line(row, sheet, visit) for row in sheet.rows]
    ads = _cell(sheet.ads, None, "ads", visit) if sheet.ads else None
    text = sheet.person.address.text if visit.brand.page == "open" else None  # to a private brand, who reads along learns nothing
    values |= {"sheet": sheet, "lines": lines, "ads": ads, "masked": masks.mask(text) if text else None}
    if news.deed:
        values["changed"] = changed = _changed(news.deed, sheet, lines, ads)
        values["stale"] = news.idle and changed.cell.state in _SHUT.get(news.deed.act, ())
    return screens.show(request, "preferences", visit.brand, locale=sheet.person.locale, again=again, **values)


def minutes(left: timedelta) -> int:
    """Return how many minutes a page says are left: whole ones, and never none."""
    return max(1, int(left / timedelta(minutes=1)))


def _session(request: web.Request, visit: Visit) -> dict[str, Any]:
    if visit.session is None:
        return {"session": "", "minutes": 0}
    house = request.app[HOUSE]
    left = visit.session.left(house.clock())
    return {"session": passes.write(house.ring, visit.session), "minutes": minutes(left)}


def _line(row: Choice, sheet: Sheet, visit: Visit) -> Line:
    def cell(channel: Channel) -> Cell | None:
        standing = row.cells.get(channel)
        return _cell(standing, channel, f"{row.topic.number}.{channel}", visit) if standing else None

    return Line(row.topic, tuple(cell(channel) for channel in sheet.channels))


def _cell(standing: Standing, channel: Channel | None, name: str, visit: Visit) -> Cell:
    """Return a cell. ``name`` is what the values of its buttons say: a topic and a channel, or the ads."""
    stop, on = ("ads", "ads-on") if channel is None else (f"stop.{name}", f"on.{name}")
    stopped = standing.state in (State.STOPPED, State.UNASKED)
    turns = visit.session is not None and stopped and bool(standing.openers)
    return Cell(
        channel,
        standing.state,
        standing.until,
        "" if stopped else stop,
        on if turns else "",
        standing.carrier and visit.session is not None,
        visit.session is not None and stopped and not turns and not standing.carrier,
    )


@dataclass(frozen=True, slots=True)
class Changed:
    """What a press changed, as it was read back: a topic, the ads, or all marketing."""

    topic: Topic | None
    cell: Cell
    ads: bool = False


def _changed(deed: Deed, sheet: Sheet, lines: Sequence[Line], ads: Cell | None) -> Changed:
    everything = Cell(None, State.GETS if sheet.anything else State.STOPPED, None)
    match deed.act:
        case Act.ADS | Act.ADS_ON:
            return Changed(None, ads or everything, ads=True)
        case Act.PAUSE | Act.RESUME:
            return Changed(None, Cell(None, State.PAUSED, sheet.paused_until) if sheet.paused_until else everything)
        case Act.ALL:
            return Changed(None, everything)
    found = ((line.topic, cell) for line in lines for cell in line.cells if cell and line.topic.number == deed.scope & 255)
    return next((Changed(topic, cell) for topic, cell in found if cell.channel is deed.channel), Changed(None, everything))


async def press(request: web.Request, visit: Visit, form: Mapping[str, str]) -> web.Response:
    """Do what a form of this page asks for, and return the page as it stands then. Raises Unavailable: then nothing was acknowledged."""
    if forms.unpressed(request):
        return await show(request, visit)
    if "again" in form:
        return (
            mailed(request, visit.brand)
            if form["again"] == MAILED
            else await show(request, visit, _remembered(request, visit, form["again"]))
        )
    if "undo" in form:
        return await show(request, visit, await _undo(request, visit, form["undo"]))
    if "mail" in form:
        return await mail(request, visit)
    deed = deeds.spelled(form.get("do", ""), visit.brand, request.app[HOUSE].catalogue)
    if deed is None or not visit.may(deed):
        return await show(request, visit)
    news = await _do(request, visit, deed, form)
    try:
        return await show(request, visit, news)
    except Unavailable:
        if news.deed is None or news.refused or (deed.act.opens and news.idle):
            raise
        # what was acknowledged holds, whether or not the rest can be shown
        if visit.session or deed.act not in (Act.STOP, Act.ALL):
            return screens.kept(request, visit.brand, session=_session(request, visit)["session"])
        return screens.saved(request, visit.brand)


async def _do(request: web.Request, visit: Visit, deed: Deed, form: Mapping[str, str]) -> News:
    bursts.noticed(request, request.app[BURSTS], request.app[HOUSE].clock())
    nonce = forms.nonce(request.app[HOUSE], form.get("form", ""))
    if deed.act is Act.ON:
        return await _turn_on(request, visit, deed, nonce)
    async with db.acquired(request.app[POOL]) as connection:
        person = await choices.person(connection, visit.address)
    done = await deeds.do(request, form["do"], deed, person, visit.door, nonce)
    # a page without topics says the same whether or not it was stopped before
    undo = done.undo if done.undo or visit.open or done.lasting else deeds.way_back(request, form["do"], visit.address, visit.door, nonce)
    return News(deed, undo=undo if visit.trusted else "", left=ledger.UNDO, refused=done.refused, idle=done.idle)


async def _turn_on(request: web.Request, visit: Visit, deed: Deed, nonce: str) -> News:
    """Record that a recipient chose a topic, with what they were shown; nothing where it is not theirs to choose."""
    house = request.app[HOUSE]
    async with db.acquired(request.app[POOL]) as connection:
        sheet = await choices.sheet(connection, visit.address, visit.brand, house.catalogue, now=house.clock())
    standing = sheet.cell(deed.scope, deed.channel) if deed.channel else None
    if standing is not None and standing.state not in _SHUT[Act.ON]:
        return News(deed, idle=True)  # a reload says what holds, as the press did
    if standing is None or not standing.openers:
        return QUIET
    if not request.app[THOUGHTS].allowed(visit.address.key, house.clock()):
        return News(deed, refused=True)
    done = await deeds.turn_on(request, deed, standing, proven(request, visit.brand, deed.scope), nonce)
    return News(deed, idle=done.idle)


def proven(request: web.Request, brand: Brand, scope: int) -> Proof:
    """Return what stands behind a consent that was given on a page of ours: which page, and the words that were on it."""
    topic = request.app[HOUSE].catalogue.title_of(scope)
    route = request.match_info.route.resource
    words = [topic.title.get("en", ""), (topic.often or {}).get("en", "")] if topic and not topic.sensitive else []
    return Proof(f"https://{brand.link_host}{route.canonical if route else ''}", " / ".join(word for word in words if word))


def _remembered(request: web.Request, visit: Visit, value: str) -> News:
    """Return what a press came to, as the page said it before it was asked for in another language. Records nothing."""
    house = request.app[HOUSE]
    made = presses.made(house, Page.CHOICES, visit.address, value) if visit.trusted else None
    deed = deeds.spelled(made.what, visit.brand, house.catalogue) if made else None
    return News(deed, undo=value, left=made.left(house.clock())) if made and deed else QUIET


async def _undo(request: web.Request, visit: Visit, value: str) -> News:
    """Take back the very press that this page made, within half an hour; every other stop stands."""
    house = request.app[HOUSE]
    made = presses.made(house, Page.CHOICES, visit.address, value) if visit.trusted else None
    deed = deeds.spelled(made.what, visit.brand, house.catalogue) if made else None
    if made is None or deed is None:
        return News(late=True)
    async with db.acquired(request.app[POOL]) as connection:
        person = await choices.person(connection, visit.address)
    await presses.take_back(request, deed.changes(person, made.door, made.nonce, made.at))
    return News(deed, undone=True)


def named(request: web.Request, brand: Brand, scope: int) -> Topic | None:
    """Return a topic as a page may name it; None for a sensitive one, and for every one of a private brand."""
    topic = request.app[HOUSE].catalogue.title_of(scope)
    return None if topic is None or topic.sensitive or brand.page == "private" else topic


async def mail(request: web.Request, visit: Visit) -> web.Response:
    """Owe a link to one's choices, and say what is said to everybody. Raises Unavailable."""
    house = request.app[HOUSE]
    if not visit.trusted or visit.brand.number not in house.mailing:
        return await show(request, visit)
    said = screens.speaking(request, visit.brand).code
    async with db.acquired(request.app[POOL]) as connection:
        await post.ask(connection, Purpose.MANAGE, visit.address, visit.brand.number * 256, language=said, now=house.clock())
    return mailed(request, visit.brand)


def mailed(request: web.Request, brand: Brand) -> web.Response:
    """Return what everybody is told, known or not, also over the limit."""
    return screens.show(request, "mailed", brand, again=MAILED)
