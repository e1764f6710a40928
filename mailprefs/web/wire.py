"""How HTTP is spoken here: bounded in every direction, dressed the same whatever the status, and refusing in words of ours alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from mailprefs import telemetry
from mailprefs.errors import MailprefsError
from mailprefs.web import pages, problems

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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


@web.middleware
async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
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


async def dress(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the protective headers on every answer, whatever its status."""
    for name, value in pages.headers().items():
        response.headers.setdefault(name, value)
    response.headers.pop("Server", None)


def unvetoed(route: web.AbstractRouteDef) -> web.AbstractRouteDef:
    """Return a route that nothing in ``Expect`` vetoes; aiohttp refuses what it does not know, and repeats it."""
    if isinstance(route, web.RouteDef):
        return web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "expect_handler": _expected})
    return route


async def _expected(request: web.Request) -> None:
    if request.version >= (1, 1) and request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun


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
