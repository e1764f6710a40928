"""Bytes to a port and bytes back, for what no HTTP library would send."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

PIPELINED = 32  # requests under way on one connection
LONGEST = 30.0  # seconds until a connection that says nothing more is given up


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):  # the other side was quicker
            await writer.wait_closed()


async def spoken(port: int, request: bytes) -> bytes:
    """Send bytes and return all that comes back until the other side closes."""
    async with connected(port) as (reader, writer):
        writer.write(request)
        return await asyncio.wait_for(reader.read(), LONGEST)


async def pressed(port: int, paths: Sequence[str]) -> Counter[int]:
    """Press every path as a mailbox provider does, one connection after the other's answer is in, and count the codes."""
    codes = Counter[int]()
    async with connected(port) as (reader, writer):
        for start in range(0, len(paths), PIPELINED):
            batch = paths[start : start + PIPELINED]
            writer.write(b"".join(_press(path) for path in batch))
            for _ in batch:
                codes[await _answered(reader)] += 1
    return codes


def _press(path: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: go.example.com\r\nContent-Length: 26\r\n\r\nList-Unsubscribe=One-Click".encode("ascii")


async def _answered(reader: asyncio.StreamReader) -> int:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONGEST)).split(b"\r\n")
    length = next((int(line[15:]) for line in head if line.lower().startswith(b"content-length:")), 0)
    await asyncio.wait_for(reader.readexactly(length), LONGEST)
    return int(head[0].split()[1])
