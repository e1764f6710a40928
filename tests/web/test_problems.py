"""Errors become answers in one place: each kind has its status, and none repeats what was sent."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from structlog.testing import capture_logs

from mailprefs import errors
from mailprefs.errors import MailprefsError
from mailprefs.web import problems, wire
from mailprefs.web.problems import Powerless, TooLarge, TooSlow

STATUS: dict[type[MailprefsError], int] = {
    errors.Forged: 401,
    Powerless: 403,
    errors.UnknownScope: 404,
    errors.UnknownExport: 404,
    errors.NotMade: 409,
    errors.Outdated: 409,
    errors.Expired: 410,
    errors.NotOnACluster: 501,
    errors.NotInstalled: 501,
    TooSlow: 408,
    TooLarge: 413,
    errors.Unreadable: 400,
    errors.NotEntitled: 422,
    errors.NotMintable: 422,
    errors.Unavailable: 503,
    errors.Busy: 503,
    errors.Unsure: 503,
    errors.Misconfigured: 500,  # what an operator mends is nobody's business who calls
    errors.Unguarded: 500,
    MailprefsError: 500,
}


def body(response: web.Response) -> dict[str, object]:
    assert isinstance(response.body, bytes)
    found: dict[str, object] = json.loads(response.body)
    return found


def test_every_error_of_the_tree_has_its_answer() -> None:
    tree = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MailprefsError)}
    assert tree | {Powerless, TooLarge, TooSlow} == set(STATUS)
    for kind, status in STATUS.items():
        answer = problems.answer(kind("in words of ours"))
        told = body(answer)
        assert (answer.status, told["status"]) == (status, status), kind
        assert answer.content_type == "application/problem+json"
        assert str(told["type"]).startswith("/docs/errors/")
        assert set(told) == {"type", "title", "status", "detail"}
        assert (told["detail"] == "in words of ours") is (status != 500), "a 500 says nothing of what went wrong inside"


def test_what_an_operator_mends_is_in_the_log_and_nowhere_else() -> None:
    with capture_logs() as lines:
        assert "canary" not in str(body(problems.answer(errors.Misconfigured("canary"))))
        problems.answer(errors.NotInstalled("of the caller's asking"))
    assert [(line["event"], line["why"]) for line in lines] == [("misconfigured", "canary")]


def test_who_should_come_back_is_told_when_and_who_is_not_let_in_with_what() -> None:
    assert problems.answer(errors.Busy()).headers["Retry-After"] == "5"
    assert problems.answer(errors.Forged()).headers["WWW-Authenticate"] == "Bearer"
    assert not {"Retry-After", "WWW-Authenticate"} & set(problems.answer(errors.Unreadable()).headers)


def test_a_problem_can_say_more() -> None:
    assert body(problems.problem(422, "not-entitled", "detail", row=7))["row"] == 7


@pytest.fixture
async def base() -> AsyncIterator[str]:
    """A service that reads bodies of up to 1,000 bytes within half a second, and says how many it read."""

    async def count(request: web.Request) -> web.Response:
        try:
            return web.Response(text=str(len(await problems.read_body(request, limit=1_000, seconds=0.5))))
        except MailprefsError as error:
            return problems.answer(error)

    app = web.Application()
    app.router.add_post("/", count)
    runner = wire.runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def read(http: ClientSession, base: str, data: bytes | AsyncIterator[bytes], **headers: str) -> tuple[int, str]:
    async with http.post(base, data=data, headers=headers) as response:
        return response.status, await response.text()


async def test_a_body_is_read_to_its_limit_and_not_a_byte_further(base: str) -> None:
    async with ClientSession() as http:
        assert await read(http, base, b"") == (200, "0")
        assert await read(http, base, b"x" * 1_000) == (200, "1000")
        status, text = await read(http, base, b"x" * 1_001)
        assert status == 413
        assert "xx" not in text
        status, _ = await read(http, base, _dripping(b"x" * 400, 0, 4))
        assert status == 413, "nor does a length that is not told hide it"


async def test_a_body_is_never_inflated(base: str) -> None:
    bomb = gzip.compress(b"x" * 10_000_000, mtime=0)[:900]
    async with ClientSession() as http:
        assert await read(http, base, bomb, **{"Content-Encoding": "gzip"}) == (200, "900")


async def test_who_dribbles_is_cut_off(base: str) -> None:
    async with ClientSession() as http:
        status, _ = await read(http, base, _dripping(b"x", 0.2, 20))
        assert status == 408


async def _dripping(drop: bytes, pause: float, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield drop
        await asyncio.sleep(pause)


async def test_a_body_that_breaks_off_or_is_no_http_is_unreadable(base: str) -> None:
    port = int(base.rpartition(":")[2].rstrip("/"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nno length\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.transport.abort()
    assert b" 400 " in answer.splitlines()[0]
    assert b"no length" not in answer
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nabc")
    await writer.drain()
    writer.transport.abort()
    async with ClientSession() as http:
        assert await read(http, base, b"x") == (200, "1"), "the next is read all the same"
