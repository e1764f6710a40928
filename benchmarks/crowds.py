"""What must stay quick while the database grows: exports, decisions, one-clicks; each at a tenth of the rows, and at all of them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import md5
from random import Random
from uuid import UUID

import asyncpg

from benchmarks import machine, oneclick
from benchmarks.figures import Beside, Figure, timed, turn_by_turn
from benchmarks.options import Options
from benchmarks.stage import HERE, Stage, connected
from mailprefs import audience, catalogue, decisions
from mailprefs.catalogue import Catalogue
from mailprefs.decisions import Question
from mailprefs.words import Address, Channel

BATCH = 1_000  # decisions asked for at once
MOST = 32.0  # MiB that an export may take above what the process has anyway
_BARE = "select plaintext from address"
_ANY = (
    "select a.key, a.stops from unnest($1::smallint[], $2::uuid[]) q(bucket, key) join address a on a.bucket = q.bucket and a.key = q.key"
)


async def figures(stage: Stage, options: Options) -> AsyncIterator[Figure]:
    """Yield the lines of exports and decisions at each size, and how they and one-click grow."""
    sizes, had, met = sorted({options.rows // 10, options.rows}), 0, {}
    async with stage.database() as url:
        for rows in sizes:
            async with connected(url) as connection:
                await fill(connection, had, rows)
                exported = await _exported(connection, stage.catalogue, options, rows)
                decided = await _decided(connection, stage.catalogue, options, rows)
            pressed = await oneclick.at(stage, options, url, rows)
            had, name = rows, spelled(rows)
            yield exported.figure(f"export {name}, opt-out", "out", "bare", 0.9, unit="rows/s", beside="COPY of the column")
            yield exported.figure(f"export {name}, opt-in", "opt_in", "bare", 0.7, unit="rows/s", beside="COPY of the column")
            peak = await _peak(url)
            yield Figure(f"export {name}, memory", "MiB above idle", peak, MOST, peak / MOST, 1.0, "the bound", most=True)
            yield decided.figure(f"decisions, {name}", "decided", "bare", 0.5, unit="decisions/s", beside="look-up of the same keys")
            met[rows] = {
                "export": (exported.median("out"), exported.median("bare")),
                "decisions": (decided.median("decided"), decided.median("bare")),
                "one-click": (pressed.median("presses"), 1.0),
            }
    for path, small in met[sizes[0]].items():
        yield _growth(path, small, met[sizes[-1]][path], spelled(sizes[0]))


def _growth(path: str, small: tuple[float, float], large: tuple[float, float], size: str) -> Figure:
    """Return what became of a pace, beside what became of its limit: what the machine itself is slower at with so many rows, all are."""
    figure, limit = (after / before for before, after in zip(small, large, strict=True))
    return Figure(f"growth, {path}", f"× the pace at {size}", figure, limit, figure / limit, 0.8, "the limit's own growth")


def spelled(rows: int) -> str:
    return f"{rows / 1e6:g} M"


async def fill(connection: asyncpg.Connection, had: int, rows: int) -> None:
    """Let there be as many people as ``rows`` says, where there are ``had`` already."""
    for statement in (HERE / "fill.sql").read_text().split(";\n")[:2]:
        await connection.execute(statement.replace("$1", str(had + 1)).replace("$2", str(rows)))
    await connection.execute("vacuum analyze address")
    await connection.execute("vacuum analyze consent")
    await connection.execute("checkpoint")


async def _nowhere(chunk: bytes) -> None:
    """Take what an export sends."""


async def _exported(connection: asyncpg.Connection, shared: Catalogue, options: Options, rows: int) -> Beside:
    def export(topic: str) -> Callable[[], Awaitable[object]]:
        return partial(audience.stream, connection, shared.topic(topic), Channel.EMAIL, _nowhere, now=datetime.now(UTC))

    async def scanned(work: Callable[[], Awaitable[object]]) -> float:
        with timed() as span:
            await work()
        return rows / span.seconds

    async def bare() -> float:
        await connection.execute("reset all")  # a COPY as PostgreSQL plans it by itself: what an export sets stays with the session
        return await scanned(partial(connection.copy_from_query, _BARE, output=_nowhere, format="csv"))

    return await turn_by_turn(
        options.turns,
        bare=bare,
        out=partial(scanned, export("newsletter")),
        opt_in=partial(scanned, export("partners")),
    )


async def _decided(connection: asyncpg.Connection, shared: Catalogue, options: Options, rows: int) -> Beside:
    random, batches = Random(1), list[list[Address]]()

    async def bare() -> float:
        batches[:] = [[_someone(random.randrange(1, rows)) for _ in range(BATCH)] for _ in range(options.questions)]
        with timed() as span:
            for batch in batches:
                await connection.fetch(_ANY, [each.bucket for each in batch], [each.key for each in batch])
        return options.questions * BATCH / span.seconds

    async def decided() -> float:
        asked = [[_someone(random.randrange(1, rows)) for _ in range(BATCH)] for _ in range(options.questions)]
        questions = [[Question(each, "someone@example.com", "newsletter") for each in batch] for batch in asked]
        with timed() as span:
            for batch in questions:
                await decisions.decide(connection, batch, shared, now=datetime.now(UTC))
        return options.questions * BATCH / span.seconds

    return await turn_by_turn(options.turns, bare=bare, decided=decided)


def _someone(number: int) -> Address:
    return Address(UUID(md5(str(number).encode(), usedforsecurity=False).hexdigest()), Channel.EMAIL)


async def _peak(url: str) -> float:
    """Return the MiB that a process of its own takes more, at most, while it exports than before."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.crowds", url, stdout=PIPE, cwd=HERE.parent)
    said, _ = await process.communicate()
    return float(said)


async def _alone(url: str) -> None:
    import os

    topic = catalogue.load(HERE / "catalogue.toml").topic("newsletter")
    async with connected(url) as connection:
        await connection.fetchval("select 1")
        idle = machine.peak(os.getpid())
        await audience.stream(connection, topic, Channel.EMAIL, _nowhere, now=datetime.now(UTC))
        sys.stdout.write(f"{(machine.peak(os.getpid()) - idle) / 2**20}")


if __name__ == "__main__":
    asyncio.run(_alone(sys.argv[1]))
