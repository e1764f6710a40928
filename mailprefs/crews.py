"""Rows of candidates, each with the key of its address; for a large file by several processes, since keying is most of the work."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from threading import Thread

from mailprefs.addresses import DIGEST, Addresses, Keys, halves
from mailprefs.columns import Columns, Found, installed
from mailprefs.sheets import Block, Sheet, text_of
from mailprefs.words import Address, Channel

LARGE = 200_000  # rows from which on it is worth to begin other processes
HANDS = 4  # processes at most
AHEAD = 8  # blocks that each may have before it


@dataclass(frozen=True, slots=True)
class Keyed:
    """Whole rows in their order. By place: the keys of plain e-mail addresses; the others that can be asked about; those that cannot."""

    rows: Sequence[bytes]
    keys: Keys  # b"" where the place is one of the others, lost or empty
    others: Mapping[int, tuple[Address, bool]]  # and whether we would accept them
    lost: frozenset[int]  # rows without an address
    empty: frozenset[int]  # lines without anything, which are no rows


def key(addresses: Addresses, sheet: Sheet, rows: list[bytes]) -> Keyed:
    """Return rows with their keys. Pure, and slow only where an address is unusual."""
    block = sheet.block(rows) if rows else Block((), ())
    odd = [] if all(block.plain) else [n for n, plain in enumerate(block.plain) if not plain]
    empty = frozenset(n for n in odd if not block.rows[n].strip())
    texts = {n: text_of(sheet, block.rows[n]) for n in odd if n not in empty}
    others = {n: addresses.asked(each) for n, each in texts.items() if each is not None}
    return Keyed(block.rows, addresses.keys(block.plain), others, frozenset(texts.keys() - others.keys()), empty)


class Crew:
    """Keys block after block, in their order. Begins other processes only once a file shows that it is large."""

    def __init__(self, digest: bytes, sheet: Sheet, *, large: int = LARGE) -> None:
        self._digest, self._sheet, self._large = digest, sheet, large
        self._addresses = Addresses(digest)

    async def keyed(self, blocks: Iterator[list[bytes]]) -> AsyncIterator[Keyed]:
        """Give each block with its keys, working ahead by as much as there are hands."""
        rows = 0
        for block in blocks:
            rows += len(block)
            yield key(self._addresses, self._sheet, block)
            if rows >= self._large:
                break
        else:
            return  # a pool begins a process of its own before it has any of ours
        with ExitStack() as stack:
            hands = min(HANDS, os.cpu_count() or 1)
            pool = ProcessPoolExecutor(hands, get_context("spawn"), _begin, (self._digest, self._sheet))
            stack.callback(pool.shutdown, cancel_futures=True)
            ahead: deque[tuple[list[bytes], Future[Keyed]]] = deque()
            for block in blocks:
                with _deaf():
                    ahead.append((block, pool.submit(_key, _packed(block))))
                if len(ahead) > AHEAD * hands:
                    yield await _taken(*ahead.popleft())
            while ahead:
                yield await _taken(*ahead.popleft())


@contextmanager
def _deaf() -> Iterator[None]:
    """Hold Ctrl-C back: a process that begins meanwhile never hears it. Whoever leads the crew ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _packed(rows: list[bytes]) -> bytes | list[bytes]:
    """Return rows as they travel quickest: as one text, unless one of them spans lines."""
    together = b"\n".join(rows)
    return together if rows and together.count(b"\n") == len(rows) - 1 else rows


async def _taken(rows: list[bytes], keyed: Future[Keyed]) -> Keyed:
    """Return what another process made of rows, which it gives back only where it cut them anew."""
    found = await asyncio.wrap_future(keyed)
    return found if found.rows else replace(found, rows=rows)


class Hand:
    """Keys packed rows of one file: a column at a time where the libraries for it are installed, and closely what is not plain."""

    def __init__(self, digest: bytes, sheet: Sheet) -> None:
        self._addresses, self._sheet = Addresses(digest), sheet
        self._columns = Columns(sheet.plain, *halves(digest, Channel.EMAIL)) if sheet.plain and installed() else None

    def key(self, packed: bytes | list[bytes]) -> Keyed:
        """Return the keys of rows, and the rows themselves only where they were cut anew."""
        if isinstance(packed, bytes) and self._columns and (found := self._columns.keyed(packed)):
            rows = packed.split(b"\n") if found.odd else []
            return _joined(found, key(self._addresses, self._sheet, [rows[n] for n in found.odd]))
        rows = packed.split(b"\n") if isinstance(packed, bytes) else packed
        closely = key(self._addresses, self._sheet, rows)
        return replace(closely, rows=()) if closely.rows is rows else closely


def _joined(found: Found, closely: Keyed) -> Keyed:
    """Return what was found a column at a time, and closely of the odd rows."""
    digests = bytearray(found.digests)
    for place, n in enumerate(found.odd):
        digests[n * DIGEST : (n + 1) * DIGEST] = closely.keys.digests[place * DIGEST : (place + 1) * DIGEST]
    others = {found.odd[place]: other for place, other in closely.others.items()}
    lost, empty = (frozenset(found.odd[place] for place in places) for places in (closely.lost, closely.empty))
    return Keyed((), Keys(bytes(digests)), others, lost, empty)


_HANDS: list[Hand] = []  # the one of this process, where it is one of a crew


def _begin(digest: bytes, sheet: Sheet) -> None:
    Thread(target=_follow, daemon=True).start()
    _HANDS.append(Hand(digest, sheet))


def _follow() -> None:
    """End with whoever leads the crew, however that ended: the pipe to it would stay open, for its other end is in our hands too."""
    if leader := parent_process():
        leader.join()
        os._exit(1)


def _key(packed: bytes | list[bytes]) -> Keyed:
    return _HANDS[0].key(packed)
