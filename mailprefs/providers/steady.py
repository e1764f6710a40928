"""A line whose requests keep a distance, for providers that count them by the second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from aiolimiter import AsyncLimiter

from mailprefs.providers.base import Slow
from mailprefs.providers.calling import LIMIT, Answer, Line, is_loopback

PATIENCE = timedelta(seconds=5)  # of a wait that is spent here; a longer one is the courier's
WAITS = 5  # in a row


@dataclass(frozen=True, slots=True)
class Steady(Line):
    """The way to one account that begins a request only once ``pause`` has passed since the last; each of its users has one.

    A question that is asked to wait for a moment waits: half a listing is none, and a write that was not read back is not confirmed.
    A write never waits: the courier must know; a question that is no GET says that it is one. On loopback there is nobody to spare, and
    no pause.
    """

    pause: timedelta = timedelta(0)
    _turns: AsyncLimiter | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.pause and not is_loopback(self.base):
            object.__setattr__(self, "_turns", AsyncLimiter(1, self.pause.total_seconds()))

    async def call(self, method: str, path: str, *, json: object = None, most: int = LIMIT, asks: bool = False) -> Answer:
        """Return the answer to one request, as ``Line.call`` does."""
        for _ in range(WAITS if asks or method == "GET" else 0):
            try:
                return await self._in_turn(method, path, json, most)
            except Slow as slow:
                if slow.wait > PATIENCE:
                    raise
                await asyncio.sleep(slow.wait.total_seconds())
        return await self._in_turn(method, path, json, most)

    async def _in_turn(self, method: str, path: str, json: object, most: int) -> Answer:
        if self._turns is not None:
            await self._turns.acquire()
        return await Line.call(self, method, path, json=json, most=most)
