"""Which of a file's candidates may be sent a topic: row by row, in their order, each row as it came.

Each block of rows is asked about at its own moment. Nobody is asked about twice, and nothing here is a rule: ``allowed`` says yes or
no, in SQL, and ``decisions`` gives the reasons.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from mailprefs import decisions
from mailprefs.catalogue import Catalogue, Scope
from mailprefs.crews import Keyed
from mailprefs.db import Connection, queries, text
from mailprefs.decisions import Question
from mailprefs.errors import UnknownScope
from mailprefs.words import BUCKETS, Address, Channel, Decision, Stream

UNREADABLE = "unreadable"
KEY = 16  # bytes
MOST = 5_000_000  # keys that a sieve holds
_NARROW, _WIDE = 8, 14  # of the first 32 bits of a key, 24 choose its mark in a sieve, and 18 its part
_BUCKET = struct.Struct(">H14x")  # of a key, as `Address.bucket` (a test)
_HEAD, _TUPLE = 19, struct.Struct("6x16s")  # COPY's binary format: what stands before all rows, and one row with a uuid alone


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a block: the places of those denied, with their reasons where these were asked for, and how many were rows."""

    denied: Mapping[int, str]
    rows: int
    empty: frozenset[int]

    def allowed(self, rows: Sequence[bytes]) -> list[bytes]:
        """Return the rows of those who may be sent."""
        out = self.empty.union(self.denied)
        return [row for n, row in enumerate(rows) if n not in out] if out else list(rows)


class Sieve:
    """The keys of all who differ from a stranger, as of one moment: who is not in it needs not be asked about, and who is neither.

    20 bytes and less for each. ``full`` once there are more than ``most``: then it holds nobody, and everybody is asked about.
    """

    def __init__(self, most: int = MOST) -> None:
        self.full = False
        self._left = most
        self._rest = b""
        self._begun = False
        self._marks = bytearray(1 << 32 - _NARROW)  # where there is anybody at all: most are sent away here
        self._parts = [bytearray() for _ in range(1 << 32 - _WIDE)]

    async def take(self, chunk: bytes) -> None:
        """Take the next piece of what COPY gives in its binary format."""
        chunk = self._rest + chunk
        if not self._begun and len(chunk) >= _HEAD:
            chunk, self._begun = chunk[_HEAD:], True
        whole = len(chunk) - len(chunk) % _TUPLE.size if self._begun else 0
        self._rest = chunk[whole:]
        self._left -= whole // _TUPLE.size
        if self._left < 0:
            self.full, self._parts = True, []
        if not self.full:
            marks, parts = self._marks, self._parts
            for (key,) in _TUPLE.iter_unpack(chunk[:whole]):
                head = int.from_bytes(key[:4], sys.byteorder)
                marks[head >> _NARROW] = 1
                parts[head >> _WIDE] += key

    def caught(self, keys: Sequence[bytes]) -> set[int]:
        """Return the places of those that are in it. A key is found by its bytes: two that lie across it are as rare as its twin."""
        marks, parts = self._marks, self._parts
        heads = array("I", b"".join([key or bytes(KEY) for key in keys]))[::4]
        near = [n for n, head in enumerate(heads) if marks[head >> _NARROW]]
        return {n for n in near if keys[n] in parts[heads[n] >> _WIDE] and keys[n]}


