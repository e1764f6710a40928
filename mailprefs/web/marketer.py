"""The applications' door: links, decisions, and everything behind one address. Every route wants a key with the power it names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import Field

from mailprefs import db, decisions
from mailprefs.apikeys import Power
from mailprefs.decisions import Question
from mailprefs.errors import Unreadable
from mailprefs.web import problems
from mailprefs.web.guard import wants
from mailprefs.web.keys import HOUSE, POOL, House
from mailprefs.web.questions import Asked, Text, asked, dumps, topic_of
from mailprefs.words import Address

MOST = 10_000  # entries in one request
SLICE = 0.002  # seconds for which one may hold the loop

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Found = TypeVar("Found")

routes = web.RouteTableDef()


class LinksAsked(Asked):
    """``POST /v1/links``"""

    topic: Text
    addresses: list[Text] = Field(max_length=MOST)


class Pair(Asked):
    address: Text
    topic: Text


class DecisionsAsked(Asked):
    """``POST /v1/decisions``"""

    pairs: list[Pair] = Field(max_length=MOST)


class LookupAsked(Asked):
    """``POST /v1/addresses/lookup``"""

    address: Text


@routes.post("/v1/links")
@wants(Power.LINKS)
async def links(request: web.Request) -> web.Response:
    """Mint the body link and the headers for up to 10,000 addresses of a topic."""
    house = request.app[HOUSE]
    wanted = await asked(request, LinksAsked)
    topic = topic_of(house, wanted.topic)
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
    problems.known(request.query, "channel")
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
