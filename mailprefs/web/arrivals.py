"""Bodies that are held: what all of them may take of the memory together, whoever sends them. Where that is too much, one gives way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from operator import attrgetter

from mailprefs.errors import Busy

MOST = 64 * 1024 * 1024  # bytes of bodies in one process
SHARE = MOST // 4  # of one sender, so that its flood leaves room to others


@dataclass(slots=True, eq=False)
class Arrival:
    """One body, from its first byte until its request is answered."""

    sender: str
    patience: asyncio.Timeout  # with the wait for its next bytes
    size: int = 0  # bytes that are held of it


def oldest(arrivals: Iterable[Arrival]) -> Arrival:
    """Return who has been under way longest: for bodies that all are over in a moment, unless their sender is slow."""
    return next(iter(arrivals))


def largest(arrivals: Iterable[Arrival]) -> Arrival:
    """Return of whom most is held: where a body may well take hours, and be held a piece at a time."""
    return max(arrivals, key=attrgetter("size"))


@dataclass
class Arrivals:
    """Counts the bytes of all bodies as they come; what a sender only declares counts nothing."""

    most: int = MOST
    share: int = SHARE
    gives_way: Callable[[Iterable[Arrival]], Arrival] = oldest
    held: int = 0
    _by_sender: Counter[str] = field(default_factory=Counter)
    _under_way: dict[Arrival, None] = field(default_factory=dict)  # the oldest first

    @asynccontextmanager
    async def arriving(self, sender: str) -> AsyncIterator[Arrival]:
        """Lend what counts one body. Raises Busy, whatever the block waits for, once the body has to give way to others."""
        patience = asyncio.timeout(None)
        try:
            async with patience:
                arrival = Arrival(sender, patience)
                self._under_way[arrival] = None
                try:
                    yield arrival
                finally:
                    self._drop(arrival)
        except TimeoutError:
            if not patience.expired():
                raise
            raise Busy("there was no room left for this body beside the others. Send it again.") from None

    def grow(self, arrival: Arrival, size: int) -> None:
        """Count so many bytes more. Where there is no room, others give way, or this one: then it raises Busy."""
        self._still(arrival)
        arrival.size += size
        self._count(arrival.sender, size)
        while self._by_sender[arrival.sender] > self.share:
            self._send_away(self.gives_way(each for each in self._under_way if each.sender == arrival.sender))
        while self.held > self.most:
            self._send_away(self.gives_way(self._under_way))
        self._still(arrival)

    def hold(self, arrival: Arrival, size: int) -> None:
        """Count so many bytes in all, fewer than before or more: as ``grow``."""
        self.grow(arrival, size - arrival.size)

    def whole(self, arrival: Arrival) -> None:
        """Let a body that is whole stay until it is answered. Raises Busy if it had to give way before that."""
        self._still(arrival)
        del self._under_way[arrival]

    def _still(self, arrival: Arrival) -> None:
        if arrival not in self._under_way:
            raise Busy("there is no room for more bodies. Send it again.")

    def _send_away(self, arrival: Arrival) -> None:
        self._drop(arrival)
        arrival.patience.reschedule(0)

    def _drop(self, arrival: Arrival) -> None:
        self._under_way.pop(arrival, None)
        self._count(arrival.sender, -arrival.size)
        arrival.size = 0

    def _count(self, sender: str, size: int) -> None:
        self.held += size
        self._by_sender[sender] += size
