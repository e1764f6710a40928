"""The operator's door: is it alive, is it ready, what does it count."""

from __future__ import annotations

import re
from contextlib import suppress
from hmac import compare_digest

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mailprefs import db, reception
from mailprefs.errors import Forged, Misconfigured, Unavailable
from mailprefs.settings import Settings
from mailprefs.web import problems
from mailprefs.web.keys import HOUSE, METRICS, POOL

TOKEN, SHORTEST = "METRICS_TOKEN", 16  # the variable, and the fewest letters of one

routes = web.RouteTableDef()


def token(settings: Settings) -> str | None:
    """Return the token that shows the counters, None without one. Raises Misconfigured for one that could be guessed, or never sent."""
    found = settings.secret(TOKEN)
    if found is not None and not re.fullmatch(rf"[!-~]{{{SHORTEST},}}", found):
        raise Misconfigured(f"{TOKEN} wants {SHORTEST} letters at least, in printable ASCII without a space")
    return found


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
async def shown(request: web.Request) -> web.Response:
    """Return all counters to who bears METRICS_TOKEN. Where there is none, nothing is shown: the route is as public as the links."""
    token = request.app[METRICS]
    if token is None:
        return problems.problem(404, "not-found", f"Set {TOKEN} to have the counters shown to who bears it.")
    given = request.headers.get("Authorization", "")
    if not compare_digest(given.encode("utf-8", "surrogatepass"), f"Bearer {token}".encode()):
        return problems.answer(Forged(f"{TOKEN} is wanted: Authorization: Bearer …"))
    return await metrics(request)


async def metrics(request: web.Request) -> web.Response:
    """Return all counters, in the format of Prometheus, and how each account is received as of now: without a database, as of before."""
    with suppress(Unavailable):
        await _receptions(request)
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _receptions(request: web.Request) -> None:
    shared = request.app[HOUSE]
    async with db.acquired(request.app[POOL]) as connection:
        reception.show(await reception.figures(connection, list(shared.hearings)), now=shared.clock())
