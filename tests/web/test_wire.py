"""What is no request of ours, or asks for what nobody knows: refused or passed over, and never repeated."""

from __future__ import annotations

import asyncio

import pytest

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import Links

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


async def test_who_waits_to_be_told_to_go_on_is_told(base: str) -> None:
    for place, status in ((b"/hooks/mailgun", b"404"), (b"/nowhere", b"404")):
        answer = await spoken(
            base, b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nab" % place
        )
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 " + status)
