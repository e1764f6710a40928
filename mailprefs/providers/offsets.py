"""Listings that are cut by numbers, while people come and go: nobody is passed over who was there all the time, or it is said."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from mailprefs.providers.base import Unclear

OVERLAP = 10  # entries that each page has in common with the one before

Entry = dict[str, Any]
Page = tuple[Sequence[Entry], int]  # the entries from an offset on, and how many there are in all


async def walk(ask: Callable[[int], Awaitable[Page]], key: str) -> AsyncIterator[Entry]:
    """Yield the entries of a listing in its order, which must put new ones last, each known by its ``key``.

    Raises Unclear if a page is cut short, or if so much moved meanwhile that where the last page ended cannot be found.
    """
    entries, total = await ask(0)
    start, tail = 0, deque[object](maxlen=OVERLAP)
    while True:
        for entry in entries:
            tail.append(_key(entry, key))
            yield entry
        end = start + len(entries)
        if end >= total:
            return
        if not entries:
            raise Unclear("cut_short")
        start, entries, total = await _next(ask, end, tail, key)


async def _next(ask: Callable[[int], Awaitable[Page]], end: int, tail: Sequence[object], key: str) -> tuple[int, Sequence[Entry], int]:
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