@dataclass
class Filter:
    """Asks about the candidates of one topic."""

    catalogue: Catalogue
    topic: Scope
    reasons: bool = False  # of those denied
    sieve: Sieve | None = None
    _strangers: dict[Channel, bool] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not self.topic.is_topic or self.topic.retired:
            raise UnknownScope("there is no such topic to send")

    async def judge(self, connection: Connection, keyed: Keyed, *, now: datetime) -> Verdict:
        """Say who of some rows may be sent the topic. In doubt, no: a row without an address, and for marketing one that spells none."""
        held = await self._plain(connection, keyed, now) | await self._others(connection, keyed.others, now)
        why = await self._why(connection, keyed, held, now) if self.reasons and held else dict.fromkeys(held, "")
        denied = {**why, **dict.fromkeys(keyed.lost, f"{self.topic.name}:{UNREADABLE}")}
        return Verdict(denied, len(keyed.rows) - len(keyed.empty), keyed.empty)

    async def _plain(self, connection: Connection, keyed: Keyed, now: datetime) -> set[int]:
        """Return the places of the plain addresses that are denied."""
        if self.sieve is None or self.sieve.full:
            return await self._denied(connection, Channel.EMAIL, {n: key for n, key in enumerate(keyed.keys) if key}, now)
        different = self.sieve.caught(keyed.keys)
        if await self._stranger(connection, Channel.EMAIL, now):
            return different
        return {n for n, key in enumerate(keyed.keys) if key} - different

    async def _others(self, connection: Connection, others: Mapping[int, tuple[Address, bool]], now: datetime) -> set[int]:
        """Return the places of the other addresses that are denied. What spells none is not asked about: for marketing, a doubt is no."""
        denied = {n for n, (_, readable) in others.items() if not readable and self.topic.stream is not Stream.TRANSACTIONAL}
        for channel in Channel:
            keys = {n: address.key.bytes for n, (address, _) in others.items() if n not in denied and address.channel is channel}
            denied |= await self._denied(connection, channel, keys, now) if keys else set()
        return denied

    async def _denied(self, connection: Connection, channel: Channel, keys: Mapping[int, bytes], now: datetime) -> set[int]:
        """Return the places of those keys that are denied: asked is only for whom the rule says something else than of a stranger."""
        stranger, places, together = await self._stranger(connection, channel, now), list(keys), b"".join(keys.values())
        bucket = [head % BUCKETS for (head,) in _BUCKET.iter_unpack(together)]
        rule = {**self._rule(channel, now), "stranger": stranger}
        different = {places[n - 1] for n in await queries("candidates").differing(connection, keys=together, bucket=bucket, **rule)}
        return different if stranger else keys.keys() - different

    async def _stranger(self, connection: Connection, channel: Channel, now: datetime) -> bool:
        """Return what is said of an address that was never met."""
        if channel not in self._strangers:
            self._strangers[channel] = bool(await queries("candidates").stranger(connection, **self._rule(channel, now)))
        return self._strangers[channel]

    def _rule(self, channel: Channel, now: datetime) -> dict[str, Any]:
        return {"path": list(self.topic.path), "wants": self.topic.wants(channel), "now": now}

    async def _why(self, connection: Connection, keyed: Keyed, held: set[int], now: datetime) -> dict[int, str]:
        """Return the reasons against each of those denied, as ``scope:cause`` joined by ``;``. Who is let in again meanwhile is allowed."""
        places = sorted(held)
        answers = await decisions.decide(connection, [self._question(keyed, n) for n in places], self.catalogue, now=now)
        return {n: _joined(answer) for n, answer in zip(places, answers, strict=True) if not answer.allowed}

    def _question(self, keyed: Keyed, n: int) -> Question:
        address, readable = keyed.others.get(n) or (Address(UUID(bytes=keyed.keys[n]), Channel.EMAIL), True)
        return Question(address, "", self.topic.name, not readable)

    async def sift(self, connection: Connection, *, now: datetime) -> None:
        """Take the keys of all who differ from a stranger at once, so that no further rows are asked about one by one."""
        rule, sieve = self._rule(Channel.EMAIL, now), Sieve()
        stranger = await self._stranger(connection, Channel.EMAIL, now)
        query = text("candidates", "marked").strip().removesuffix(";")
        await connection.copy_from_query(query, rule["path"], rule["wants"], now, stranger, output=sieve.take, format="binary")
        self.sieve = sieve


def _joined(answer: Decision) -> str:
    return ";".join(f"{reason.scope}:{reason.cause}" for reason in answer.reasons)
