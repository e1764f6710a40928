"""The one write path. A Change that is recorded here is on disk when the caller's transaction has committed.

Who may set and lift what is ``docs/state.md`` §2: a table here, because the closed list is the design.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from mailprefs.db import Connection, queries, spelt, text
from mailprefs.errors import NotEntitled
from mailprefs.words import ADS, MARKETING, ROOT, Cause, Change, Door, Effect

UNDO = timedelta(minutes=30)  # how long a stop made on a page can be taken back from it
SURE = UNDO + timedelta(days=1)  # from when on nobody can: no queue, and no clock that is set back, reaches so far

FEW = 64  # Changes in a call up to which one plan for all calls is quicker than a plan for each

_WALL = (
    "by e-mail an opt-out stops marketing, its topics and ads alone, never transactional messages "
    "(or the database does not know this scope yet: mailprefs migrate)"
)
_PRESSES = frozenset({Door.LINK, Door.PAGE, Door.MANAGE, Door.MAIL, Door.SMS})  # a recipient's own stops
_CHOSEN = frozenset({Cause.CHOICE, Cause.PAUSE})  # what a recipient can ask for
_UNDOABLE = frozenset({Door.PAGE, Door.MANAGE})

_MAY_STOP = {
    Cause.CHOICE: frozenset(Door),
    Cause.PAUSE: frozenset({Door.PAGE, Door.MANAGE}),
    Cause.COMPLAINT: frozenset({Door.PROVIDER, Door.MAIL, Door.IMPORT, Door.STAFF, Door.RECONCILE}),
    Cause.MINOR: frozenset({Door.STAFF, Door.IMPORT, Door.SYSTEM}),
    Cause.STAFF: frozenset({Door.STAFF}),
    Cause.BOUNCE: frozenset({Door.PROVIDER, Door.MAIL, Door.IMPORT, Door.STAFF, Door.RECONCILE}),
    Cause.INVALID: frozenset({Door.PROVIDER, Door.MAIL, Door.IMPORT, Door.STAFF}),
    Cause.SOFT: frozenset({Door.PROVIDER, Door.MAIL}),
}
_MAY_GO = {
    Cause.CHOICE: frozenset({Door.MANAGE, Door.SMS}),
    Cause.PAUSE: frozenset({Door.MANAGE}),
    Cause.COMPLAINT: frozenset({Door.MANAGE}),  # only where the brand says liftable: the door that records it has asked
    Cause.MINOR: frozenset({Door.STAFF}),
    Cause.STAFF: frozenset({Door.STAFF}),
    Cause.BOUNCE: frozenset({Door.STAFF}),
    Cause.INVALID: frozenset({Door.STAFF}),
    Cause.SOFT: frozenset[Door](),
}
_MAY_GRANT = frozenset({Door.MANAGE, Door.SMS, Door.IMPORT})


@dataclass(frozen=True, slots=True)
class Tally:
    """What an account said, by kind: counted with what is recorded of it, in the same statement."""

    account: str
    kinds: Mapping[str, int]


def is_own(change: Change) -> bool:
    """True for a recipient's own act, which counts from a time that outranks everything in its ledger (docs/state.md §4).

    A bounce or a complaint that came by mail is nobody's own act: a late one must not outrank a correction by staff.
    """
    if change.effect is Effect.GO:
        return change.door is Door.MANAGE
    return change.effect is Effect.STOP and change.door in _PRESSES and change.cause in _CHOSEN


def entitled(change: Change) -> None:
    """Raise NotEntitled unless this door may make this Change on this node. The message names words, never an address."""
    if not _door_may(change):
        raise NotEntitled(f"the door '{change.door}' may not make a {change.effect} of {change.cause}")
    if not _node_fits(change):
        raise NotEntitled(f"a {change.effect} of {change.cause} does not sit there, only on {_PLACES[change.cause]}")
    if change.effect is Effect.STOP and change.cause.ends != (change.until is not None):
        raise NotEntitled(f"a stop of {change.cause} {'wants' if change.cause.ends else 'has no'} end")


def _door_may(change: Change) -> bool:
    match change.effect:
        case Effect.STOP:
            return change.door in _MAY_STOP[change.cause]
        case Effect.GO:
            return change.door in _MAY_GO[change.cause]
        case Effect.GRANT:
            return change.cause is Cause.CHOICE and change.door in _MAY_GRANT
        case Effect.WITHDRAW:
            return change.door in _UNDOABLE and change.id.partition(":")[0] in _UNDOABLE
        case Effect.NOTE:
            return True


_PLACES = {  # where `_node_fits`, in words
    Cause.BOUNCE: "*, which is everything",
    Cause.INVALID: "*, which is everything",
    Cause.SOFT: "*, which is everything",
    Cause.COMPLAINT: "all marketing of a brand",
    Cause.MINOR: "all marketing of a brand, or its ads",
    Cause.CHOICE: "a brand, or what is of one",
    Cause.PAUSE: "a brand, or what is of one",
}


def _node_fits(change: Change) -> bool:
    node = change.scope & 255  # 0 a brand, 1 marketing, 2 transactional, 3 ads, from 16 a topic
    match change.cause:
        case Cause.BOUNCE | Cause.INVALID | Cause.SOFT:
            return change.scope == ROOT
        case Cause.COMPLAINT:
            return node == MARKETING
        case Cause.MINOR:
            return node in (MARKETING, ADS)
        case Cause.CHOICE | Cause.PAUSE:
            return change.scope != ROOT
        case Cause.STAFF:
            return True


async def record(connection: Connection, changes: Sequence[Change], *, now: datetime, tally: Tally | None = None) -> list[bool]:
    """Record Changes in one call, in the caller's transaction; return for each, in order, whether it added a row.

    False is a fact that was known already, or a press that changes nothing: both are answered as done. The pushes that are owed
    are left in the same transaction, and a ``tally`` is counted in it. Outside of one, the one statement is its own commit. Raises
    NotEntitled before anything is written.
    """
    for change in changes:
        entitled(change)
    if not changes:
        return []
    try:
        query = text("ledger", f"{'told' if tally else 'record'}_{'few' if len(changes) <= FEW else 'many'}")
        counted = (tally.account, list(tally.kinds), list(tally.kinds.values())) if tally else ()
        added = set(await connection.fetchval(query, *_columns(changes), now, SURE, *counted))
    except asyncpg.CheckViolationError:  # the wall between the streams, or a scope nobody knows
        raise NotEntitled(_WALL) from None
    return [n in added for n in range(1, len(changes) + 1)]


def _columns(changes: Sequence[Change]) -> tuple[list[Any] | str, ...]:
    """Turn rows into the parallel arrays that ``record`` takes, in its order.

    Those of words, numbers and times alone are spelt.
    """
    return (
        spelt(str(c.address.bucket) for c in changes),
        [c.address.key for c in changes],
        spelt(c.address.channel or "null" for c in changes),
        spelt(str(c.scope) for c in changes),
        spelt(c.cause for c in changes),
        spelt(c.effect for c in changes),
        spelt(c.door for c in changes),
        [c.by for c in changes],
        spelt("t" if is_own(c) else "f" for c in changes),
        [c.happened_at for c in changes],
        spelt(c.until.isoformat() if c.until else "null" for c in changes),
        [c.evidence for c in changes],
    )


def withdrawal(stop: Change, *, now: datetime) -> Change:
    """Return the Change that takes back this very stop, and nothing else, through the door that made it."""
    return replace(stop, effect=Effect.WITHDRAW, id=stop.evidence, happened_at=now, until=None)


async def overruled(connection: Connection, stop: Change) -> bool:
    """Return whether this very stop was recorded before, and its person opened or took back anything since: then it may hold no more."""
    known = {"bucket": stop.address.bucket, "key": stop.address.key, "evidence": stop.evidence}
    return bool(await queries("ledger").overruled(connection, **known))


async def pressed(connection: Connection, stop: Change, *, now: datetime) -> bool:
    """Return whether this very stop was recorded so lately that it can be taken back. What is not there is not: it may come yet."""
    known = {"bucket": stop.address.bucket, "key": stop.address.key, "evidence": stop.evidence}
    return bool(await queries("ledger").lately(connection, **known, since=now - UNDO))


async def acknowledged(connection: Connection, stop: Change) -> datetime | None:
    """Return when this very stop happened, as it was recorded; None if it added no row."""
    known = {"bucket": stop.address.bucket, "key": stop.address.key, "evidence": stop.evidence}
    found: datetime | None = await queries("ledger").acknowledged(connection, **known)
    return found


async def differing(connection: Connection, progress: Callable[[int], None] = lambda _buckets: None) -> int:
    """Return how many addresses have a summary other than the fold of their ledger: 0, always. ``progress`` hears each bucket go by.

    A statement for each bucket: none holds a snapshot, or memory, for longer than a thousandth of the whole takes.
    """
    buckets = [row["bucket"] async for row in queries("ledger").buckets(connection)]
    found = 0
    for bucket in buckets:
        found += await queries("ledger").differing(connection, bucket=bucket)
        progress(1)
    return found
