"""What can go wrong between us and a provider, on request: each queued fault is spent on one write, or on one page of a listing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from aiohttp import web

Apply = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Write:
    """One write as its provider carries it out: what it changes, and its documented answer to it."""

    apply: Apply
    answer: web.Response
    partly: Write | None = None  # the same with some of its items lost, where one request has several


@dataclass(frozen=True, slots=True)
class Answer:
    """Any answer at all, as somebody wrote it down."""

    status: int
    body: str
    type: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to go wrong. ``seconds`` is what it waits, or asks us to wait."""

    name: str
    seconds: float = 1.0
    listing: bool = False  # it waits for a listing, and lets writes pass
    answer: Answer | None = None  # of "answer"


@dataclass(slots=True)
class Faults:
    """The faults to come, in order, and the writes that still have to land."""

    queue: deque[Fault] = field(default_factory=deque)
    listings: deque[Fault] = field(default_factory=deque)
    landing: set[asyncio.Task[None]] = field(default_factory=set)

    def add(self, fault: Fault) -> None:
        (self.listings if fault.listing else self.queue).append(fault)

    def land(self, apply: Apply, seconds: float) -> None:
        """Carry out a write later, as a network or a queue on the far side would."""

        async def late() -> None:
            await asyncio.sleep(seconds)
            apply()

        task = asyncio.create_task(late())
        self.landing.add(task)
        task.add_done_callback(self.landing.discard)


FAULTS = web.AppKey("faults", Faults)
Course = Callable[[web.Request, Write, Fault, Faults], Awaitable[web.StreamResponse]]


async def carry(request: web.Request, write: Write) -> web.StreamResponse:
    """Carry out a write, unless a fault is queued for it: then that takes its course."""
    faults = request.config_dict[FAULTS]
    return await _run(request, write, faults, faults.queue)


async def show(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """Answer with a page of a listing, unless a fault is queued for listings."""
    faults = request.config_dict[FAULTS]
    return await _run(request, Write(lambda: None, answer), faults, faults.listings)


async def _run(request: web.Request, write: Write, faults: Faults, queue: deque[Fault]) -> web.StreamResponse:
    if not queue:
        write.apply()
        return write.answer
    fault = queue.popleft()
    return await COURSES[fault.name](request, write, fault, faults)


def _too_many(**headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"errors": [{"field": None, "message": "too many requests"}]}, status=429, headers=named)


def soon(seconds: float = 0) -> datetime:
    """Return the moment so many seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def _slow_down_seconds(_: web.Request, _w: Write, fault: Fault, _f: Faults) -> web.Response:
    """429 with the seconds to wait."""
    return _too_many(Retry_After=f"{fault.seconds:.0f}")


async def _slow_down_date(_: web.Request, _w: Write, fault: Fault, _f: Faults) -> web.Response:
    """429 with the date to wait for."""
    return _too_many(Retry_After=format_datetime(soon(fault.seconds), usegmt=True))


async def _slow_down_reset(_: web.Request, _w: Write, fault: Fault, _f: Faults) -> web.Response:
    """429 with the moment of the next period, in Unix time."""
    return _too_many(X_RateLimit_Limit="600", X_RateLimit_Remaining="0", X_RateLimit_Reset=f"{soon(fault.seconds).timestamp():.0f}")


async def _slow_down_bare(_: web.Request, _w: Write, _t: Fault, _f: Faults) -> web.Response:
    """429 that says nothing more."""
    return _too_many()


async def _who_are_you(_: web.Request, _w: Write, _t: Fault, _f: Faults) -> web.Response:
    """401: the credential is not accepted."""
    return web.json_response({"errors": [{"field": None, "message": "authorization required"}]}, status=401)


async def _not_you(_: web.Request, _w: Write, _t: Fault, _f: Faults) -> web.Response:
    """403: the credential may not do this."""
    return web.json_response({"errors": [{"field": None, "message": "access forbidden"}]}, status=403)


async def _broken(_: web.Request, _w: Write, _t: Fault, _f: Faults) -> web.Response:
    """500; nothing was applied."""
    return web.json_response({"errors": [{"field": None, "message": "internal error"}]}, status=500)


async def _html(_: web.Request, _w: Write, _t: Fault, _f: Faults) -> web.Response:
    """200 with a page of a proxy's; nothing was applied."""
    return web.Response(text="<!doctype html><title>Down for maintenance</title>", content_type="text/html")


async def _slow(_: web.Request, write: Write, fault: Fault, _f: Faults) -> web.Response:
    """Applied and answered, but late."""
    await asyncio.sleep(fault.seconds)
    write.apply()
    return write.answer


