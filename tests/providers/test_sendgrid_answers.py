"""What SendGrid may answer, and the sandbox never does: only its documented answer is believed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from aiohttp.test_utils import TestServer

from mailprefs.providers.base import (
    Barred,
    Credential,
    Listed,
    Outcome,
    Rejected,
    Settlement,
    Slow,
    Telling,
    Unclear,
    Unsafe,
)
from mailprefs.providers.sendgrid import SendGrid

from .case_sendgrid import CASE

SENDGRID = SendGrid()


DONE = Settlement(Outcome.DONE)


@dataclass(frozen=True)
class Reply:
    """One answer, as often as it is asked for."""

    body: bytes = b"{}"
    status: int = 200
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        return web.Response(body=self.body, status=self.status, content_type=self.type, headers=self.headers)


def reply(value: object, status: int = 200, type: str = "application/json", **headers: str) -> Reply:
    return Reply(json.dumps(value).encode(), status, type, headers)


def echo(emails: object, status: int = 201, type: str = "application/json", **headers: str) -> Reply:
    return reply({"recipient_emails": emails}, status, type, **headers)


HERE, GONE = reply({"id": 12345, "name": "Group 12345"}), reply({"errors": []}, 404)


@dataclass
class Scripted:
    """An account whose provider gives one answer to writes, one to listings, and others in turn when asked for the group."""

    http: ClientSession
    credential: Credential
    writes: int = 0

    async def tell(self, *addresses: str, stop: bool = True) -> list[Settlement]:
        return await SENDGRID.tell(self.http, self.credential, [Telling(address, "12345", stop) for address in addresses])

    async def pulled(self) -> list[Listed]:
        return [listed async for listed in SENDGRID.pull(self.http, self.credential, "12345")]


@asynccontextmanager
async def answering(write: Reply, group: Sequence[Reply] = (HERE, HERE), held: Reply = Reply(b"[]")) -> AsyncIterator[Scripted]:
    asked = iter(group)

    async def show(_: web.Request) -> web.Response:
        return next(asked, group[-1]).response()

    async def change(_: web.Request) -> web.Response:
        scripted.writes += 1
        return write.response()

    async def shown(_: web.Request) -> web.Response:
        return held.response()

    async def elsewhere(_: web.Request) -> web.Response:
        return echo(["a@example.com"]).response()

    app = web.Application()
    app.add_routes(
        [
            web.get("/v3/asm/groups/12345", show),
            web.post("/v3/asm/groups/12345/suppressions", change),
            web.get("/v3/asm/groups/12345/suppressions", shown),
            web.delete("/v3/asm/groups/12345/suppressions/{address}", change),
            web.route("*", "/elsewhere", elsewhere),
        ]
    )
    async with TestServer(app) as server, ClientSession(timeout=ClientTimeout(total=5)) as http:
        scripted = Scripted(http, replace(CASE.credential, api_base=str(server.make_url("")).rstrip("/")))
        yield scripted


UNDOCUMENTED = {
    "200": echo(["a@example.com"], 200),
    "202": echo(["a@example.com"], 202),
    "302": echo(["a@example.com"], 302, Location="/elsewhere"),
    "307": echo(["a@example.com"], 307, Location="/elsewhere"),
    "405": echo(["a@example.com"], 405),
    "500": echo(["a@example.com"], 500),
    "503": echo(["a@example.com"], 503),
    "html": echo(["a@example.com"], type="text/html"),
    "text": echo(["a@example.com"], type="text/plain"),
    "nobody": echo([]),
    "somebody else": echo(["b@example.com"]),
    "a string": echo("a@example.com"),
    "arrays": echo([["a@example.com"]]),
    "an object": echo({"a@example.com": True}),
    "an array": reply(["a@example.com"], 201),
    "no echo": reply({}, 201),
    "empty": Reply(b"", 201),
    "truncated": Reply(b'{"recipient_emails": ["a@example.com"]', 201),
    "more behind it": Reply(b'{"recipient_emails": ["a@example.com"]}x', 201),
    "two echoes": Reply(b'{"recipient_emails": [], "recipient_emails": ["a@example.com"]}', 201),
    "too long": echo(["a@example.com", "x" * 70_000]),
}


async def test_the_documented_answer_is_done_in_whatever_case_it_echoes() -> None:
    async with answering(echo(["A@Example.com"])) as scripted:
        assert await scripted.tell("a@example.com") == [DONE]


@pytest.mark.parametrize("answer", UNDOCUMENTED.values(), ids=UNDOCUMENTED)
async def test_no_other_answer_is_done(answer: Reply) -> None:
    async with answering(answer) as scripted:
        [settled] = await scripted.tell("a@example.com")
        assert settled.outcome is Outcome.UNKNOWN
        assert settled.detail
        assert "@" not in settled.detail
        assert scripted.writes == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_batch_refused_as_a_whole_is_rejected_and_a_single_go_is_refused_alone(status: int) -> None:
    async with answering(reply({"errors": []}, status)) as scripted:
        with pytest.raises(Rejected):
            await scripted.tell("a@example.com", "b@example.com")
        [settled] = await scripted.tell("a@example.com", stop=False)
        assert settled.outcome is (Outcome.DONE if status == 404 else Outcome.REFUSED)


@pytest.mark.parametrize("status", [401, 403])
async def test_who_is_not_let_in_is_barred(status: int) -> None:
    async with answering(reply({}, status)) as scripted:
        for stop in (True, False):
            with pytest.raises(Barred):
                await scripted.tell("a@example.com", stop=stop)


async def test_a_group_that_goes_while_it_is_told_is_never_called_done() -> None:
    async with answering(echo(["a@example.com"]), [HERE, GONE]) as scripted:
        with pytest.raises(Unsafe):
            await scripted.tell("a@example.com")
        assert scripted.writes == 1


DOUBTFUL = {
    "another": reply({"id": 1}),
    "array": reply([]),
    "empty": reply({}),
    "page": Reply(b"<html>", type="text/html"),
    "500": reply({}, 500),
}


@pytest.mark.parametrize("group", DOUBTFUL.values(), ids=DOUBTFUL)
async def test_without_a_group_that_surely_exists_nothing_is_sent(group: Reply) -> None:
    async with answering(echo(["a@example.com"]), [group]) as scripted:
        for stop in (True, False):
            [settled] = await scripted.tell("a@example.com", stop=stop)
            assert settled.outcome is Outcome.UNKNOWN
        assert not scripted.writes


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "999999999999"}, 3600),
        ({"Retry-After": "-5"}, 60),
        ({"Retry-After": "soon"}, 60),
        ({"Retry-After": "nan"}, 60),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 30),
        ({"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 1),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30", "Date": "Sun, 22 Nov 2026 12:00:00"}, 60),
        ({"Retry-After": "Sun, 99 Nov 99999 12:00:30 GMT", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 60),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 +9999999999999999", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 60),
        ({"X-RateLimit-Reset": "1795348830", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 30),
        ({"X-RateLimit-Reset": "45"}, 45),
        ({"X-RateLimit-Reset": "1795348830", "Date": "yesterday"}, 60),
        ({"Retry-After": "5", "X-RateLimit-Reset": "45"}, 5),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "45"}, 45),
        ({}, 60),
    ],
)
async def test_every_way_to_ask_for_a_wait_is_understood(headers: dict[str, str], seconds: float) -> None:
    async with answering(Reply(status=429, headers=headers)) as scripted:
        for stop in (True, False):
            with pytest.raises(Slow) as slow:
                await scripted.tell("a@example.com", stop=stop)
            assert slow.value.wait == timedelta(seconds=seconds)


async def test_nobody_at_home_is_unknown() -> None:
    async with ClientSession() as http:
        nobody = replace(CASE.credential, api_base="http://127.0.0.1:1")
        [settled] = await SENDGRID.tell(http, nobody, [Telling("a@example.com", "12345", True)])
        assert settled == Settlement(Outcome.UNKNOWN, "no_answer")
        with pytest.raises(Unclear):
            [_ async for _ in SENDGRID.pull(http, nobody, "12345")]


BROKEN = {
    "cut": Reply(b'["a@example.com", "b@exam'),
    "open": Reply(b'["a@example.com"'),
    "empty": Reply(b""),
    "page": Reply(b"<html>", type="text/html"),
    "object": reply({"result": []}),
    "objects": reply([{"email": "a@example.com"}]),
    "500": reply(["a@example.com"], 500),
    "206": reply(["a@example.com"], 206),
    "302": reply(["a@example.com"], 302, Location="/elsewhere"),
    "html": reply(["a@example.com"], type="text/html"),
}


@pytest.mark.parametrize("held", BROKEN.values(), ids=BROKEN)
async def test_a_listing_that_is_not_whole_is_no_listing(held: Reply) -> None:
    async with answering(echo([]), held=held) as scripted:
        with pytest.raises(Unclear):
            await scripted.pulled()


async def test_a_long_listing_comes_whole() -> None:
    everyone = [f"person{n}@example.com" for n in range(50_000)]
    async with answering(echo([]), held=reply(everyone)) as scripted:
        assert await scripted.pulled() == [Listed(each, "12345") for each in everyone]
