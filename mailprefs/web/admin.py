"""The operator's door: is it alive, is it ready, what does it count."""

from __future__ import annotations

from contextlib import suppress

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mailprefs import db, reception
from mailprefs.errors import Misconfigured, Unavailable
from mailprefs.web import problems
from mailprefs.web.keys import HOUSE, POOL

routes = web.RouteTableDef()


@routes.get("/healthz")
async def alive(_request: web.Request) -> web.Response:
    """Say that the process answers."""
    return web.json_response({"alive": True})


@routes.get("/readyz")
async def ready(request: web.Request) -> web.Response:
    """Say that the database answers, is durable and is up to date."""
    try:
        async with db.acquired(request.app[POOL]) as connection:
            await db.durable(connection)
            lacking = await db.pending(connection)
    except Unavailable as error:
        return problems.answer(error)
    except Misconfigured as error:  # a server whose settings were changed under us: send it no traffic, and say which
        return problems.problem(503, "misconfigured", str(error))
    if lacking:
        return problems.problem(503, "migrating", "The database is older than this version: mailprefs migrate.")
    return web.json_response({"ready": True})


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Return all counters, in the format of Prometheus, and how each account is received as of now: without a database, as of before."""
    with suppress(Unavailable):
        await _receptions(request)
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _receptions(request: web.Request) -> None:
    shared = request.app[HOUSE]
    async with db.acquired(request.app[POOL]) as connection:
        reception.show(await reception.figures(connection, list(shared.hearings)), now=shared.clock())
