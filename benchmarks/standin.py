"""The same service with something else in place of its group commit: ``python -m benchmarks.standin unrecorded`` or ``alone``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import cast

import uvloop
from aiohttp import web

from mailprefs import db, ledger
from mailprefs.cli.opening import Opening
from mailprefs.cli.service import listening
from mailprefs.groupcommit import GroupCommit
from mailprefs.web import app as service
from mailprefs.web.keys import PRESSES
from mailprefs.words import Change

CONNECTIONS = 8  # to the database


class Unrecorded:
    """Says that every press was recorded: what is left is HTTP and the signature."""

    async def record(self, change: Change, *, now: datetime) -> bool:
        ledger.entitled(change)
        return change.happened_at <= now


class Alone:
    """Records each press in a transaction of its own."""

    def __init__(self, pool: db.Pool) -> None:
        self._pool, self._places = pool, asyncio.Semaphore(CONNECTIONS)

    async def record(self, change: Change, *, now: datetime) -> bool:
        async with self._places, db.acquired(self._pool) as connection, db.sure(connection):
            return (await ledger.record(connection, [change], now=now))[0]


async def _served(which: str) -> None:
    opening = Opening()
    async with opening.database() as url:
        app = service.create_app(opening.settings, opening.catalogue, opening.ring, database_url=url, only=("public",))

        async def replaced(app: web.Application) -> AsyncIterator[None]:
            pool = await db.pool(url, size=CONNECTIONS, command_timeout=10, purpose="bench")
            app[PRESSES] = cast(GroupCommit, Unrecorded() if which == "unrecorded" else Alone(pool))
            yield
            pool.terminate()

        app.cleanup_ctx.append(replaced)
        async with listening(app, "127.0.0.1", 0) as port:
            sys.stderr.write(f"stands in on http://127.0.0.1:{port}\n")
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_served(sys.argv[1]))
