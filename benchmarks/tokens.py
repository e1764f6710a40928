"""Links minted and read, by processor time, beside the least that any signed link costs: pack, HMAC, base64."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from struct import pack
from time import process_time
from typing import TypeVar
from uuid import UUID, uuid4

from benchmarks.figures import Figure, turn_by_turn
from benchmarks.options import Options
from benchmarks.stage import Stage
from mailprefs.links import read

BARE = "pack + HMAC + base64"


async def figures(stage: Stage, options: Options) -> AsyncIterator[Figure]:
    """Yield the lines of minting one by one, in bulk, and of verifying."""
    links, topic, people = stage.links, stage.catalogue.topic("newsletter"), [uuid4() for _ in range(options.links)]
    tokens = list(links.stream(people, topic))
    measured = await turn_by_turn(
        options.turns,
        bare=_each(partial(_bare, stage.ring.minting.secret), people),
        one=_each(lambda people: (links.token(person, topic) for person in people), people),
        bulk=_each(lambda people: links.stream(people, topic), people),
        verified=_each(lambda tokens: (read(stage.ring, token) for token in tokens), tokens),
    )
    yield measured.figure("mint, one by one", "one", "bare", 1.1, unit="links/s", beside=BARE)
    yield measured.figure("mint, in bulk", "bulk", "bare", 1.4, unit="links/s", beside=BARE)
    yield measured.figure("verify", "verified", "bare", 0.8, unit="links/s", beside=BARE)


def _bare(secret: bytes, people: Iterable[UUID]) -> Iterator[str]:
    for person in people:
        body = pack(">BH16s", 1, 272, person.bytes)
        yield urlsafe_b64encode(body + hmac.digest(secret, body, "sha256")[:13]).decode()


Item = TypeVar("Item")


def _each(work: Callable[[list[Item]], Iterable[object]], items: list[Item]) -> Callable[[], Awaitable[float]]:
    async def run() -> float:
        began = process_time()
        deque(work(items), maxlen=0)  # nothing is held: else the collector would be measured too
        return len(items) / (process_time() - began)

    return run
