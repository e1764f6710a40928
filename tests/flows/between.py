"""A wire to the database that can be cut at the worst moment: when it commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from urllib.parse import parse_qs, urlsplit, urlunsplit


class Cut(StrEnum):
    """When the wire is cut, and nobody gets through any more."""

    NEVER = "never"
    UNHEARD = "unheard"  # it committed, and its answer is lost
    HEARD = "heard"  # its answer was the last that came through


class Between:
    """Hands on what a client and the server say to each other."""

    def __init__(self, server: str) -> None:
        self.cut = Cut.NEVER
        self.url = ""
        self._there = urlsplit(server)
        self._open: set[asyncio.StreamWriter] = set()
        self._gone = False

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._gone:
            writer.close()
            return
        upwards, up = await self._reached()
        self._open |= {writer, up}
        committing = asyncio.Event()
        with suppress(OSError):
            await asyncio.gather(self._asked(reader, up, committing), self._answered(upwards, writer, committing))
        for each in (writer, up):
            self._open.discard(each)
            each.close()

    async def _reached(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        wanted = parse_qs(self._there.query)
        if home := wanted.get("host", [""])[0]:
            return await asyncio.open_unix_connection(f"{home}/.s.PGSQL.{wanted.get('port', ['5432'])[0]}")
        return await asyncio.open_connection(self._there.hostname, self._there.port or 5432)

    async def _asked(self, reader: asyncio.StreamReader, up: asyncio.StreamWriter, committing: asyncio.Event) -> None:
        while said := await reader.read(65_536):
            if b"COMMIT;" in said and self.cut is not Cut.NEVER:
                committing.set()
            up.write(said)
        up.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, committing: asyncio.Event) -> None:
        while said := await reader.read(65_536):
            if not committing.is_set():
                writer.write(said)
                continue
            self._gone = True
            if self.cut is Cut.HEARD:
                writer.write(said)
                await writer.drain()
            self.end()
            return
        writer.close()

    def end(self) -> None:
        for each in self._open:
            each.transport.close()

    def mended(self) -> None:
        self.cut, self._gone = Cut.NEVER, False


@asynccontextmanager
async def between(server: str) -> AsyncIterator[Between]:
    """Lend a wire to a server; its ``url`` is that of the same database."""
    made = Between(server)
    listening = await asyncio.start_server(made.met, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    there = urlsplit(server)
    who = there.netloc.rpartition("@")[0]
    made.url = urlunsplit(there._replace(netloc=f"{who}@127.0.0.1:{port}", query="sslmode=disable"))
    try:
        yield made
    finally:
        made._gone = True
        listening.close()
        made.end()
        await asyncio.sleep(0.01)  # they close on the next turns of the loop
