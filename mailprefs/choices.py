"""What one person gets, topic by topic, by e-mail and by text: what the pages show, and what may be changed on them.

The rule is the one of docs/state.md §3: what is shown as coming is exactly what may be sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from mailprefs import directory
from mailprefs.catalogue import Brand, Catalogue, Scope, Topic
from mailprefs.db import Connection, queries
from mailprefs.words import ADS, MARKETING, ROOT, Address, Cause, Channel, Door, Stream

_THEIRS = frozenset({Cause.CHOICE, Cause.COMPLAINT})
_FOR_GOOD = datetime(9999, 1, 1, tzinfo=UTC)  # later than any break; datetime.max is infinity to the database, never past


class State(StrEnum):
    """How one topic stands over one channel, as a page says it."""

    GETS = "gets"
    PAUSED = "paused"
    STOPPED = "stopped"
    UNREACHABLE = "unreachable"  # mail to it came back
    UNASKED = "unasked"  # it wants a consent that nobody gave


@dataclass(frozen=True, slots=True)
class Person:
    """An address, and the others of the same person, each with what we know of it."""

    address: Address
    others: tuple[Address, ...] = ()
    locale: str | None = None

    @property
    def everyone(self) -> tuple[Address, ...]:
        return (self.address, *self.others)

    def over(self, channel: Channel) -> tuple[Address, ...]:
        """Return the addresses of a channel. Of the channel that this page was reached by, the one that it was reached by alone."""
        own = self.address.channel or Channel.EMAIL
        if channel is own:
            return (self.address,)
        return tuple(each for each in self.others if each.channel is channel)


@dataclass(frozen=True, slots=True)
class Standing:
    """How one scope stands for one address."""

    state: State
    until: datetime | None = None
    openers: tuple[Address, ...] = ()  # for which of the addresses its recipient may turn it on
    complained: bool = False  # and lifts a complaint by it
    carrier: bool = False  # stopped by a text to the sender's number: only a text can start it again


@dataclass(frozen=True, slots=True)
class Choice:
    """A topic, and how it stands over each channel on which this person is known."""

    topic: Topic
    scope: Scope
    cells: Mapping[Channel, Standing]


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that the page of one person at one brand shows."""

    person: Person
    rows: tuple[Choice, ...]
    channels: tuple[Channel, ...]  # over which any of the topics may come
    ads: Standing | None
    marketing: bool  # False once all marketing is stopped: before, there may be more than is shown
    paused_until: datetime | None  # when the pause of everything ends, where there is one

    def cell(self, scope: int, channel: Channel) -> Standing | None:
        return next((row.cells.get(channel) for row in self.rows if row.scope.number == scope), None)

    @property
    def anything(self) -> bool:
        """True while anything still comes, or would after a pause."""
        return any(cell.state in (State.GETS, State.PAUSED, State.UNREACHABLE) for row in self.rows for cell in row.cells.values())


async def person(connection: Connection, address: Address) -> Person:
    """Return who is behind an address: nobody but itself where no application told us of it."""
    row = await queries("choices").own(connection, bucket=address.bucket, key=address.key)
    if row is None:
        return Person(replace(address, text=None))
    known = Address(address.key, Channel(row["channel"]) if row["channel"] else address.channel, row["plaintext"])
    others = await directory.party(connection, address) if row["tied"] else []
    return Person(known, tuple(others), row["locale"])


async def sheet(connection: Connection, address: Address, brand: Brand, catalogue: Catalogue, *, now: datetime) -> Sheet:
    """Return what a person gets of a brand, as it is recorded at this moment. Never a sensitive, retired or transactional topic."""
    who = await person(connection, address)
    shown = [(topic, scope) for topic in brand.topic if _shown(scope := catalogue.by_number[brand.number * 256 + topic.number])]
    ads = catalogue.by_number.get(brand.number * 256 + ADS)
    marketing = catalogue.by_number[brand.number * 256 + MARKETING]
    book = await _book(connection, who, [scope for _, scope in shown] + [marketing] + ([ads] if ads else []), brand, now)
    channels = tuple(channel for channel in Channel if who.over(channel))
    rows = tuple(
        Choice(
            topic, scope, {channel: book.over(channel, scope) for channel in channels if channel is Channel.EMAIL or _by_text(book, scope)}
        )
        for topic, scope in shown
    )
    channels = tuple(channel for channel in channels if any(channel in row.cells for row in rows))
    advertised = book.of(who.address, ads) if ads else None
    stopped = all(book.of(each, marketing).state is State.STOPPED for each in who.everyone)
    return Sheet(who, rows, channels, advertised, not stopped, book.break_until(marketing.number))


