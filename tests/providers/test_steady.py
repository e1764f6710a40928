"""A line that keeps a distance: between requests, and from a provider that asks for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from mailprefs.providers.base import Slow
from mailprefs.providers.steady import WAITS, Steady

PAUSE = timedelta(seconds=0.2)


@dataclass
class Desk:
    """A provider that notes when it was asked, and asks for a moment as often as it is told to."""

    base: str
    asked: list[float] = field(default_factory=list)
    busy: int = 0
    wait: str = "1"

    async def answer(self, _: web.Request) -> web.Response:
        self.asked.append(asyncio.get_running_loop().time())
        if not self.busy:
            return web.json_response({})
        self.busy -= 1
        return web.json_response({}, status=429, headers={"Retry-After": self.wait})


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk("")
    app = web.Application()
    app.router.add_route("*", "/", desk.answer)
    async with TestServer(app) as server:
        desk.base = str(server.make_url("")).rstrip("/")
        yield desk


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession() as http:
        yield http


async def test_requests_keep_their_distance(desk: Desk, http: ClientSession) -> None:
    away = desk.base.replace("127.0.0.1", "0.0.0.0")  # this machine as well, and no loopback address
    for base, shortest in ((away, 0.19), (desk.base, 0)):
        desk.asked.clear()
        line = Steady(http, base, {}, PAUSE)
        await asyncio.gather(*(line.call("GET" if n % 2 else "POST", "/") for n in range(4)))
        gaps = [later - earlier for earlier, later in zip(desk.asked, desk.asked[1:], strict=False)]
        assert min(gaps) >= shortest
    assert max(gaps) < 0.19  # on loopback there is nobody to spare


async def test_a_question_waits_a_moment_and_a_write_never_does(desk: Desk, http: ClientSession) -> None:
    line, desk.busy = Steady(http, desk.base, {}), 1
    assert (await line.call("GET", "/")).status == 200
    assert desk.asked[1] - desk.asked[0] >= 1
    for method in ("PUT", "POST", "PATCH", "DELETE"):
        desk.busy = 1
        with pytest.raises(Slow):
            await line.call(method, "/")
        assert desk.busy == 0


async def test_a_long_wait_is_left_to_the_courier(desk: Desk, http: ClientSession) -> None:
    line, desk.busy, desk.wait = Steady(http, desk.base, {}), 1, "6"
    with pytest.raises(Slow) as slow:
        await line.call("GET", "/")
    assert slow.value.wait == timedelta(seconds=6)
    assert len(desk.asked) == 1


async def test_it_does_not_wait_for_ever(desk: Desk, http: ClientSession) -> None:
    line, desk.busy, desk.wait = Steady(http, desk.base, {}), 99, "1"
    with pytest.raises(Slow):
        await line.call("GET", "/")
    assert len(desk.asked) == WAITS + 1
