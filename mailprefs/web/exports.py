"""Marketing's door: exports that are kept, with what was signed of them, and who left since."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

from aiohttp import web
from pydantic import Field

from mailprefs import db, decisions, exports, leaving, shapes
from mailprefs.apikeys import Power
from mailprefs.errors import Expired, NotMade, UnknownExport, Unreadable
from mailprefs.exports import Export
from mailprefs.leaving import Cursor, Left
from mailprefs.web import problems
from mailprefs.web.guard import CALLER, wants
from mailprefs.web.keys import HOUSE, KEPT, POOL
from mailprefs.web.questions import Asked, Text, asked, topic_of

LONGEST = 60.0  # seconds that one may wait for somebody to leave
LOOK = 0.5  # seconds between two looks whether anybody has
READING = 1.0  # seconds of looking through what is nobody's leaving, before one is told where one stands

routes = web.RouteTableDef()


class ExportAsked(Asked):
    """``POST /v1/exports``"""

    topic: Text
    purpose: str
    channel: str = "email"
    columns: list[str] = Field(default=["address"], max_length=10)
    format: str = "csv"
    compress: str = "none"
    links: bool = False
    spreadsheet: bool = False
    days: int = Field(default=7, ge=1, le=30)


@routes.post("/v1/exports")
@wants(Power.EXPORT)
async def ask(request: web.Request) -> web.Response:
    """Ask for an export, which the worker makes: 202, and where it will be."""
    house, wanted = request.app[HOUSE], await asked(request, ExportAsked)
    topic, channel, now = topic_of(house, wanted.topic), decisions.channel_of(wanted.channel), house.clock()
    shape = shapes.read(",".join(wanted.columns), wanted.format, wanted.compress, links=wanted.links, spreadsheet=wanted.spreadsheet)
    said = {"purpose": wanted.purpose, "requester": f"key {request[CALLER]}"}
    async with db.acquired(request.app[POOL]) as connection:
        id = await exports.ask(connection, topic, channel, shape, **said, expires_at=now + timedelta(days=wanted.days), now=now)
    return web.json_response({"id": str(id), "state": "waiting"}, status=202, headers={"Location": f"/v1/exports/{id}"})


@routes.get("/v1/exports/{id}")
@wants(Power.EXPORT)
async def show(request: web.Request) -> web.Response:
    """Say how far an export is."""
    export = await _found(request)
    said = {"id": str(export.id), "state": export.state(request.app[HOUSE].clock()), "asked_at": export.asked_at.isoformat()}
    said |= {"expires_at": export.expires_at.isoformat(), "requester": export.requester, "purpose": export.purpose}
    return web.json_response(said | ({"why": export.refused} if export.refused else {}))


@routes.get("/v1/exports/{id}/manifest")
@wants(Power.EXPORT)
async def manifest(request: web.Request) -> web.Response:
    """Return what was signed of an export, byte for byte, however old."""
    export = await _found(request)
    if export.manifest is None:
        raise NotMade(export.refused)
    return web.Response(body=export.manifest.encode(), content_type="application/json")


@routes.get("/v1/exports/{id}/file")
@wants(Power.EXPORT)
async def file(request: web.Request) -> web.StreamResponse:
    """Return the file of an export, or the Range of it that is asked for."""
    export = await _found(request)
    if export.state(request.app[HOUSE].clock()) == "expired":
        raise Expired
    if export.file is None or export.manifest is None:
        raise NotMade(export.refused)
    path = request.app[KEPT] / export.file
    if not path.is_file():
        raise UnknownExport("the file is not on this machine: the worker that makes exports and this service want one MAILPREFS_DATA")
    name = exports.facts_of(export)["file"]
    return web.FileResponse(path, headers={"Content-Type": export.shape.media, "Content-Disposition": f'attachment; filename="{name}"'})


@routes.get("/v1/exports/{id}/revoked")
@wants(Power.EXPORT)
async def revoked(request: web.Request) -> web.Response:
    """Say who left since an export was made, after a cursor; wait for somebody, if so asked."""
    problems.known(request.query, "after", "wait")
    export, cursor = await _found(request), leaving.read(request.query["after"]) if "after" in request.query else None
    patience = _wait(request.query)
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        items, cursor, more = await _next(request, export, cursor)
        waited = loop.time() - began
        if items or waited >= (READING if more else patience) or request.transport is None:
            return web.json_response({"items": [_shown(each) for each in items], "next": str(cursor), "more": more})
        if not more:
            await asyncio.sleep(min(LOOK, patience - waited))


async def _next(request: web.Request, export: Export, cursor: Cursor | None) -> tuple[list[Left], Cursor, bool]:
    house = request.app[HOUSE]
    async with db.acquired(request.app[POOL]) as connection:
        return await leaving.page(connection, export, house.catalogue, cursor, now=house.clock())


def _shown(left: Left) -> dict[str, Any]:
    return {"address": left.text, "key": str(left.key), "at": left.at.isoformat(), "back": left.back}


def _wait(query: Mapping[str, str]) -> float:
    with suppress(ValueError):
        if 0 <= (asked := float(query.get("wait", "0"))) <= LONGEST:
            return asked
    raise Unreadable(f"'wait' is a number of seconds, {LONGEST:.0f} at most")


async def _found(request: web.Request) -> Export:
    try:
        id = UUID(request.match_info["id"])
    except ValueError:
        raise UnknownExport from None
    async with db.acquired(request.app[POOL]) as connection:
        export = await exports.find(connection, id)
    if export is None:
        raise UnknownExport
    return export
