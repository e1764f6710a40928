"""The providers' door: verify the raw bytes, read, commit, and only then answer in the code that provider takes as "kept"."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from functools import partial

from aiohttp import web

from mailprefs import db, telemetry
from mailprefs.errors import Forged, MailprefsError, Unavailable
from mailprefs.inbox import Placed
from mailprefs.providers import understood, unproven
from mailprefs.providers.base import Delivery
from mailprefs.web import problems
from mailprefs.web.keys import ARRIVALS, FORGERIES, HOOKS, HOUSE, HTTP, Hearing

BODY = 5 * 1024 * 1024  # bytes of a delivery
PATIENCE = 10.0  # seconds

routes = web.RouteTableDef()


@routes.route("*", "/hooks/{account}")
async def hear(request: web.Request) -> web.Response:
    """Keep a delivery. Whatever it holds, the answer is the provider's own for kept, forged, or trouble of ours."""
    hearing = request.app[HOUSE].hearings.get(request.match_info["account"])
    if hearing is None:
        return problems.problem(404, "unknown-account", "No account of that name hears here.")
    answers = hearing.provider.answers
    if request.method in answers.greets:
        return web.Response()
    if request.method != "POST":
        raise web.HTTPMethodNotAllowed(request.method, ["POST", *sorted(answers.greets)])
    try:
        if unproven(hearing.provider, request.headers):
            raise Forged
        await _heard(request, hearing)
    except Forged:
        _refused(request, hearing)
        return web.Response(status=answers.forged, headers=answers.challenge)
    except Unavailable:
        telemetry.count("deliveries_not_kept", account=hearing.account.name)
        return web.Response(status=answers.trouble, headers=problems.RETRY)
    except MailprefsError as error:
        return problems.answer(error)
    return web.Response(status=answers.kept, body=answers.body, content_type=answers.content_type)


async def _heard(request: web.Request, hearing: Hearing) -> None:
    """Take a body in, whatever it costs its sender, and only then a place: nobody sits on one by sending slowly."""
    arrivals, now = request.app[ARRIVALS], request.app[HOUSE].clock()
    async with arrivals.arriving(hearing.account.name) as arrival:
        body = await problems.read_body(request, limit=BODY, seconds=PATIENCE, counted=partial(arrivals.grow, arrival))
        arrivals.whole(arrival)
        async with hearing.places:
            await _keep(request, hearing, _delivery(request, body, now))


def _refused(request: web.Request, hearing: Hearing) -> None:
    telemetry.count("forged_deliveries", account=hearing.account.name)
    request.app[FORGERIES].count(hearing.account.name, request.app[HOUSE].clock())  # for other processes to show


async def _keep(request: web.Request, hearing: Hearing, delivery: Delivery) -> None:
    """Verify, read, and commit. Raises Forged, or Unavailable for trouble of ours or of what the proof wants."""
    now = delivery.received_at
    # before there is a connection that others wait for
    placed = await understood(hearing.provider, hearing.credential, delivery, request.app[HTTP], hearing.inbox.placed)
    async with db.acquired(request.app[HOOKS]) as connection, db.sure(connection), _atomic(connection, placed):
        await hearing.inbox.record(connection, placed, now=now)


def _atomic(connection: db.Connection, placed: Placed) -> AbstractAsyncContextManager[object]:
    """Return what makes one commit of it: a transaction, unless it is one statement anyway."""
    return nullcontext() if placed.in_one else connection.transaction()


def _delivery(request: web.Request, body: bytes, now: datetime) -> Delivery:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
    return Delivery(headers, body, now, request.method, request.raw_path)
