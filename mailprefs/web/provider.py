"""The providers' door: verify the raw bytes, read, commit, and only then answer in the code that provider takes as "kept"."""

from __future__ import annotations

from aiohttp import web

from mailprefs import db, telemetry
from mailprefs.errors import Forged, MailprefsError, Unavailable
from mailprefs.providers.base import Delivery
from mailprefs.web import problems
from mailprefs.web.keys import HOOKS, HOUSE, Ear

BODY = 5 * 1024 * 1024  # bytes of a delivery
PATIENCE = 10.0  # seconds

routes = web.RouteTableDef()


@routes.post("/hooks/{account}")
async def hear(request: web.Request) -> web.Response:
    """Keep a delivery. Whatever it holds, the answer is the provider's own for kept, forged, or trouble of ours."""
    ear = request.app[HOUSE].ears.get(request.match_info["account"])
    if ear is None:
        return problems.problem(404, "unknown-account", "No account of that name hears here.")
    async with ear.places:
        try:
            return await _kept(request, ear)
        except Forged:
            telemetry.count("forged_deliveries", account=ear.account.name)
            return web.Response(status=ear.provider.answers.forged)
        except Unavailable:
            telemetry.count("deliveries_not_kept", account=ear.account.name)
            return web.Response(status=ear.provider.answers.trouble, headers=problems.RETRY)
        except MailprefsError as error:
            return problems.answer(error)


async def _kept(request: web.Request, ear: Ear) -> web.Response:
    now = request.app[HOUSE].clock()
    body = await problems.read_body(request, limit=BODY, seconds=PATIENCE)
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
    delivery = Delivery(headers, body, now, request.method, str(request.rel_url))
    ear.provider.verify(ear.credential, delivery)
    heard = ear.provider.parse(delivery)
    async with db.acquired(request.app[HOOKS]) as connection, db.sure(connection), connection.transaction():
        await ear.inbox.keep(connection, heard, now=now)
    return web.Response(status=ear.provider.answers.kept)
