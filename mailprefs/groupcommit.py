"""Presses that wait are recorded together, in one commit: natural batching, no timer.

A free writer takes everything that waits; each press is answered after the commit that holds it. Alone, a press waits for nobody.
Stops that are alike share a row while they wait, so that one link pressed endlessly has one row waiting, and holds up nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID, uuid4

from mailprefs import db, ledger
from mailprefs.errors import Busy, MailprefsError, Unavailable
from mailprefs.words import Change, Effect

WRITERS = 2  # more only wait for each other's locks
BATCH = 500  # Changes in one commit
WAITING = 20_000  # rows that may wait before the next press is told to come back
OF_ONE = 64  # rows of one address that may wait before what is no stop is told to come back
ALONE = 0.25  # seconds that a press of a batch that took too long may take when it is tried alone
SLOW = 8  # such presses of a batch that take too long again, and it is everybody's trouble


class _TooSlow(Exception):
    """The database lives, and did not come to an end in time: a lock is held, or an address has a long ledger."""


@dataclass(slots=True, eq=False)
class _Row:
    """What will be one row, and everybody who waits for it."""

    change: Change
    now: datetime
    likeness: tuple[object, ...]
    answers: list[asyncio.Future[bool]] = field(default_factory=list)
    shared: bool = False

    def join(self, change: Change, now: datetime) -> None:
        """Let one more press wait for this row, which will count from a time no earlier than any of theirs.

        If the presses are not the same, it gets a name that nobody holds: else an undo of one would take back what others pressed.
        """
        self.now = max(self.now, now)
        if not self.shared and change.evidence != self.change.evidence:
            self.shared, self.change = True, replace(self.change, id=uuid4().hex)

    def settle(self, new: bool) -> None:
        """Answer the first with whether the row is new, and the others, or all if it is nobody's own, that they added none."""
        for n, answer in enumerate(self.answers):
            if not answer.done():  # the one who asked may have gone; the row stays
                answer.set_result(new and n == 0 and not self.shared)

    def refuse(self, error: Exception) -> None:
        """Tell everybody that nothing was recorded."""
        for answer in self.answers:
            if not answer.done():
                own = isinstance(error, MailprefsError)
                answer.set_exception(error if own else Unavailable("the opt-out was not recorded. Try again."))


@dataclass
class GroupCommit:
    """Records single Changes as if each had a transaction of its own, at a fraction of the cost."""

    pool: db.Pool
    most: int = WAITING
    _open: bool = False
    _queue: list[_Row] = field(default_factory=list)
    _alike: dict[UUID, dict[tuple[object, ...], _Row]] = field(default_factory=dict)  # by address: the rows that a press may join
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: set[UUID] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def record(self, change: Change, *, now: datetime) -> bool:
        """Return, after the commit, whether the Change added a row of its own. Raises Unavailable: then nothing was acknowledged.

        False too for one that shares a row with others: it counts, and can be taken back by none of them.
        """
        ledger.entitled(change)
        if not self._open:  # nobody would ever answer
            raise Unavailable("the service is stopping. Try again.")
        answer = asyncio.get_running_loop().create_future()
        self._row(change, now).answers.append(answer)
        return bool(await answer)

    def _row(self, change: Change, now: datetime) -> _Row:
        """Return the row that this press waits for: one that waits already, or a new one."""
        key, likeness = change.address.key, _likeness(change)
        alike = self._alike.get(key, {})
        if row := alike.get(likeness):
            row.join(change, now)
            return row
        if len(self._queue) >= self.most or (change.effect is not Effect.STOP and len(alike) >= OF_ONE):
            raise Busy("too many presses are waiting. Try again.")
        if change.effect not in (Effect.STOP, Effect.WITHDRAW):
            alike.clear()  # a stop that is pressed after a go must not join one from before it
        self._alike[key] = alike
        alike[likeness] = row = _Row(change, now, likeness)
        self._queue.append(row)
        self._idle.clear()
        self._news.set()
        return row

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
            if not batch:  # only rows for addresses that another writer has in hand
                self._news.clear()
                continue
            await self._commit(batch)
            self._busy.difference_update(row.change.address.key for row in batch)
            if self._queue:
                self._news.set()
            elif not self._busy:
                self._idle.set()

    def _take(self) -> list[_Row]:
        """Take what waits: at most one row of an address, and none that another writer has in hand, so that none wait for a lock."""
        taken: list[_Row] = []
        left: list[_Row] = []
        for row in self._queue:
            key = row.change.address.key
            if len(taken) < BATCH and key not in self._busy:
                self._busy.add(key)
                self._close(row)
                taken.append(row)
            else:
                left.append(row)
        self._queue = left
        return sorted(taken, key=lambda row: row.change.address.key)

    def _close(self, row: _Row) -> None:
        """Let nobody more join a row: it may be committed before they pressed."""
        alike = self._alike[row.change.address.key]
        if alike.get(row.likeness) is row:
            del alike[row.likeness]
        if not alike:
            del self._alike[row.change.address.key]

    async def _commit(self, rows: Sequence[_Row]) -> None:
        error = await self._tried(rows)
        if error is None:
            return
        if len(rows) == 1 or db.is_trouble(error):
            for row in rows:
                row.refuse(error)
        else:
            await self._one_by_one(rows, ALONE if isinstance(error, _TooSlow) else None)

    async def _one_by_one(self, rows: Sequence[_Row], seconds: float | None) -> None:
        """Try each alone: who is slow, or cannot be recorded, takes no other along. What turns out to be everybody's trouble ends it."""
        slow = 0
        for n, row in enumerate(rows):
            error = await self._tried([row], seconds)
            slow += isinstance(error, _TooSlow)
            if error is not None:
                everybody = slow == SLOW or db.is_trouble(error)
                for refused in rows[n:] if everybody else [row]:
                    refused.refuse(error)
                if everybody:
                    return

    async def _tried(self, rows: Sequence[_Row], seconds: float | None = None) -> Exception | None:
        """Record rows in one commit and answer those who wait for them; return what went wrong instead."""
        try:
            added = await self._recorded(rows, seconds)
        except Exception as error:
            return error
        for row, new in zip(rows, added, strict=True):
            row.settle(new)
        return None

    async def _recorded(self, rows: Sequence[_Row], seconds: float | None) -> list[bool]:
        async with db.acquired(self.pool) as connection, db.sure(connection):
            try:
                async with asyncio.timeout(seconds):
                    # one statement outside a transaction block is its own commit
                    return await ledger.record(connection, [row.change for row in rows], now=max(row.now for row in rows))
            except TimeoutError:
                raise _TooSlow from None


def _likeness(change: Change) -> tuple[object, ...]:
    """Return what presses of one address have in common that may share a row: stops for good of one scope, through one door.

    Whatever else it is, only the very same press is alike.
    """
    kind = (change.scope, change.cause, change.effect, change.door, change.by)
    for_good = change.effect is Effect.STOP and change.until is None and ledger.is_own(change)
    return kind if for_good else (*kind, change.until, change.id)
