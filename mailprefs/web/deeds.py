"""What the buttons of a preference page do: each is one deed, spelled in the value of its button, recorded at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import uuid4

from aiohttp import web

from mailprefs import db, ledger, proof, telemetry
from mailprefs.catalogue import Brand, Catalogue
from mailprefs.choices import Person, Standing
from mailprefs.proof import Proof
from mailprefs.web import presses
from mailprefs.web.keys import HOUSE, POOL, THOUGHTS
from mailprefs.web.presses import Made, Page
from mailprefs.words import ADS, MARKETING, Address, Cause, Change, Channel, Door, Effect, Stream

PAUSES = (30, 60, 90)  # days


class Act(StrEnum):
    """What a button does. The first four anybody may who holds a link; what opens, only who was mailed one."""

    STOP = "stop"  # one topic, over one channel
    ALL = "all"  # all marketing, of every address of this person
    PAUSE = "pause"  # all marketing, for some days
    ADS = "ads"
    ON = "on"  # one topic, over one channel
    RESUME = "resume"  # what was paused
    ADS_ON = "ads-on"

    @property
    def opens(self) -> bool:
        return self in (Act.ON, Act.RESUME, Act.ADS_ON)


@dataclass(frozen=True, slots=True)
class Deed:
    """One press: what, where, over which channel, for how long."""

    act: Act
    scope: int
    channel: Channel | None = None  # None: every address of the person
    days: int = 0

    @property
    def cause(self) -> Cause:
        return Cause.PAUSE if self.act in (Act.PAUSE, Act.RESUME) else Cause.CHOICE

    def whose(self, person: Person) -> tuple[Address, ...]:
        return person.everyone if self.channel is None else person.over(self.channel)

    def changes(self, person: Person, door: Door, nonce: str, now: datetime) -> list[Change]:
        """Return what is recorded, under names made of the nonce, so that the same form pressed twice is one press."""
        effect = Effect.GO if self.act.opens else Effect.STOP
        until = now + timedelta(days=self.days) if self.days else None
        id_ = f"{nonce}-{self.act}{self.days or ''}-{self.scope}"  # another act by the same form is another fact
        return [Change(each, self.scope, self.cause, effect, door, id_, now, until) for each in self.whose(person)]


def spelled(text: str, brand: Brand, catalogue: Catalogue) -> Deed | None:
    """Return the deed that the value of a button spells at a brand; None for what no button there says."""
    act, *rest = text.split(".")
    base = brand.number * 256
    match act, rest:
        case (("stop" | "on"), [topic, channel]) if channel in list(Channel) and topic.isascii() and topic.isdecimal() and len(topic) <= 3:
            scope = catalogue.by_number.get(base + int(topic)) if int(topic) < 256 else None
            fits = scope is not None and scope.is_topic and scope.stream is Stream.MARKETING and not scope.sensitive and not scope.retired
            return Deed(Act(act), base + int(topic), Channel(channel)) if fits else None
        case "all", []:
            return Deed(Act.ALL, base + MARKETING)
        case "pause", [days] if days in map(str, PAUSES):
            return Deed(Act.PAUSE, base + MARKETING, days=int(days))
        case "resume", []:
            return Deed(Act.RESUME, base + MARKETING)
        case (("ads" | "ads-on"), []) if brand.ads:
            return Deed(Act(act), base + ADS)
    return None


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a press: ``undo`` is what takes it back, empty where nothing can, and ``refused`` one too many in a day."""

    deed: Deed
    undo: str = ""
    refused: bool = False
    lasting: bool = False  # one too many to be taken back, and recorded for good
    idle: bool = False  # it was recorded before, and added nothing


async def do(request: web.Request, text: str, deed: Deed, person: Person, door: Door, nonce: str) -> Done:
    """Record a press. Raises Unavailable: then nothing was acknowledged."""
    house = request.app[HOUSE]
    now = house.clock()
    if not request.app[THOUGHTS].allowed(person.address.key, now):  # each that can be taken back is a row: without a bound, of millions
        if deed.act.opens or deed.days:
            return Done(deed, refused=True)
        await presses.record(request, deed.changes(person, Door.LINK, uuid4().hex, now))
        return Done(deed, lasting=True)
    made = deed.changes(person, door, nonce, now)
    added = await presses.record(request, made)
    if not all(added) and not deed.act.opens and await presses.first_time(request, made) is None:
        nonce = uuid4().hex  # the same form, pressed again after anything was opened, is a new press
        made = deed.changes(person, door, nonce, now)
        added = await presses.record(request, made)
    undoable = any(added) and not deed.act.opens
    return Done(deed, way_back(request, text, person.address, door, nonce) if undoable else "", idle=not any(added))


def way_back(request: web.Request, text: str, address: Address, door: Door, nonce: str) -> str:
    """Return what takes back a press of this moment, and nothing else."""
    house = request.app[HOUSE]
    return presses.way_back(house, Page.CHOICES, address, Made(text, nonce, house.clock(), door))


def chosen(address: Address, scope: int, standing: Standing, id_: str, now: datetime) -> list[Change]:
    """Return what a recipient's own choice of a topic is recorded as.

    A complaint is lifted with it, where there is one and the brand lets that be: then this topic opens alone (docs/state.md §2).
    """
    choice = Change(address, scope, Cause.CHOICE, Effect.GO, Door.MANAGE, id_, now)
    if not (standing.complained and standing.openers):
        return [choice]
    marketing = replace(choice, scope=scope >> 8 << 8 | MARKETING)
    lift = replace(marketing, cause=Cause.COMPLAINT, id=f"{id_}-lift")
    return [lift, replace(marketing, effect=Effect.STOP, id=f"{id_}-rest"), choice]


async def turn_on(request: web.Request, deed: Deed, standing: Standing, shown: Proof, nonce: str) -> Done:
    """Record that a recipient chose a topic, with what was shown to them. Raises Unavailable."""
    now = request.app[HOUSE].clock()
    id_ = f"{shown.digest}-{nonce}-{deed.scope}"
    made = [change for each in standing.openers for change in chosen(each, deed.scope, standing, id_, now)]
    async with db.acquired(request.app[POOL]) as connection, db.sure(connection), connection.transaction():
        await proof.keep(connection, [shown])
        added = await ledger.record(connection, made, now=now)
    telemetry.count("presses", len(made), door=Door.MANAGE, effect=Effect.GO, new=str(any(added)).lower())
    return Done(deed, idle=not any(added))
