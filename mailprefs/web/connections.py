"""Connections: as many as there are files for. When one more comes, those that have been awaited longest give way."""

from __future__ import annotations

import asyncio
import re
from heapq import nsmallest
from typing import Any

from aiohttp import web

from mailprefs import telemetry
from mailprefs.errors import MailprefsError, Misconfigured
from mailprefs.web import pages, problems

MOST = 4096  # connections at once; an idle one takes some 20 kB
OTHERS = 128  # open files that are no connection: the pools, calls to providers, the log, the worker beside an own PostgreSQL
FEWEST = 64  # connections that a service is worth starting for
PARTS = 16  # of one segment that are read by themselves: nobody sends so many requests at once, and each costs a call
LONGEST = 8192  # bytes of a segment that are searched for the end of a head, so that a body costs little

_HEAD = b"\r\n\r\n"  # its end
_CHUNKED, _LENGTH = b"\r\ntransfer-encoding:", re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n")


def places() -> int:
    """Return how many connections may be open at once, and let the process open files for them. Raises Misconfigured for too few."""
    files = _files(MOST + OTHERS)
    if files < FEWEST + OTHERS:
        raise Misconfigured(f"this process may open {files} files, and needs {FEWEST + OTHERS} at least: see ulimit -n")
    return min(MOST, files - OTHERS)


def _files(wanted: int) -> int:
    """Raise the soft limit on open files towards what is wanted, as far as the hard one lets it, and return it."""
    try:
        import resource
    except ImportError:  # a system without such a limit
        return wanted
    soft, hard = (wanted if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft >= wanted or soft >= hard:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return min(wanted, hard)


class Server(web.Server):
    """Answers connections, so many at once at most."""

    def __init__(self, handler: Any, *, most: int, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._most = most
        self._open: set[web.RequestHandler] = set()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._open) >= self._most:
            self._make_room(handler)
        else:
            self._open.add(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._open.discard(handler)
        super().connection_lost(handler, exc)

    def _make_room(self, newcomer: web.RequestHandler) -> None:
        """Close the sixteenth that has been awaited longest, or the newcomer where every other is being answered.

        Many at once, so that a flood costs no search for each. A press whose body was still on its way is recorded all the same.
        """
        telemetry.alarm("connections_full")
        self._open.add(newcomer)
        others = (each for each in self._open if each is not newcomer and _awaited(each))
        for each in nsmallest(self._most // 16 + 1, others, key=_since) or [newcomer]:
            self._open.discard(each)
            if each.transport is not None:
                each.transport.abort()


def _awaited(connection: web.RequestHandler) -> bool:
    """True while the next step is the client's: a request, the rest of one, or to take the answer."""
    if not connection._request_in_progress:
        return True
    request = connection._current_request
    return connection.writing_paused if request is None else not request.content.is_eof()


def _since(connection: web.RequestHandler) -> float:
    """Return when a connection began or was last answered, in the order of the clock that aiohttp keeps for its own timer."""
    return connection._next_keepalive_close_time


class _Connection(web.RequestHandler):
    """Speaks HTTP with one client. What is no request it refuses in words of ours: aiohttp's repeat what was sent, token and all."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Read what came whole by itself: aiohttp forgets it, if what is no request follows it in the same segment."""
        for _ in range(PARTS):
            if not (end := _end(data)):
                break
            super().data_received(data[:end])
            data = data[end:]
        super().data_received(data)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; there cannot be another")
        if status >= 500:
            telemetry.alarm("unexpected", at=type(exc).__name__)
        plain = no_request(status) if status < 500 else problems.answer(MailprefsError())
        answer = _Refusal(status=plain.status, body=plain.body, content_type=plain.content_type, headers=pages.headers())
        answer.force_close()
        return answer


def _end(data: bytes) -> int:
    """Return where the first request of a segment ends, 0 where nothing stands behind it, or where its length cannot be told."""
    body = data.find(_HEAD, 0, LONGEST) + len(_HEAD)
    if not len(_HEAD) <= body < len(data):
        return 0
    head = data[:body].lower()
    length = _LENGTH.search(head)
    end = body + int(length[1]) if length else body
    return end if end < len(data) and _CHUNKED not in head else 0


def no_request(status: int) -> web.Response:
    """Return the answer to what is no request of ours."""
    return problems.problem(status, "not-http-1", "Only HTTP/1.0 and 1.1 in origin form are spoken here.")


class _Refusal(web.Response):
    """An answer to what never became a request, so that no signal dresses it."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)
