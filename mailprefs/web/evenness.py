"""Answers that take as long for everybody: of a page that may not say who is known, neither may its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

FLOOR = 0.1  # seconds: ten times what recording a press takes, for a person with one address or with ten; nobody feels it
LEAST = web.AppKey("least", float)  # another floor than that


@asynccontextmanager
async def evenly(request: web.Request, *, hidden: bool) -> AsyncIterator[None]:
    """Let what is done within last no less than the floor where how things stand is ``hidden``, however it ends."""
    loop = asyncio.get_running_loop()
    until = loop.time() + (request.app.get(LEAST, FLOOR) if hidden else 0)
    try:
        yield
    finally:
        await asyncio.sleep(until - loop.time())
