"""Whoever asks: requests that were written beforehand, over connections that stay open, each sent when the one before it is answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from benchmarks.figures import timed
from benchmarks.stage import Served

_LENGTH = b"content-length:"


def request(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of one POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: go.example.com", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Asker(asyncio.Protocol):
    """One connection. Takes the next request when it has the answer to its last."""

    def __init__(self, requests: Iterator[bytes], statuses: Counter[bytes]) -> None:
        self._requests, self._statuses = requests, statuses
        self._seen = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self._next()

    def _next(self) -> None:
        following = next(self._requests, None)
        if following is None:
            self._transport.close()
        else:
            self._transport.write(following)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, blank, body = self._seen.partition(b"\r\n\r\n")
        if blank and len(body) >= _length(head):
            self._statuses[head[9:12]] += 1
            self._seen = b""
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _length(head: bytes) -> int:
    low = head.lower()
    at = low.find(_LENGTH)
    return int(low[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def asked(served: Served, requests: Sequence[bytes], *, connections: int) -> float:
    """Return the seconds in which all were answered with 200. Raises SystemExit if one was not: a refusal is no speed."""
    left, statuses = iter(requests), Counter[bytes]()
    loop = asyncio.get_running_loop()
    with timed() as span:
        askers = [await loop.create_connection(lambda: _Asker(left, statuses), "127.0.0.1", served.port) for _ in range(connections)]
        await asyncio.gather(*(asker.done for _, asker in askers))
    if statuses != {b"200": len(requests)}:
        raise SystemExit(f"{len(requests)} were asked, and answered with {dict(statuses)}")
    return span.seconds