async def topic(connection: Connection, address: Address, brand: Brand, catalogue: Catalogue, number: int, *, now: datetime) -> Standing:
    """Return how one topic stands for one address."""
    scope = catalogue.by_number[number]
    return (await _book(connection, Person(address), [scope], brand, now)).of(address, scope)


async def since(connection: Connection, address: Address, scope: Scope) -> datetime | None:
    """Return since when its recipient has had a scope, or what it is part of, stopped for good; None if they have not.

    Mail that came back, and what staff hold, say nothing of what they want: one day it is lifted, and then theirs must be there.
    """
    holds = queries("choices").holds(connection, buckets=[address.bucket], keys=[address.key], now=_FOR_GOOD)
    return min([hold["off_at"] async for hold in holds if hold["scope"] in scope.path and hold["cause"] in _THEIRS], default=None)


def _shown(scope: Scope) -> bool:
    return scope.stream is Stream.MARKETING and not scope.sensitive and not scope.retired


def _by_text(book: _Book, scope: Scope) -> bool:
    """True for a topic of which anything was ever said about texts: a channel that a topic does not use is an empty place."""
    return book.over(Channel.SMS, scope).state is not State.UNASKED


@dataclass(frozen=True, slots=True)
class _Book:
    """What was read of one person."""

    who: Person
    brand: Brand
    standings: Mapping[tuple[UUID, int], Any]
    holds: Mapping[UUID, Sequence[Any]]

    def over(self, channel: Channel, scope: Scope) -> Standing:
        """Return how a topic stands over a channel: as it does for the one of its addresses that still gets most."""
        order, each = list(State), [self.of(one, scope) for one in self.who.over(channel)]
        most = min(each, key=lambda one: order.index(one.state))
        return replace(most, openers=tuple(address for one in each for address in one.openers))

    def break_until(self, marketing: int) -> datetime | None:
        """Return when the pause of everything ends that this person is in."""
        found = [
            hold["until"] for hold in self.holds.get(self.who.address.key, ()) if (hold["scope"], hold["cause"]) == (marketing, Cause.PAUSE)
        ]
        return max(found, default=None)

    def of(self, address: Address, scope: Scope) -> Standing:
        row = self.standings.get((address.key, scope.number))
        holds = [hold for hold in self.holds.get(address.key, ()) if hold["scope"] in scope.path]
        if row is None:  # nobody we ever met: nothing is on hold
            missing = scope.is_topic and scope.wants(address.channel or Channel.EMAIL) > 0
            return Standing(State.UNASKED, openers=(address,)) if missing else Standing(State.GETS)
        return self._standing(row, holds, address)

    def _standing(self, row: Any, holds: Sequence[Any], address: Address) -> Standing:
        for_good = {hold["cause"] for hold in holds if hold["until"] is None}
        complained = Cause.COMPLAINT in for_good
        texted = any(hold["door"] == Door.SMS for hold in holds)
        opens = not (for_good & {Cause.STAFF, Cause.MINOR}) and (self.brand.complaint == "liftable" or not complained) and not texted
        # a link that was mailed proves a mailbox: a phone it may start again, where texts were agreed to before, and never sign up
        opens = opens and (address.channel is not Channel.SMS or row["consented"])
        openers = (address,) if opens else ()
        if row["stopped"] or any(hold["scope"] == ROOT and hold["cause"] == Cause.STAFF for hold in holds):
            return Standing(State.STOPPED, openers=openers, complained=complained, carrier=texted)
        if not row["consented"]:
            return Standing(State.UNASKED, openers=openers)
        if row["paused_until"]:
            return Standing(State.PAUSED, row["paused_until"])
        return Standing(State.UNREACHABLE if row["unreachable"] else State.GETS)


async def _book(connection: Connection, who: Person, scopes: Sequence[Scope], brand: Brand, now: datetime) -> _Book:
    whose = {"buckets": [each.bucket for each in who.everyone], "keys": [each.key for each in who.everyone]}
    found = queries("choices").standings(connection, **whose, scopes=[scope.number for scope in scopes], now=now)
    standings = {(row["key"], row["scope"]): row async for row in found}
    holds: dict[UUID, list[Any]] = {}
    async for row in queries("choices").holds(connection, **whose, now=now):
        holds.setdefault(row["key"], []).append(row)
    return _Book(who, brand, standings, holds)
