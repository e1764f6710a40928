"""What is no request of ours, or asks for what nobody knows: refused or passed over, and never repeated."""

from __future__ import annotations

import asyncio
import re
from itertools import product

import asyncpg
import pytest

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import Links
from mailprefs.web import connections

EXPECTATIONS = {"odd octets": b"\xff", "none": b"", "unknown": b"canary-expectation", "two": b"100-continue, canary-expectation"}


async def spoken(base: str, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(base.rpartition(":")[2]))
    writer.write(said)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("expected", EXPECTATIONS.values(), ids=EXPECTATIONS)
async def test_no_expectation_vetoes_an_answer(
    base: str, expected: bytes, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    path = f"/u/{links.token(addresses.read('jane@example.org').key, shared_catalogue.topic('newsletter'))}".encode()
    for method, place, status in ((b"GET", b"/nowhere", 404), (b"PUT", path, 405), (b"POST", path, 200), (b"GET", b"/healthz", 200)):
        said = b"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: %s\r\nContent-Length: 2\r\n\r\nab" % (method, place, expected)
        answer = await spoken(base, said)
        assert answer.splitlines()[0].split()[1] == str(status).encode(), place
        assert b"canary" not in answer


JUNK = {
    "octets": b"\x00\xff",
    "words": b"and more\r\n\r\n",
    "two lines": b"\r\n\r\nab\r\n\r\n",
    "a lost head": b": x\r\n\r\nGET / HTTP/1.1\r\n\r\n",
}


async def test_what_follows_a_whole_press_does_not_undo_it(
    base: str, conn: asyncpg.Connection, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    """All in one segment. The first is answered; what follows is another request, or none."""
    for n, (junk, kept) in enumerate(product(JUNK.values(), (b"keep-alive", b"close"))):
        whose = addresses.read(f"jane{n}@example.org").key
        path = f"/u/{links.token(whose, shared_catalogue.topic('newsletter'))}".encode()
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: %s\r\nContent-Length: 26\r\n\r\n" % (path, kept)
        answers = await spoken(base, head + b"List-Unsubscribe=One-Click" + junk)
        assert re.findall(rb"HTTP/1\.\d (\d+)", answers) == ([b"200"] if kept == b"close" else [b"200", b"400"]), junk
        assert await conn.fetchval("select count(*) from consent where key = $1", whose) == 1


async def test_what_is_no_request_is_refused_wherever_it_stands(base: str) -> None:
    for said in JUNK.values():
        assert (await spoken(base, said)).split()[1] == b"400"


async def test_requests_that_come_at_once_are_all_answered(base: str) -> None:
    """More than are read by themselves, with bodies that look like the end of a head."""
    many = 2 * connections.PARTS - 2
    one = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n\r\n\r\nabcd"
    answer = await spoken(base, one * many + one.replace(b"x\r\n", b"x\r\nConnection: close\r\n"))
    assert answer.count(b"HTTP/1.1 404") == many + 1


async def test_who_waits_to_be_told_to_go_on_is_told(base: str) -> None:
    for place, status in ((b"/hooks/mailgun", b"404"), (b"/nowhere", b"404")):
        answer = await spoken(
            base, b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nab" % place
        )
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 " + status)
