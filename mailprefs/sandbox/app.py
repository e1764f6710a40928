"""The sandbox: every simulated provider under its own name on one loopback port, and a small API to script and question it.

``http://127.0.0.1:PORT/sendgrid`` is an account's ``api_base``. Beside the providers:

- ``POST /_sandbox/faults`` ``{"queue": ["500", {"fault": "slow", "seconds": 2}]}``: each is spent on one write request, or, with
  ``"listing": true``, on one page of a listing
- ``GET /_sandbox/state`` and ``PUT``: what each provider believes
- ``GET /_sandbox/requests`` and ``DELETE``: what was received, in order, without the keys
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from mailprefs.errors import Misconfigured
from mailprefs.sandbox import faults
from mailprefs.sandbox.brevo import Brevo
from mailprefs.sandbox.customerio import CustomerIo
from mailprefs.sandbox.klaviyo import Klaviyo
from mailprefs.sandbox.mailchimp import Mailchimp
from mailprefs.sandbox.mailersend import MailerSend
from mailprefs.sandbox.mailgun import Mailgun
from mailprefs.sandbox.mailjet import Mailjet
from mailprefs.sandbox.mandrill import Mandrill
from mailprefs.sandbox.postmark import Postmark
from mailprefs.sandbox.resend import Resend
from mailprefs.sandbox.sendgrid import SendGrid
from mailprefs.sandbox.ses import SES
from mailprefs.sandbox.sparkpost import SparkPost
from mailprefs.sandbox.twilio import Twilio

LOOPBACK = "127.0.0.1"
KEPT_REQUESTS = 100_000  # the oldest make room
KEYS = frozenset({"authorization", "x-postmark-server-token", "api-key"})  # headers whose value is a credential
KEY_INSIDE = re.compile(r'(?<="key": ")[^"]*')  # a credential that is in the body
LARGEST = 8 << 20  # bytes of a request


class Simulation(Protocol):
    """One simulated provider."""

    state: Mapping[str, Any]

    def routes(self) -> Iterable[web.RouteDef]: ...

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request whose credential is none, None to the others."""


SIMULATIONS: Mapping[str, Callable[[], Simulation]] = {
    "brevo": Brevo,
    "customerio": CustomerIo,
    "klaviyo": Klaviyo,
    "mailchimp": Mailchimp,
    "mailersend": MailerSend,
    "mailgun": Mailgun,
    "mailjet": Mailjet,
    "mandrill": Mandrill,
    "postmark": Postmark,
    "resend": Resend,
    "sendgrid": SendGrid,
    "ses": SES,
    "sparkpost": SparkPost,
    "twilio": Twilio,
}
SIMULATED = web.AppKey("simulated", dict[str, Simulation])
RECEIVED = web.AppKey("received", deque[dict[str, object]])


def create_app(names: Sequence[str] = ()) -> web.Application:
    """Return the sandbox of the named providers, of all where none is named. Raises ValueError for one it has not."""
    if strange := set(names) - set(SIMULATIONS):
        raise ValueError(f"no sandbox for {', '.join(sorted(strange))}; there are: {', '.join(SIMULATIONS)}")
    app = web.Application(middlewares=[_remember], client_max_size=LARGEST)
    app[faults.FAULTS] = faults.Faults()
    app[RECEIVED] = deque(maxlen=KEPT_REQUESTS)
    app[SIMULATED] = {name: SIMULATIONS[name]() for name in names or SIMULATIONS}
    app.cleanup_ctx.append(faults.settle)
    for name, simulation in app[SIMULATED].items():
        app.add_subapp(f"/{name}", _mounted(simulation))
    app.add_routes(
        [
            web.post("/_sandbox/faults", _queue),
            web.get("/_sandbox/state", _state),
            web.put("/_sandbox/state", _restore),
            web.get("/_sandbox/requests", _requests),
            web.delete("/_sandbox/requests", _forget),
        ]
    )
    return app


async def serve(port: int, names: Sequence[str] = (), *, begun: Callable[[str], None] = lambda _root: None) -> None:
    """Serve on loopback until cancelled, and say at which address once it is ``begun``. Raises Misconfigured where the port is taken.

    With port 0 a free one is taken and written to stdout, on a line of its own.
    """
    runner = web.AppRunner(create_app(names), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, LOOPBACK, port).start()
        except OSError as error:
            raise Misconfigured(f"port {port} on {LOOPBACK} cannot be had ({error.strerror}). --port names another.") from None
        taken = int(runner.addresses[0][1])
        begun(f"http://{LOOPBACK}:{taken}")
        if not port:
            sys.stdout.write(f"{taken}\n")
            sys.stdout.flush()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _mounted(simulation: Simulation) -> web.Application:
    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        return simulation.refusal(request) or await handler(request)

    app = web.Application(middlewares=[refuse], client_max_size=LARGEST)
    app.add_routes(list(simulation.routes()))
    return app


@web.middleware
async def _remember(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every request to a provider is remembered as it came, without its key."""
    if not request.path.startswith("/_sandbox/"):
        headers = [[name, value] for name, value in request.headers.items() if name.lower() not in KEYS]
        body = KEY_INSIDE.sub("", (await request.read()).decode("utf-8", "backslashreplace"))
        request.app[RECEIVED].append({"method": request.method, "path": request.raw_path, "headers": headers, "body": body})
    return await handler(request)


async def _queue(request: web.Request) -> web.Response:
    try:
        told = (await request.json())["queue"]
        queue = [faults.read(entry) for entry in told]
    except (ValueError, TypeError, KeyError) as error:
        return web.json_response({"error": str(error)}, status=400)
    waiting = request.app[faults.FAULTS]
    for fault in queue:
        waiting.add(fault)
    return web.json_response({"queue": [fault.name for fault in (*waiting.queue, *waiting.listings)]})


async def _state(request: web.Request) -> web.Response:
    return web.json_response({name: simulation.state for name, simulation in request.app[SIMULATED].items()})


async def _restore(request: web.Request) -> web.Response:
    try:
        for name, state in (await request.json()).items():
            request.app[SIMULATED][name].state = state
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
    return await _state(request)


async def _requests(request: web.Request) -> web.Response:
    received = request.app[RECEIVED]
    return web.json_response(list(received))


async def _forget(request: web.Request) -> web.Response:
    request.app[RECEIVED].clear()
    return web.Response(status=204)
