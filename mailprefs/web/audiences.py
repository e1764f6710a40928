"""Marketing's door: everyone who may be sent a topic, streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from aiohttp import web

from mailprefs import audience, db, decisions, parquet, replicas, shapes
from mailprefs.apikeys import Power
from mailprefs.catalogue import Scope
from mailprefs.packing import Packing, Sink
from mailprefs.shapes import PARQUET, Shape
from mailprefs.web import problems
from mailprefs.web.guard import wants
from mailprefs.web.keys import EXPORTS, HOUSE, STANDBY, House
from mailprefs.web.questions import topic_of
from mailprefs.words import Channel

STALLED = 60.0  # seconds in which a reader takes nothing of its audience: it has gone, and keeps a snapshot open
GONE = 0.25  # seconds between two looks whether whoever asked is still there
ENCODED = {"zstd": Packing.ZSTD, "gzip": Packing.GZIP}  # by the names of HTTP, the better one first

Answer = TypeVar("Answer")

routes = web.RouteTableDef()


@routes.get("/v1/audiences/{brand}/{topic}")
@wants(Power.EXPORT)
async def everyone(request: web.Request) -> web.StreamResponse:
    """Stream everyone who may be sent a topic, as a file of the shape that is asked for."""
    house = request.app[HOUSE]
    problems.known(request.query, "channel", "format", "columns", "links", "compress", "spreadsheet")
    topic = topic_of(house, f"{request.match_info['brand']}/{request.match_info['topic']}")
    channel = decisions.channel_of(request.query.get("channel", "email"))
    shape = _shape(request)
    audience.sound(topic, shape.columns)  # while a refusal can still be said
    if shape.format == PARQUET:
        parquet.duckdb()
    response = _response(request, topic, shape)
    async with (
        db.acquired(request.app[EXPORTS]) as primary,
        replicas.reading(primary, request.app[STANDBY], house.catalogue, now=house.clock()) as connection,
    ):
        await response.prepare(request)
        try:
            await while_there(request, _streamed(connection, house, topic, channel, shape, response))
        except BaseException:
            if request.transport is not None:
                request.transport.abort()  # what was sent is not all, and the reader must not take it for all
            raise
    if not is_gone(request):
        await response.write_eof()
    return response


def _shape(request: web.Request) -> Shape:
    asked = request.query
    shape = shapes.read(
        asked.get("columns", "address"),
        asked.get("format", "csv"),
        asked.get("compress", "none"),
        links=asked.get("links", "0") not in ("0", "false", "no"),
        spreadsheet=asked.get("spreadsheet", "0") not in ("0", "false", "no"),
    )
    if "compress" in asked or shape.format == PARQUET:
        return shape
    return replace(shape, packing=_encoding(request.headers.get("Accept-Encoding", "")))


def _encoding(accepted: str) -> Packing:
    """Return the best of what a client says it unpacks by itself (RFC 9110 §12.5.3); none if it says nothing of ours."""
    said = {
        name.strip().lower(): parameter.replace(" ", "").lower()
        for name, _, parameter in (each.partition(";") for each in accepted.split(","))
    }
    return next((each for name, each in ENCODED.items() if name in said and said[name].rstrip("0.") != "q="), Packing.NONE)


def _response(request: web.Request, topic: Scope, shape: Shape) -> web.StreamResponse:
    """Return the head of the answer. What a client unpacks by itself is the plain file to it, and named as that."""
    unasked = "compress" not in request.query
    named = replace(shape, packing=Packing.NONE) if unasked else shape
    headers = {"Content-Type": named.media, "Vary": "Accept-Encoding"}
    headers["Content-Disposition"] = f'attachment; filename="{topic.name.replace("/", "-")}{named.suffix}"'
    if unasked and shape.packing is not Packing.NONE:
        headers["Content-Encoding"] = shape.packing.value
    return web.StreamResponse(headers=headers)


async def _streamed(
    connection: db.Connection, house: House, topic: Scope, channel: Channel, shape: Shape, response: web.StreamResponse
) -> None:
    async with shapes.delivered(shape, patient(response.write, STALLED)) as rows:
        await audience.stream(
            connection,
            topic,
            channel,
            rows,
            now=house.clock(),
            columns=shape.columns,
            format=shape.rows,
            links=house.links[topic.brand],
            spreadsheet=shape.spreadsheet,
        )


def patient(write: Sink, seconds: float) -> Sink:
    """Return a sink that raises TimeoutError where a chunk is not taken in time, however long all of them take."""

    async def sink(chunk: bytes) -> None:
        async with asyncio.timeout(seconds):
            await write(chunk)

    return sink


async def while_there(request: web.Request, work: Coroutine[Any, Any, Answer]) -> Answer | None:
    """Return what work comes to; None, with the work broken off, as soon as whoever asked has hung up: nothing is held for nobody."""
    working = asyncio.create_task(work)
    try:
        while not working.done():
            await asyncio.wait({working}, timeout=GONE)
            if is_gone(request):
                return None
        return working.result()
    finally:
        working.cancel()
        await asyncio.wait({working})


def is_gone(request: web.Request) -> bool:
    """True once nobody is there any more to be answered."""
    return request.transport is None or request.transport.is_closing()
