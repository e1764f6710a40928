"""Which of a file's candidates may be sent a topic: row by row, in their order, each row as it came.

Each block of rows is asked about at its own moment, or all at the one moment of a sieve (`Filter.sift`). Nobody is asked about twice, and
nothing here is a rule: ``allowed`` says yes or no, in SQL, and ``decisions`` gives the reasons.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import compress
from operator import itemgetter
from typing import Any
from uuid import UUID

from mailprefs import columns, decisions
from mailprefs.addresses import KEY, Keys
from mailprefs.catalogue import Catalogue, Scope
from mailprefs.crews import Keyed
from mailprefs.db import Connection, queries, text
from mailprefs.decisions import Question
from mailprefs.errors import UnknownScope
from mailprefs.words import BUCKETS, Address, Channel, Decision, Stream

UNREADABLE = "unreadable"
MOST = 5_000_000  # keys that a sieve holds
_BITS = 24  # of a key, which choose its slot in a sieve
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
        stays = bytearray(b"\1") * len(rows)
        for n in self.empty.union(self.denied):
            stays[n] = 0
        return list(compress(rows, stays))


class Sieve:
    """The keys of all who differ from a stranger, as of one moment: who is not in it needs not be asked about, and who is neither.

    A hash table in three flat pieces, 20 bytes for each key and 64 MiB. ``full`` once there are more than ``most``: then it holds nobody,
    and everybody is asked about.
    """

    def __init__(self, most: int = MOST) -> None:
        self.full = False
        self._left = most
        self._rest = b""
        self._begun = False
        self._keys = bytearray(KEY)  # those taken, in their order; their places count from 1
        self._latest = array("I", bytes(4 << _BITS))  # by slot, the place of the latest key that has it, 0 where none has
        self._before = array("I", [0])  # by place, that of the one before in the same slot

    async def take(self, chunk: bytes) -> None:
        """Take the next piece of what COPY gives in its binary format."""
        chunk = self._rest + chunk
        if not self._begun and len(chunk) >= _HEAD:
            chunk, self._begun = chunk[_HEAD:], True
        whole = len(chunk) - len(chunk) % _TUPLE.size if self._begun else 0
        self._rest = chunk[whole:]
        self._left -= whole // _TUPLE.size
        if self._left < 0:
            self.full, self._keys, self._latest, self._before = True, bytearray(), array("I"), array("I")
        if not self.full:
            self._hold(b"".join([key for (key,) in _TUPLE.iter_unpack(chunk[:whole])]))

    def _hold(self, keys: bytes) -> None:
        latest, before = self._latest, self._before
        for place, slot in enumerate(_slots(array("I", keys)[:: KEY // 4]), len(before)):
            before.append(latest[slot])
            latest[slot] = place
        self._keys += keys

    def caught(self, keys: Keys) -> set[int]:
        """Return the places of those that are in it."""
        slots = _slots(keys.heads())
        if columns.installed():
            return columns.caught(keys.digests, slots, self._latest, self._before, self._keys)
        near = itemgetter(*slots, 0, 0)(self._latest)[:-2]  # several times as quick as a loop; of one it would return no tuple
        return {n for n, place in compress(enumerate(near), near) if self._holds(keys[n], place)}

    def _holds(self, key: bytes, place: int) -> bool:
        while place and self._keys[place * KEY : place * KEY + KEY] != key:
            place = self._before[place]
        return place > 0


def _slots(heads: array[int]) -> array[int]:
    """Return the slot of each key by its first 32 bits: all of them in one breath, since a loop would take as long as the rest."""
    mask = ((1 << _BITS) - 1).to_bytes(heads.itemsize, sys.byteorder) * len(heads)
    masked = int.from_bytes(heads.tobytes(), sys.byteorder) & int.from_bytes(mask, sys.byteorder)
    return array("I", masked.to_bytes(len(mask), sys.byteorder))


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
