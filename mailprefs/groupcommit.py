"""Presses that wait are recorded together, in one commit: natural batching, no timer.

A free writer takes everything that waits; each press is answered after the commit that holds it. Alone, a press waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from mailprefs import db, ledger
from mailprefs.errors import Busy, MailprefsError, Unavailable
from mailprefs.words import Change

WRITERS = 2  # more only wait for each other's locks
BATCH = 500  # Changes in one commit
WAITING = 20_000  # presses that may wait before the next is told to come back


@dataclass(slots=True, eq=False)
class _Press:
    change: Change
    now: datetime
    answer: asyncio.Future[bool]


@dataclass
class GroupCommit:
    """Records single Changes as if each had a transaction of its own, at a fraction of the cost."""

    pool: db.Pool
    most: int = WAITING
    _open: bool = False
    _queue: list[_Press] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: set[UUID] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def record(self, change: Change, *, now: datetime) -> bool:
        """Return, after the commit, whether the Change added a row. Raises Unavailable: then nothing was acknowledged."""
        ledger.entitled(change)
        if not self._open:  # nobody would ever answer
            raise Unavailable("the service is stopping. Try again.")
        if len(self._queue) >= self.most:
            raise Busy("too many presses are waiting. Try again.")
        press = _Press(change, now, asyncio.get_running_loop().create_future())
        self._queue.append(press)
        self._idle.clear()
        self._news.set()
        return await press.answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the writers; at the end nobody more is taken in, and those who still wait are recorded first."""
        self._open = True
        self._idle.set()
        writers = [asyncio.create_task(self._write()) for _ in range(WRITERS)]
        try:
            yield
        finally:
            self._open = False
            await self._idle.wait()
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            batch = self._take()
            if not batch:  # only presses for addresses that another writer has in hand
                self._news.clear()
                continue
            await self._commit(batch)
            self._busy.difference_update(press.change.address.key for press in batch)
            if self._queue:
                self._news.set()
            elif not self._busy:
                self._idle.set()

    def _take(self) -> list[_Press]:
        """Take what waits: at most one Change of an address, and none that another writer has in hand, so that none wait for a lock."""
        taken: list[_Press] = []
        left: list[_Press] = []
        for press in self._queue:
            key = press.change.address.key
            if len(taken) < BATCH and key not in self._busy:
                self._busy.add(key)
                taken.append(press)
            else:
                left.append(press)
        self._queue = left
        return sorted(taken, key=lambda press: press.change.address.key)

    async def _commit(self, batch: list[_Press]) -> None:
        try:
            added = await self._recorded(batch)
        except Exception as error:
            await self._apart(batch, error)
        else:
            for press, new in zip(batch, added, strict=True):
                _answer(press, new)

    async def _recorded(self, batch: list[_Press]) -> list[bool]:
        async with db.acquired(self.pool) as connection, db.sure(connection):
            # one statement outside a transaction block is its own commit
            return await ledger.record(connection, [press.change for press in batch], now=max(press.now for press in batch))

    async def _apart(self, batch: list[_Press], error: Exception) -> None:
        """Answer a batch that failed: trouble is everybody's; anything else is one press's own, so they are tried one by one."""
        if db.is_trouble(error) or len(batch) == 1:
            for press in batch:
                _refuse(press, error if isinstance(error, MailprefsError) else Unavailable("the opt-out was not recorded. Try again."))
            return
        for press in batch:
            await self._commit([press])


def _answer(press: _Press, new: bool) -> None:
    if not press.answer.done():  # the one who asked may have gone; the row stays
        press.answer.set_result(new)


def _refuse(press: _Press, error: MailprefsError) -> None:
    if not press.answer.done():
        press.answer.set_exception(error)
