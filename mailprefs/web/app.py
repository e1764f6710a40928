"""The only wiring: rooms, doors and what stands between them and the world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from aiohttp import http_parser, web

from mailprefs import db, numbers, telemetry
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue
from mailprefs.errors import MailprefsError, Misconfigured
from mailprefs.groupcommit import GroupCommit
from mailprefs.inbox import Inbox
from mailprefs.links import KeyRing, Links
from mailprefs.providers import CHANNELS, engaged
from mailprefs.providers.calling import session
from mailprefs.settings import Settings
from mailprefs.web import admin, marketer, pages, problems, provider, recipient
from mailprefs.web.keys import EXPORTS, HOOKS, HOUSE, HTTP, POOL, PRESSES, Hearing, House

COMMAND = 2.0  # seconds a statement of ours may take before the request is told to come back
EXPORT = 3600.0  # seconds an audience may take
AT_ONCE = 4  # deliveries of one account that are recorded at once
ARRIVING = 64  # deliveries of one account that may be on their way in

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


DOORS = {"public": recipient, "hooks": provider, "api": marketer, "metrics": admin}


def create_app(
    settings: Settings, catalogue: Catalogue, ring: KeyRing, *, database_url: str, only: Sequence[str] = tuple(DOORS)
) -> web.Application:
    """Return the service, or some of its doors, ready to run. Raises Misconfigured if an account could not be heard or would do harm."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise Misconfigured("aiohttp runs without its C parser here; install it from a wheel")
    app = web.Application(middlewares=[_outermost], client_max_size=marketer.BODY)
    app[HOUSE] = house(settings, catalogue, ring)
    for door in only:
        app.add_routes(_unvetoed(route) for route in DOORS[door].routes)
    app.on_response_prepare.append(_dress)
    app.cleanup_ctx.append(_opened(database_url))
    return app


def runner(app: web.Application) -> web.AppRunner:
    """Return what runs the service: bounded in every direction, and never inflating a body."""
    return _Runner(
        app,
        access_log=None,  # the usual one quotes the request line, which holds the token
        auto_decompress=False,
        keepalive_timeout=20,
        lingering_time=2,
        max_line_size=4096,
        max_field_size=4096,
        max_headers=64,
        shutdown_timeout=20,
    )


class _Connection(web.RequestHandler):
    """Speaks HTTP with one client. What is no request it refuses in words of ours: aiohttp's repeat what was sent, token and all."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; there cannot be another")
        if status >= 500:
            telemetry.alarm("unexpected", at=type(exc).__name__)
        plain = _no_request(status) if status < 500 else problems.answer(MailprefsError())
        answer = _Refusal(status=plain.status, body=plain.body, content_type=plain.content_type, headers=pages.headers())
        answer.force_close()
        return answer


class _Refusal(web.Response):
    """An answer to what never became a request, so that no signal dresses it."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, loop=made._loop, **made._kwargs)


def _unvetoed(route: web.AbstractRouteDef) -> web.AbstractRouteDef:
    """Return a route that nothing in ``Expect`` vetoes; aiohttp refuses what it does not know, and repeats it."""
    if isinstance(route, web.RouteDef):
        return web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "expect_handler": _expected})
    return route


async def _expected(request: web.Request) -> None:
    if request.version >= (1, 1) and request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun


def house(settings: Settings, catalogue: Catalogue, ring: KeyRing) -> House:
    """Return what the doors share."""
    addresses = Addresses(ring.digest)
    minters = {brand.number: Links(ring, brand.link_host, brand.mailto) for brand in catalogue.brand}
    hearings = {account.name: _hearing(settings, catalogue, ring, addresses, account) for account in catalogue.account}
    return House(catalogue, ring, addresses, minters, hearings)


def _hearing(settings: Settings, catalogue: Catalogue, ring: KeyRing, addresses: Addresses, account: Account) -> Hearing:
    each, credential = engaged(account, settings)
    inbox = Inbox(account, catalogue, addresses, ring, each.channel)
    return Hearing(account, each, credential, inbox, asyncio.Semaphore(ARRIVING), asyncio.Semaphore(AT_ONCE))


def _opened(url: str) -> Callable[[web.Application], AsyncIterator[None]]:
    async def opened(app: web.Application) -> AsyncIterator[None]:
        """Open the pools, one for each class of request, and refuse a database that would lose what we acknowledge."""
        app[POOL] = await db.pool(url, size=8, command_timeout=COMMAND, purpose="web")
        app[HOOKS] = await db.pool(url, size=4, command_timeout=10, purpose="hooks")
        app[EXPORTS] = await db.pool(url, size=4, command_timeout=EXPORT, purpose="exports")
        presses = await db.pool(url, size=2, command_timeout=COMMAND, purpose="presses")
        app[PRESSES] = GroupCommit(presses)
        try:
            await _sound(app)
            async with session(AT_ONCE) as app[HTTP], app[PRESSES].running():
                yield
        finally:
            for pool in (app[POOL], app[HOOKS], app[EXPORTS], presses):
                pool.terminate()  # nothing is in flight here, and close() can hang on a frozen server

    return opened


async def _sound(app: web.Application) -> None:
    shared = app[HOUSE]
    async with app[POOL].acquire() as connection:
        await numbers.ready(connection, shared.catalogue, shared.ring.ids, CHANNELS, now=shared.clock())


@web.middleware
async def _outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let through what HTTP/1.x in origin form is, and turn what nobody caught into a plain 500 that says nothing."""
    if request.version < (1, 0) or request.version >= (2, 0) or not request.raw_path.startswith("/"):
        return _no_request(400)
    try:
        return await handler(request)
    except web.HTTPException as error:
        kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status, "refused")
        answer = problems.problem(error.status, kind, "There is nothing here for that.")
        return _allowing(answer, error)
    except MailprefsError as error:
        return problems.answer(error)
    except Exception as error:
        telemetry.alarm("unexpected", at=type(error).__name__)
        telemetry.log.error("unexpected", exc_info=error)
        return problems.answer(MailprefsError())


def _no_request(status: int) -> web.Response:
    return problems.problem(status, "not-http-1", "Only HTTP/1.0 and 1.1 in origin form are spoken here.")


def _allowing(answer: web.Response, error: web.HTTPException) -> web.Response:
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    return answer


async def _dress(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the protective headers on every answer, whatever its status."""
    for name, value in pages.headers().items():
        response.headers.setdefault(name, value)
    response.headers.pop("Server", None)
