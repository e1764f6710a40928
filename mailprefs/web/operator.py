"""The operator's door at ``/v1``: has everybody been told, and in time."""

from __future__ import annotations

from aiohttp import web

from mailprefs import db, outbox
from mailprefs.apikeys import Power
from mailprefs.web.guard import wants
from mailprefs.web.keys import HOUSE, POOL

routes = web.RouteTableDef()


@routes.get("/v1/sync")
@wants(Power.OPERATE)
async def sync(request: web.Request) -> web.Response:
    """Say what each account has still to hear, and by when: as ``mailprefs sync --json``."""
    async with db.acquired(request.app[POOL]) as connection:
        figures = await outbox.sync(connection, now=request.app[HOUSE].clock())
    return web.json_response({"accounts": [each.shown for each in figures]})
