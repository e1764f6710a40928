"""Changes that an application hands in: what its staff was told, consents that were given elsewhere, and who may want mail.

An application may stop, and never lifts what only a recipient may. A consent it brings is a claim; a signup is asked about first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from typing import Annotated, Literal

from aiohttp import web
from pydantic import AwareDatetime, Field, StringConstraints

from mailprefs import db, ledger, post, proof
from mailprefs.apikeys import Power
from mailprefs.catalogue import Scope
from mailprefs.db import Connection
from mailprefs.errors import Busy, NotEntitled, UnknownScope, Unreadable
from mailprefs.passes import Purpose
from mailprefs.proof import Proof
from mailprefs.web.guard import CALLER, wants
from mailprefs.web.keys import HOUSE, POOL, House
from mailprefs.web.questions import Asked, Text, asked, dumps
from mailprefs.words import Cause, Change, Channel, Door, Effect, Stream
from mailprefs.words import Wanted as Wanting

MOST = 1_000  # in one request
Evidence = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f@]+$")]  # kept for ever: names nobody

AT_ONCE = 50  # changes that are committed together: the presses of these people wait no longer than for so many

routes = web.RouteTableDef()


class Wanted(Asked):
    """One change, as an application says it."""

    address: Text
    scope: Text
    effect: Literal["stop", "lift", "consent", "signup"]
    cause: Annotated[Cause, Field(strict=False)] = Cause.CHOICE
    at: Annotated[AwareDatetime, Field(strict=False, ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(9000, 1, 1, tzinfo=UTC))] | None = (
        None
    )
    evidence: Evidence


class ChangesAsked(Asked):
    """``POST /v1/changes``"""

    changes: list[Wanted] = Field(max_length=MOST)


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that was not taken, counted from 0, and why."""

    row: int
    reason: str


@routes.post("/v1/changes")
@wants(Power.CHANGE)
async def change(request: web.Request) -> web.Response:
    """Record up to 1,000 changes, each taken or refused by itself; a signup is mailed a question."""
    house, wanted = request.app[HOUSE], (await asked(request, ChangesAsked)).changes
    rows = iter(sorted(enumerate(wanted), key=lambda each: _lock_order(house, each[1])))
    refused: list[Refused] = []
    async with db.acquired(request.app[POOL]) as connection, db.sure(connection):
        while some := list(islice(rows, AT_ONCE)):
            async with connection.transaction():
                refused += [each for row, one in some if (each := await _tried(connection, house, row, one, request[CALLER]))]
    refused.sort(key=lambda each: each.row)
    return web.json_response({"recorded": len(wanted) - len(refused), "refused": refused}, dumps=dumps)


async def _tried(connection: Connection, house: House, row: int, one: Wanted, caller: str) -> Refused | None:
    try:
        async with connection.transaction():  # what one row breaks off, the others keep
            await _taken(connection, house, one, caller)
    except (NotEntitled, UnknownScope, Unreadable, Busy) as error:
        return Refused(row, str(error))
    return None


def _lock_order(house: House, one: Wanted) -> tuple[int, bytes]:
    """Return the place of a row among the others: everybody locks addresses by their keys, so that no two wait in a circle."""
    try:
        address = house.addresses.read(one.address)
    except Unreadable:
        return -1, b""
    return address.bucket, address.key.bytes


async def _taken(connection: Connection, house: House, one: Wanted, caller: str) -> None:
    try:
        scope = house.catalogue.scope(one.scope)
    except UnknownScope:
        raise UnknownScope("there is no such scope, or more than one; write it as brand/topic") from None
    if one.effect == "signup":
        await _asked_about(connection, house, one, scope)
    elif one.effect == "consent":
        await _claimed(connection, house, one, scope)
    else:
        await _staffs(connection, house, _by_staff(house, one, scope, caller))


async def _staffs(connection: Connection, house: House, made: Change) -> None:
    """Record what staff was told. A stop that was told before its person chose otherwise is not taken for one that holds."""
    (added,) = await ledger.record(connection, [made], now=house.clock())
    if not added and made.effect is Effect.STOP and await ledger.overruled(connection, made):
        raise NotEntitled("this very stop was recorded before, and its person has chosen otherwise since; a new one wants its time: `at`")


async def _asked_about(connection: Connection, house: House, one: Wanted, scope: Scope) -> None:
    """Owe the question whether a topic is wanted. Nobody is known by it, and nothing is sent before the answer."""
    address = house.addresses.read(one.address)
    if not scope.is_topic or scope.stream is not Stream.MARKETING or scope.retired or address.channel is not Channel.EMAIL:
        raise NotEntitled("a signup is for one marketing topic, by e-mail")
    if scope.brand not in house.mailing:
        raise NotEntitled("no mail can be sent for this brand: set SMTP_URL and the brand's `from`, or its `mailer`")
    if not await post.ask(connection, Purpose.CONFIRM, address, scope.number, language=None, now=house.clock(), to=address.text):
        raise Busy("three mails to this address were asked for within the hour")


async def _claimed(connection: Connection, house: House, one: Wanted, scope: Scope) -> None:
    """Record that a consent was given elsewhere: it lifts nothing, and never stands for a double opt-in."""
    if not scope.is_topic or one.at is None:
        raise NotEntitled("a consent is for one topic, and says when it was given: `at`")
    if scope.wanted is Wanting.DOUBLE_OPT_IN:
        raise NotEntitled("this topic wants a double opt-in: use the effect `signup`, which asks the recipient")
    shown = Proof(one.evidence)
    id_ = f"{shown.digest}-{_digest(one, scope)[:16]}"
    grant = Change(house.addresses.read(one.address), scope.number, Cause.CHOICE, Effect.GRANT, Door.IMPORT, id_, one.at)
    await proof.keep(connection, [shown])
    await ledger.record(connection, [grant], now=house.clock())


def _by_staff(house: House, one: Wanted, scope: Scope, caller: str) -> Change:
    """Return a stop or a lift as the ledger takes it. The same words at the same time are the same fact."""
    if one.effect == "lift" and one.cause in (Cause.CHOICE, Cause.COMPLAINT):
        raise NotEntitled(f"only the recipient can lift a {one.cause}, through a link that is mailed to them")
    effect = Effect.STOP if one.effect == "stop" else Effect.GO
    made = Change(
        house.addresses.heard(one.address),
        scope.number,
        one.cause,
        effect,
        Door.STAFF,
        f"{one.evidence[:80]} {_digest(one, scope)[:12]}",
        one.at or house.clock(),
        by=caller,
    )
    ledger.entitled(made)
    return made


def _digest(one: Wanted, scope: Scope) -> str:
    said = (scope.number, one.effect, one.cause, one.at.astimezone(UTC).isoformat() if one.at else "", one.evidence)
    return sha256("\0".join(map(str, said)).encode()).hexdigest()
