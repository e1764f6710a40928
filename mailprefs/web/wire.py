"""How HTTP is spoken here: bounded in every direction, dressed the same whatever the status, and refusing in words of ours alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage

from mailprefs import telemetry
from mailprefs.errors import MailprefsError
from mailprefs.web import connections, pages, problems

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def runner(app: web.Application, *, most: int | None = None, idle: float = 20) -> web.AppRunner:
    """Return what runs the service: bounded in every direction, and never inflating a body.

    Of ``most`` connections at once; without it, of as many as there are files for. Who has sent no whole request head after ``idle``
    seconds is cut off: aiohttp's timer begins with the connection, and anew with each answer.
    """
    return _Runner(
        app,
        most=connections.places() if most is None else most,
        access_log=None,  # the usual one quotes the request line, which holds the token
        auto_decompress=False,
        keepalive_timeout=idle,
        lingering_time=2,
        read_bufsize=65_536,  # bytes of a body that nobody reads yet
        max_line_size=4096,
        max_field_size=4096,
        max_headers=64,
        shutdown_timeout=20,
    )


@web.middleware
async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let through what HTTP/1.x in origin form is, and turn what nobody caught into a plain 500 that says nothing."""
    if request.version < (1, 0) or request.version >= (2, 0) or not request.raw_path.startswith("/"):
        return connections.no_request(400)
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


def _allowing(answer: web.Response, error: web.HTTPException) -> web.Response:
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    return answer


async def dress(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the protective headers on every answer, whatever its status."""
    for name, value in pages.headers().items():
        response.headers.setdefault(name, value)
    response.headers.pop("Server", None)


class _Runner(web.AppRunner):
    __slots__ = ("_most",)

    def __init__(self, app: web.Application, *, most: int, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._most = most

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        factory = partial(_unvetoed, made.request_factory)
        return connections.Server(made.request_handler, most=self._most, request_factory=factory, loop=made._loop, **made._kwargs)


def _unvetoed(make: Callable[..., web.BaseRequest], message: RawRequestMessage, *parts: Any) -> web.BaseRequest:
    """Return a request that no expectation of its client vetoes; aiohttp refuses those that it does not know, and repeats them."""
    if message.headers.get("Expect", "100-continue").lower() == "100-continue":
        return make(message, *parts)
    headers = message.headers.copy()
    headers.popall("Expect")
    return make(message._replace(headers=type(message.headers)(headers)), *parts)
