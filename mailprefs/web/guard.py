"""Who may come in at ``/v1``: a key with the power that the route wants. Its body is counted until it is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps

from aiohttp import web

from mailprefs import apikeys, db
from mailprefs.apikeys import Power
from mailprefs.errors import Forged, MailprefsError
from mailprefs.web import problems
from mailprefs.web.arrivals import MOST, Arrival
from mailprefs.web.keys import ASKED, HOUSE, POOL

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SHARE = MOST // 2  # bytes of the bodies of one key: one alone may well send twenty large ones at once

CALLER = web.RequestKey("caller", str)  # the id of the key that came in
ARRIVAL = web.RequestKey("arrival", Arrival)  # counts what is held of its body


def wants(power: Power) -> Callable[[Handler], Handler]:
    """Let a request through only with a key that has this power. Whoever has none learns nothing else."""

    def around(handler: Handler) -> Handler:
        @wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                request[CALLER] = await _let_in(request, power)
                async with request.app[ASKED].arriving(request[CALLER]) as request[ARRIVAL]:
                    return await handler(request)
            except MailprefsError as error:
                return problems.answer(error)

        return guarded

    return around


async def _let_in(request: web.Request, power: Power) -> str:
    """Return the id of the key. Raises Forged and Powerless."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Forged("an API key is wanted: Authorization: Bearer mp_…")
    async with db.acquired(request.app[POOL]) as connection:
        key = await apikeys.recognise(connection, text.strip(), now=request.app[HOUSE].clock())
    if power not in key.powers:
        raise problems.Powerless(f"the API key lacks the power '{power}'")
    return key.id
