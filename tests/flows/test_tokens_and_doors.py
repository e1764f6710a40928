"""What each kind of token opens, what nothing opens, and whom a slow or a broken client holds up: nobody."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import sys
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import date
from random import Random
from urllib.parse import quote
from uuid import UUID

import asyncpg
import pytest
from aiohttp import ClientError, web

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import LENGTH, KeyRing, KeyState, Links
from mailprefs.sandbox import sendgrid
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web.audiences import patient

from .doors import Doors, opened
from .wire import connected, pressed, spoken

TIMED = ("undo", "change", "form", "manage", "session", "confirm", "receipt", "console")
ONE_CLICK = b"List-Unsubscribe=One-Click"


@pytest.fixture
async def doors(database: str, shared_catalogue: Catalogue, ring: KeyRing) -> AsyncIterator[Doors]:
    async with opened(database, shared_catalogue, ring) as lent:
        yield lent


@pytest.fixture
def token(links: Links, addresses: Addresses, shared_catalogue: Catalogue) -> str:
    return links.token(addresses.read("jane@example.org").key, shared_catalogue.topic("newsletter"))


async def written(conn: asyncpg.Connection) -> int:
    """Return how many rows there are that any request could have written."""
    return int(
        await conn.fetchval(
            "select (select count(*) from address) + (select count(*) from consent) + (select count(*) from push)"
            " + (select count(*) from event) + (select count(*) from heard)"
        )
    )


class Case:
    """One person with a stop made on the page, and one value of each kind, all of them saying what every place wants to read."""

    def __init__(self, doors: Doors, conn: asyncpg.Connection, ring: KeyRing, token: str, key: UUID) -> None:
        self.doors, self.conn, self.ring, self.token, self.key = doors, conn, ring, token, key
        self.nonce = key.hex

    def value(self, kind: str, place: str) -> str:
        if kind == "link":
            return self.token
        if kind == "api key":
            return self.doors.api_key
        return str(self.ring.timed(kind).dumps(self.said(place)))

    def said(self, place: str) -> object:
        """What a place wants to read: an undo names a press and its time, a pass whose it is and what for."""
        if place in ("undo", "change"):
            what = b"272" if place == "undo" else b"stop.16.email"
            packed = self.key.bytes + UUID(hex=self.nonce).bytes + struct.pack(">d?", time.time(), False) + what
            return urlsafe_b64encode(packed).decode()
        scopes = {"manage": 256, "session": 256, "confirm": 275}
        return [self.key.hex, scopes[place], self.nonce, int(time.time())] if place in scopes else self.nonce

    async def works(self, place: str, value: str) -> bool:
        """Put a value in a place, and return whether it did what the right kind would have done there."""
        url = f"{self.doors.base}/u/{self.token}"
        match place:
            case "path":
                async with self.doors.http.post(f"{self.doors.base}/u/{value}", data=ONE_CLICK) as answer:
                    return answer.status == 200 and await self.count("link:%") == 1
            case "page":
                async with self.doors.http.get(f"{self.doors.base}/u/{value}") as answer:
                    return answer.status == 200
            case "preferences" | "manage" | "confirm":
                async with self.doors.http.get(f"{self.doors.base}/{place[0]}/{value}") as answer:
                    return answer.status == 200
            case "session":
                link = self.ring.timed("manage").dumps(self.said("manage"))
                async with self.doors.http.post(f"{self.doors.base}/m/{link}", data={"session": value, "do": "all"}) as answer:
                    assert answer.status == 200
                return await self.count("manage:%") == 1
            case "change":
                await self.doors.http.post(
                    f"{self.doors.base}/p/{self.token}", data={"form": self.value("form", "form"), "do": "stop.16.email"}
                )
                async with self.doors.http.post(f"{self.doors.base}/p/{self.token}", data={"undo": value}) as answer:
                    assert answer.status == 200
                return await self.count("undo:%") == 1
            case "undo":
                await self.doors.http.post(url, data={"form": self.value("form", "form"), "stop": "this"})
                async with self.doors.http.post(url, data={"undo": value}) as answer:
                    assert answer.status == 200
                return await self.count("undo:%") == 1
            case "form":
                for _ in range(2):
                    async with self.doors.http.post(url, data={"form": value, "stop": "this"}) as answer:
                        assert answer.status == 200, "an odd form vetoes no opt-out"
                return await self.count(f"page:{self.nonce}%") == 1 and await self.count("page:%") == 1
            case _:
                headers = {"Authorization": f"Bearer {value}"}
                async with self.doors.http.post(f"{self.doors.base}/v1/decisions", json={"pairs": []}, headers=headers) as answer:
                    return answer.status == 200

    async def count(self, evidence: str) -> int:
        return int(await self.conn.fetchval("select count(*) from consent where key = $1 and evidence like $2", self.key, evidence))


OPENS = {
    "path": "link",
    "page": "link",
    "undo": "undo",
    "form": "form",
    "bearer": "api key",
    "preferences": "link",
    "change": "change",
    "manage": "manage",
    "session": "session",
    "confirm": "confirm",
}


async def test_each_kind_of_token_opens_its_own_place_and_no_other(
    doors: Doors, conn: asyncpg.Connection, ring: KeyRing, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    found = {}
    for place in OPENS:
        for kind in ("link", *TIMED, "api key"):
            key = addresses.read(f"{place}.{kind.replace(' ', '')}@example.org").key
            case = Case(doors, conn, ring, links.token(key, shared_catalogue.topic("newsletter")), key)
            found[place, kind] = await case.works(place, case.value(kind, place))
    assert found == {(place, kind): OPENS[place] == kind for place, kind in found}
    assert len(found) == 100


def test_the_matrix_knows_every_route_that_takes_a_token(shared_catalogue: Catalogue, ring: KeyRing) -> None:
    secrets = {v: sendgrid.key_pair()[1] for a in shared_catalogue.account for v in a.secrets.values()}
    app = service.create_app(Settings().lending(secrets), shared_catalogue, ring, database_url="")
    taking = {resource.canonical for resource in app.router.resources() if "{token}" in resource.canonical}
    assert taking == {"/u/{token}", "/p/{token}", "/m/{token}", "/c/{token}"}, "a new door for tokens wants its row in OPENS"


async def test_values_under_a_foreign_or_a_compromised_key_open_nothing_but_a_stop(
    database: str, conn: asyncpg.Connection, ring: KeyRing, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    renewed = ring.renewed(date(2026, 11, 23))
    burnt = replace(renewed, keys=tuple(replace(key, state=KeyState.COMPROMISED) if key.id == 1 else key for key in renewed.keys))
    foreign = KeyRing(ring.digest, KeyRing.new(date(2026, 11, 22)).keys, ring.export)
    topic = shared_catalogue.topic("newsletter")
    async with opened(database, shared_catalogue, burnt) as doors:
        for name, other in (("old", ring), ("foreign", foreign)):
            key = addresses.read(f"{name}@example.org").key
            burnt_token = Links(other, "go.example.com", "u@go.example.com").token(key, topic)
            good = Links(burnt, "go.example.com", "u@go.example.com").token(key, topic)
            ours, theirs = Case(doors, conn, burnt, good, key), Case(doors, conn, other, burnt_token, key)
            assert await ours.works("path", burnt_token) is (name == "old"), "a link under a burnt key stops; a foreign one is none"
            assert not await ours.works("undo", theirs.value("undo", "undo"))
            assert not await ours.works("form", theirs.value("form", "form"))
        async with doors.http.get(f"{doors.base}/u/{Links(ring, 'go.example.com', 'u@go.example.com').token(key, topic)}") as answer:
            form = re.search(r'name="form" value="([^"]+)"', await answer.text())
        assert form
        async with doors.http.post(str(answer.url), data={"form": form[1], "stop": "this"}) as answer:
            assert 'name="undo"' not in await answer.text()


def altered(token: str) -> set[str]:
    """Return every text that differs from a token by one character: another one, one fewer, one more, two that changed places."""
    others = [chr(c) for c in range(32, 127)] + ["\0", "\n", "é", "＿", "\u202e"]
    found = {token[:n] + other + token[n + 1 :] for n in range(LENGTH) for other in others}
    found |= {token[:n] + token[n + 1 :] for n in range(LENGTH)}
    found |= {token[:n] + other + token[n:] for n in range(LENGTH + 1) for other in "A_.= /"}
    found |= {token[:n] + token[n + 1] + token[n] + token[n + 2 :] for n in range(LENGTH - 1)}
    found |= {token.lower(), token.upper(), token.swapcase(), token * 2, f"{token}=", f"{token}/"}
    return found - {token}


def guessed(random: Random, ring: KeyRing) -> str:
    """Return a token as somebody would guess it who knows everything but the secret."""
    head = bytes([ring.minting.id]) + (272).to_bytes(2, "big") + random.randbytes(16)
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in (head, random.randbytes(13)))


async def test_no_altered_and_no_guessed_token_does_anything(doors: Doors, conn: asyncpg.Connection, ring: KeyRing, token: str) -> None:
    changed, guesses = sorted(altered(token)), [guessed(Random(n), ring) for n in range(10_000)]
    tried = [f"/u/{quote(each, safe='')}" for each in (*changed, *guesses)]
    codes = sum(await asyncio.gather(*(pressed(doors.port, tried[n::8]) for n in range(8))), Counter[int]())
    assert codes == {404: len(tried)}
    assert await written(conn) == 0
    sys.stdout.write(f"{len(changed):,} altered and {len(guesses):,} guessed tokens: 0 accepted, 0 rows written\n")
    assert await pressed(doors.port, [f"/u/{token}"]) == {200: 1}, "the control: the token itself"
    assert await written(conn) > 0


HINTS = ({"Sec-GPC": "0"}, {"DNT": "1"}, {"Sec-Purpose": "prefetch"}, {"Purpose": "prefetch"}, {"X-Moz": "prefetch"})


async def test_what_a_browser_hints_changes_nothing_here(
    doors: Doors, conn: asyncpg.Connection, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    pages = set()
    for n, hints in enumerate(({}, *HINTS)):
        key = addresses.read(f"p{n}@example.org").key
        url = f"{doors.base}/u/{links.token(key, shared_catalogue.topic('newsletter'))}"
        before = await written(conn)
        for method in ("HEAD", "GET", "OPTIONS"):
            async with doors.http.request(method, url, headers=hints) as answer:
                if method == "GET":
                    pages.add(re.sub(r'name="form" value="[^"]+"|/p/[^"]+', "", await answer.text()))
        assert await written(conn) == before
        async with doors.http.post(url, data=ONE_CLICK, headers=hints) as answer:
            assert answer.status == 200
        rows = await conn.fetch("select scope, door, effect from consent where key = $1", key)
        assert [tuple(row) for row in rows] == [(272, "link", "stop")]
    assert len(pages) == 1


# slow, broken and many


async def dripped(doors: Doors, head: bytes, drop: bytes) -> tuple[bytes, float]:
    """Send a request whose body never ends, a drop at a time; return the first line of the answer and how many seconds it took."""
    started = time.monotonic()
    async with connected(doors.port) as (reader, writer):
        writer.write(head)
        answering = asyncio.create_task(reader.readline())
        while not answering.done():
            writer.write(drop)
            await asyncio.wait([answering], timeout=0.2)
        return await answering, time.monotonic() - started


async def test_a_body_that_dribbles_for_ever_vetoes_no_opt_out(
    doors: Doors, conn: asyncpg.Connection, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    ways = {
        b"Content-Length: 8000": b"x",
        b"Content-Length: 80000000000": b"List-Unsubscribe=One-Click&",
        b"Transfer-Encoding: chunked": b"1\r\nx\r\n",
    }
    tokens = [links.token(addresses.read(f"p{n}@example.org").key, shared_catalogue.topic("newsletter")) for n in range(len(ways))]
    heads = [f"POST /u/{token} HTTP/1.1\r\nHost: x\r\n".encode() + way + b"\r\n\r\n" for token, way in zip(tokens, ways, strict=True)]
    for line, seconds in await asyncio.gather(*map(dripped, [doors] * len(ways), heads, ways.values())):
        assert line == b"HTTP/1.1 200 OK\r\n"
        assert seconds < 12, "it is waited for 5"
    assert await conn.fetchval("select count(*) from address where stops = '{272}'") == len(ways)


async def test_slow_deliveries_hold_up_none_that_is_whole(doors: Doors, conn: asyncpg.Connection) -> None:
    seal = b"X-Twilio-Email-Event-Webhook-Signature: x\r\n"  # without it nobody waits for a body
    head = b"POST /hooks/sendgrid-main HTTP/1.1\r\nHost: x\r\n" + seal + b"Content-Length: 100000\r\n\r\n"
    slow = [asyncio.create_task(dripped(doors, head, b"x")) for _ in range(20)]
    await asyncio.sleep(0.5)
    event = {"event": "spamreport", "email": "a@example.org", "sg_event_id": "1", "timestamp": 1_790_000_000}
    body = json.dumps([event]).encode()
    started = time.monotonic()
    signed = sendgrid.sign(doors.signing_key, str(int(time.time())), body)
    async with doors.http.post(f"{doors.base}/hooks/sendgrid-main", data=body, headers=signed) as answer:
        assert answer.status == 200
    assert time.monotonic() - started < 8
    assert not any(one.done() for one in slow), "the control: they were all still under way"
    for one in slow:
        one.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert await conn.fetchval("select count(*) from consent") == 1


async def test_a_flood_of_headers_holds_up_nobody(doors: Doors, token: str) -> None:
    many = b"".join(b"X-%d: y\r\n" % n for n in range(100))
    floods = (b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 3000, b"POST /u/" + b"x" * 3000, b"")
    async with AsyncExitStack() as stack:
        for n in range(300):
            _, writer = await stack.enter_async_context(connected(doors.port))
            writer.write(floods[n % len(floods)])
        refused = [asyncio.create_task(spoken(doors.port, b"GET / HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n")) for _ in range(100)]
        started = time.monotonic()
        async with doors.http.post(f"{doors.base}/u/{token}", data=ONE_CLICK) as answer:
            assert answer.status == 200
        assert time.monotonic() - started < 15
        assert {(await one).partition(b"\r\n")[0].split()[1] for one in refused} == {b"400"}


async def populated(conn: asyncpg.Connection) -> int:
    many = 200_000
    await conn.execute(
        "insert into address (bucket, key, channel, plaintext)"
        " select n % 1024, gen_random_uuid(), 'email', 'somebody.with.a.long.name.' || n || '@example.org'"
        " from generate_series(1, $1::int) n",
        many,
    )
    return many


async def test_a_slow_reader_gets_all_of_an_audience_and_holds_up_nobody(doors: Doors, conn: asyncpg.Connection) -> None:
    many = await populated(conn)

    async def read(pause: float) -> int:
        lines = 0
        async with doors.http.get(f"{doors.base}/v1/audiences/connective/newsletter", headers=doors.bearer) as answer:
            assert answer.status == 200
            async for chunk in answer.content.iter_chunked(65_536):
                lines += chunk.count(b"\n")
                await asyncio.sleep(pause)
        return lines

    slow = [asyncio.create_task(read(0.04)) for _ in range(3)]
    await asyncio.sleep(0.5)
    started = time.monotonic()
    async with doors.http.post(f"{doors.base}/v1/decisions", json={"pairs": []}, headers=doors.bearer) as answer:
        assert answer.status == 200
    assert time.monotonic() - started < 5
    assert not any(one.done() for one in slow)
    assert await asyncio.gather(*slow) == [many + 1] * 3


async def test_an_audience_that_breaks_off_cannot_be_taken_for_a_whole_one(doors: Doors, conn: asyncpg.Connection) -> None:
    await populated(conn)
    async with doors.http.get(f"{doors.base}/v1/audiences/connective/newsletter", headers=doors.bearer) as answer:
        await answer.content.readany()
        broken = await conn.fetch("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mailprefs exports'")
        assert broken
        with pytest.raises(ClientError):
            await answer.content.read()


async def test_a_reader_that_takes_nothing_is_let_go() -> None:
    async def write(_chunk: bytes) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await patient(write, 0.01)(b"x")


NO_REQUESTS = (
    b"POST /u/%s HTTP/1.1\r\nHost: x\r\nX: " + b"jane@example.org " * 400 + b"\r\n\r\n",
    b"POST /u/%s?" + b"q" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /u/%s HTTP/1.1\r\nHost: x\r\n" + b"X: jane@example.org\r\n" * 100 + b"\r\n",
    b"POST /u/%s HTTP/1.1\r\nHost: x\r\nContent-Length: jane@example.org\r\n\r\n",
    b"POST /u/%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\njane@example.org\r\n",
    b"POST /u/%s HTTP/1.1\r\nHost x jane@example.org\r\n\r\n",
    b"JANE@EXAMPLE.ORG /u/%s HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /u/%s HTTP/9.9\r\nHost: x\r\n\r\n",
    b"POST /u/%s jane@example.org\r\n\r\n",
    b"POST http://jane@example.org/u/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST http://[jane@example.org/u/%s HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT jane@example.org/u/%s:25 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
)


def told(request: bytes, token: str) -> bytes:
    return request.replace(b"%s", token.encode())


@pytest.mark.parametrize("request_", NO_REQUESTS)
async def test_what_is_no_request_is_refused_without_being_repeated(
    doors: Doors, conn: asyncpg.Connection, token: str, request_: bytes
) -> None:
    head, _, body = (await spoken(doors.port, told(request_, token))).partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert json.loads(body)["type"] == "/docs/errors/not-http-1"
    assert b"jane" not in (head + body).lower()
    assert token.encode() not in head + body
    assert b"Content-Security-Policy: default-src 'none'" in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert b"\r\nServer:" not in head
    assert await written(conn) == 0


async def test_the_control_repeats_it(database: str, shared_catalogue: Catalogue, ring: KeyRing, token: str) -> None:
    """The same service, run by aiohttp's own runner: most of what it cannot read comes back."""
    secrets = {v: sendgrid.key_pair()[1] for a in shared_catalogue.account for v in a.secrets.values()}
    app = service.create_app(Settings().lending(secrets), shared_catalogue, ring, database_url=database)
    runner = web.AppRunner(app, max_line_size=4096, max_field_size=4096, max_headers=64)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        answers = [await spoken(runner.addresses[0][1], told(request, token)) for request in NO_REQUESTS]
    finally:
        await runner.cleanup()
    assert sum(token.encode() in answer or b"jane" in answer.lower() for answer in answers) >= 6


@pytest.mark.parametrize("expected", ["100-continue", "100-Continue", "jane@example.org", "200-ok, 100-continue"])
async def test_nothing_in_expect_vetoes_an_opt_out(doors: Doors, conn: asyncpg.Connection, token: str, expected: str) -> None:
    request = f"POST /u/{token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: {expected}\r\nContent-Length: 2\r\n\r\nab"
    answer = await spoken(doors.port, request.encode())
    assert answer.split(b"\r\n\r\n")[-2].startswith(b"HTTP/1.1 200 OK")
    assert answer.startswith(b"HTTP/1.1 100 Continue") is (expected.lower() == "100-continue")
    assert b"jane" not in answer
    assert await conn.fetchval("select count(*) from consent") == 1
