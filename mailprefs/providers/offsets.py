"""Listings that are cut by numbers, while people come and go: nobody is passed over who was there all the time, or it is said."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mailprefs.providers.base import Unclear

OVERLAP = 10  # entries that each page has in common with the one before

Entry = dict[str, Any]
Page = tuple[Sequence[Entry], int]  # the entries from an offset on, and how many there are in all
Ask = Callable[[int], Awaitable[Page]]


async def walk(ask: Ask, key: str) -> AsyncIterator[Entry]:
    """Yield the entries of a listing in its order, which must put new ones last, each known by its ``key``.

    Raises Unclear if a page is cut short, or if so much moved meanwhile that where the last page ended cannot be found.
    """
    here = Walk(key)
    while not here.over:
        for entry in await here.page(ask):
            yield entry


@dataclass(slots=True)
class Walk:
    """A listing on its way: as far as it was read, from where it goes on."""

    key: str
    over: bool = False
    end: int = 0
    tail: deque[object] = field(default_factory=lambda: deque(maxlen=OVERLAP))

    async def page(self, ask: Ask) -> Sequence[Entry]:
        """Return the entries of the next page that were not there before. Raises as ``walk`` does, and is then where it was."""
        start, entries, total = await _next(ask, self.end, self.tail, self.key) if self.end else (0, *await ask(0))
        if not entries and start < total:
            raise Unclear("cut_short")
        self.tail.extend([_key(entry, self.key) for entry in entries])
        self.end = start + len(entries)
        self.over = self.end >= total
        return entries


async def _next(ask: Ask, end: int, tail: Sequence[object], key: str) -> tuple[int, Sequence[Entry], int]:
    """Return where the next page goes on, its entries from there, and how many there are in all."""
    offset = max(0, end - len(tail))
    page, total = await ask(offset)
    keys = [_key(entry, key) for entry in page]
    for last in reversed(tail):  # whoever left moved all others up: the ends of the two pages are matched anew
        if last in keys:
            found = keys.index(last) + 1
            return offset + found, page[found:], total
    raise Unclear("moved")


def _key(entry: Entry, key: str) -> object:
    found = entry.get(key)
    if not isinstance(found, str | int):
        raise Unclear("other_shape")
    return found
