"""The applications' and marketing's door: links, decisions, audiences. Every route wants a key with the power it names."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Annotated, Any, TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from mailprefs import audience, db, decisions
from mailprefs.apikeys import Power
from mailprefs.audience import Format, Sink
from mailprefs.catalogue import Scope
from mailprefs.decisions import Question
from mailprefs.errors import UnknownScope, Unreadable
from mailprefs.web import problems
from mailprefs.web.guard import wants
from mailprefs.web.keys import EXPORTS, HOUSE, POOL, House
from mailprefs.words import Address

BODY = 8 * 1024 * 1024  # bytes
PATIENCE = 30.0  # seconds
STALLED = 60.0  # seconds in which a reader takes nothing of its audience: it has gone, and keeps a snapshot open
MOST = 10_000  # entries in one request
SLICE = 0.002  # seconds for which one may hold the loop

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Model = TypeVar("Model", bound=BaseModel)
Found = TypeVar("Found")
Text = Annotated[str, StringConstraints(min_length=1, max_length=320)]

routes = web.RouteTableDef()


class _Asked(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)


class LinksAsked(_Asked):
    """``POST /v1/links``"""

    topic: Text
    addresses: list[Text] = Field(max_length=MOST)


class Pair(_Asked):
    address: Text
    topic: Text


class DecisionsAsked(_Asked):
    """``POST /v1/decisions``"""

    pairs: list[Pair] = Field(max_length=MOST)


class LookupAsked(_Asked):
    """``POST /v1/addresses/lookup``"""

    address: Text


async def asked(request: web.Request, model: type[Model]) -> Model:
    """Return the body as a model. Raises Unreadable, which says where it is wrong and never repeats what was sent."""
    body = await problems.read_body(request, limit=BODY, seconds=PATIENCE)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        # the last word of the place of a key that we do not know is that key: theirs, not ours
        where = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
        raise Unreadable(f"{'.'.join(map(str, where)) or 'the body'}: {first['msg']}") from None


@routes.post("/v1/links")
@wants(Power.LINKS)
async def links(request: web.Request) -> web.Response:
    """Mint the body link and the headers for up to 10,000 addresses of a topic."""
    house = request.app[HOUSE]
    wanted = await asked(request, LinksAsked)
    topic = _topic(house, wanted.topic)
    minter = house.links[topic.brand]
    found = await _in_turn(house, house.addresses.read, wanted.addresses)
    minted = [(text, minter.mint(address.key, topic)) for text, address in zip(wanted.addresses, found, strict=True)]
    return web.json_response({"links": [{"address": text, "url": each.url, "headers": each.headers} for text, each in minted]})


@routes.post("/v1/decisions")
@wants(Power.DECIDE)
async def decide(request: web.Request) -> web.Response:
    """Answer up to 10,000 pairs of address and topic, in order, each with its reasons."""
    house = request.app[HOUSE]
    wanted = await asked(request, DecisionsAsked)
    now = house.clock()
    # an address we would not accept is asked about under the key a provider's report of it would have
    found = await _in_turn(house, house.addresses.asked, [pair.address for pair in wanted.pairs])
    questions = [
        Question(address, pair.address, pair.topic, not readable) for pair, (address, readable) in zip(wanted.pairs, found, strict=True)
    ]
    async with db.acquired(request.app[POOL]) as connection:
        answers = await decisions.decide(connection, questions, house.catalogue, now=now)
    return web.json_response({"as_of": now.isoformat(), "decisions": answers}, dumps=dumps)


@routes.get("/v1/audiences/{brand}/{topic}")
@wants(Power.EXPORT)
async def everyone(request: web.Request) -> web.StreamResponse:
    """Stream everyone who may be sent a topic: ``?channel=``, ``?format=csv|ndjson``, ``?columns=address,locale,…``."""
    house = request.app[HOUSE]
    topic = _topic(house, f"{request.match_info['brand']}/{request.match_info['topic']}")
    channel = decisions.channel_of(request.query.get("channel", "email"))
    format, columns = _shape(request)
    audience.sound(topic, columns)
    response = web.StreamResponse(headers={"Content-Type": "text/csv; charset=utf-8" if format is Format.CSV else "application/x-ndjson"})
    async with db.acquired(request.app[EXPORTS]) as connection:
        await response.prepare(request)
        try:
            sink = patient(response.write, STALLED)
            await audience.stream(connection, topic, channel, sink, now=house.clock(), columns=columns, format=format)
        except BaseException:
            if request.transport is not None:
                request.transport.abort()  # what was sent is not all, and the reader must not take it for all
            raise
    await response.write_eof()
    return response


def _topic(house: House, name: str) -> Scope:
    """Return the topic that a name means. Raises UnknownScope, which lists none: a key for links need not know what else there is."""
    try:
        return house.catalogue.topic(name)
    except UnknownScope:
        raise UnknownScope("there is no such topic, or more than one; write it as brand/topic") from None


async def _in_turn(house: House, read: Callable[[str], Found], texts: Sequence[str]) -> list[Found]:
    """Return what each text is read as, in slices between which the loop serves everybody else. Of all calls, one has the slice.

    Nearly every address takes some microseconds, and one that is internationalised to its last letter most of a millisecond.
    """
    found: list[Found] = []
    left = iter(texts)
    while len(found) < len(texts):
        async with house.slices:
            until = monotonic() + SLICE  # the loop's own time stands still meanwhile
            for text in left:
                found.append(_read(read, text, len(found)))
                if monotonic() >= until:
                    break
            await asyncio.sleep(0)
    return found


def _read(read: Callable[[str], Found], text: str, n: int) -> Found:
    try:
        return read(text)
    except Unreadable as error:
        raise Unreadable(f"address {n}, counted from 0: {error}") from None


def patient(write: Sink, seconds: float) -> Sink:
    """Return a sink that raises TimeoutError where a chunk is not taken in time, however long all of them take."""

    async def sink(chunk: bytes) -> None:
        async with asyncio.timeout(seconds):
            await write(chunk)

    return sink


def _shape(request: web.Request) -> tuple[Format, tuple[str, ...]]:
    format = request.query.get("format", "csv")
    if format not in list(Format):
        raise Unreadable(f"the formats are: {', '.join(Format)}")
    return Format(format), tuple(request.query.get("columns", "address").split(","))


@routes.post("/v1/addresses/lookup")
@wants(Power.PRIVACY)
async def lookup(request: web.Request) -> web.Response:
    """Return the key of an address, to ask about it without ever putting it into a URL."""
    house = request.app[HOUSE]
    wanted = await asked(request, LookupAsked)
    return web.json_response({"address": wanted.address, "key": str(house.addresses.heard(wanted.address).key)})


@routes.get("/v1/addresses/{key}")
@wants(Power.PRIVACY)
async def why(request: web.Request) -> web.Response:
    """Return the decisions about one address, the history behind them, and who was told."""
    house = request.app[HOUSE]
    channel = decisions.channel_of(request.query["channel"]) if "channel" in request.query else None
    address = Address(_key(request.match_info["key"]), channel)
    async with db.acquired(request.app[POOL]) as connection:
        whole = await decisions.why(connection, address, str(address.key), house.catalogue.topics, house.catalogue, now=house.clock())
    return web.json_response(whole, dumps=dumps)


def _key(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Unreadable("that is no key of an address; ask /v1/addresses/lookup for it") from None


def dumps(value: Any) -> str:
    """Write JSON with Decisions as objects and times in ISO 8601."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value.isoformat()
