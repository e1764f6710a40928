"""The outside recorder of acknowledgements: presses links over HTTP, and writes down what it was told. A process of its own.

    python recorder.py BASE PRESSES JOURNAL AT_ONCE

PRESSES is a file of lines ``id path``, each pressed once. JOURNAL gains ``invoke id at`` before a request is sent, on disk before it is;
and after it ``ok id at``, ``fail id at code`` (refused: it was told that nothing was acknowledged) or ``unknown id at``. Times are the
machine's monotonic seconds, which all processes share. Ends when its standard input does, or when nothing is left to press.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, TCPConnector

PATIENCE = 30.0  # seconds for an answer; an honest service needs far less, and the journal shows it
PAUSE = 0.25  # seconds after a press that was not acknowledged: a service that is away is not stormed, and there are presses left for it


@dataclass
class Journal:
    """Lines that are on disk when :meth:`write` returns. Those who wait together share one fsync."""

    descriptor: int
    _waiting: list[tuple[str, asyncio.Future[None]]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, line: str) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((f"{line}\n", done))
        self._news.set()
        await done

    async def keep(self) -> None:
        """Write what comes, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            taken, self._waiting = self._waiting, []
            await asyncio.to_thread(self._append, "".join(line for line, _ in taken))
            for _, done in taken:
                done.set_result(None)

    def _append(self, text: str) -> None:
        os.write(self.descriptor, text.encode())
        os.fsync(self.descriptor)


async def press(http: ClientSession, url: str) -> str:
    """Press one link as a mailbox provider does, and return what came back: ``ok``, ``fail`` with its code, or ``unknown``."""
    try:
        async with http.post(url, data=b"List-Unsubscribe=One-Click") as answer:
            await answer.read()
            return "ok" if answer.status == 200 else f"fail {answer.status}"
    except ClientConnectorError:
        return "fail unsent"
    except (ClientError, OSError, TimeoutError):
        return "unknown"


async def one_after_another(http: ClientSession, journal: Journal, base: str, presses: Iterator[str], ended: asyncio.Event) -> None:
    for line in presses:
        id, path = line.split()
        await journal.write(f"invoke {id} {time.monotonic()}")
        told, _, code = (await press(http, base + path)).partition(" ")
        await journal.write(f"{told} {id} {time.monotonic()} {code}".rstrip())
        if ended.is_set():
            return
        if told != "ok":
            await asyncio.sleep(PAUSE)


async def record(base: str, presses: Iterator[str], journal: Journal, at_once: int) -> None:
    """Press until the standard input ends, then wait for the answers that are still out."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    keeping = asyncio.create_task(journal.keep())
    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(PATIENCE)) as http:
        await asyncio.gather(*(one_after_another(http, journal, base, presses, ended) for _ in range(at_once)))
    keeping.cancel()


if __name__ == "__main__":
    _, where, what, kept, many = sys.argv
    opened = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(record(where, iter(Path(what).read_text().splitlines()), Journal(opened), int(many)))