async def _applied_then_dropped(request: web.Request, write: Write, _t: Fault, _f: Faults) -> web.Response:
    """Applied; the connection breaks before the answer."""
    write.apply()
    return _dropped(request)


async def _applied_late(request: web.Request, write: Write, fault: Fault, faults: Faults) -> web.Response:
    """The connection breaks; the write lands later."""
    faults.land(write.apply, fault.seconds)
    return _dropped(request)


async def _half_closed(request: web.Request, write: Write, _t: Fault, _f: Faults) -> web.StreamResponse:
    """Applied; the connection breaks in the middle of the answer."""
    write.apply()
    whole = _body(write.answer) or b"{}"
    half = web.StreamResponse(status=write.answer.status, headers={"Content-Type": "application/json", "Content-Length": str(len(whole))})
    await half.prepare(request)
    await half.write(whole[: len(whole) // 2])
    _dropped(request)
    return half


async def _truncated(_: web.Request, write: Write, _t: Fault, _f: Faults) -> web.Response:
    """Applied; a whole answer that holds half of its JSON."""
    write.apply()
    whole = _body(write.answer) or b"{}"
    return web.Response(body=whole[: len(whole) // 2], status=write.answer.status, content_type="application/json")


async def _duplicated(_: web.Request, write: Write, fault: Fault, faults: Faults) -> web.Response:
    """Applied and answered, and applied once more later."""
    write.apply()
    faults.land(write.apply, fault.seconds)
    return write.answer


async def _per_item(_: web.Request, write: Write, _t: Fault, _f: Faults) -> web.Response:
    """Some of the items fail, and the answer shows it; of a single one, nothing does."""
    told = write.partly or write
    told.apply()
    return told.answer


async def _answer(_: web.Request, _w: Write, fault: Fault, _f: Faults) -> web.Response:
    """The answer that was asked for (``status``, ``body``, ``type``, ``headers``); nothing was applied."""
    given = fault.answer or Answer(200, "", "application/json", {})
    return web.Response(body=given.body.encode(), status=given.status, content_type=given.type, headers=given.headers)


async def _lying(_: web.Request, write: Write, _t: Fault, _f: Faults) -> web.Response:
    """The documented answer; nothing was applied."""
    return write.answer


COURSES: dict[str, Course] = {
    "429-seconds": _slow_down_seconds,
    "429-date": _slow_down_date,
    "429-reset": _slow_down_reset,
    "429-bare": _slow_down_bare,
    "401": _who_are_you,
    "403": _not_you,
    "500": _broken,
    "html": _html,
    "slow": _slow,
    "applied-then-dropped": _applied_then_dropped,
    "applied-late": _applied_late,
    "half-closed": _half_closed,
    "truncated": _truncated,
    "duplicated": _duplicated,
    "per-item": _per_item,
    "lying": _lying,
    "answer": _answer,
}


def described() -> dict[str, str]:
    """Return what each fault does, by its name."""
    return {name: (course.__doc__ or "").replace("``", "").rstrip(".") for name, course in COURSES.items()}


def read(entry: object) -> Fault:
    """Return the fault that a queue entry names: a name, or ``{"fault": name, "seconds": 2, "listing": true}``. Raises ValueError."""
    given = entry if isinstance(entry, dict) else {"fault": entry}
    name, seconds, listing = given.get("fault"), given.get("seconds", 1), given.get("listing", False)
    if name not in COURSES:
        raise ValueError(f"no such fault; there are: {', '.join(COURSES)}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 3600:
        raise ValueError("seconds is a number from 0 to 3600")
    if not isinstance(listing, bool):
        raise ValueError("listing is true or false")
    return Fault(str(name), float(seconds), listing, _answer_in(given) if name == "answer" else None)


def _answer_in(given: Mapping[str, object]) -> Answer:
    status, body, type_ = given.get("status", 200), given.get("body", ""), given.get("type", "application/json")
    headers = given.get("headers", {})
    if type(status) is not int or not 200 <= status <= 599 or not isinstance(body, str) or not isinstance(type_, str):
        raise ValueError("an answer has a status from 200 to 599, a body and a type")
    if not isinstance(headers, dict) or not all(isinstance(each, str) for pair in headers.items() for each in pair):
        raise ValueError("headers are texts by name")
    return Answer(status, body, type_, headers)


def _body(answer: web.Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b""


def _dropped(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # goes nowhere


async def settle(app: web.Application) -> AsyncIterator[None]:
    """Let what has not landed at the end be lost (a ``cleanup_ctx``)."""
    yield
    for task in list(app[FAULTS].landing):
        task.cancel()
