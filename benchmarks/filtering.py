"""Candidates filtered by the command, from a file to a file, beside COPY in of the same file. One of ten is known, and has left."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg

from benchmarks.crowds import spelled
from benchmarks.figures import Figure, timed, turn_by_turn
from benchmarks.options import Options
from benchmarks.stage import HERE, Stage, connected
from mailprefs.words import Channel

_BLOCK = 100_000  # rows that are made at once
_KNOWN = 10  # of so many, the first is known, and has left


async def figures(stage: Stage, options: Options) -> AsyncIterator[Figure]:
    """Yield the one line."""
    file, rows = stage.home / "candidates.csv", options.rows
    async with stage.database() as url, connected(url) as connection:
        _write(file, rows)
        for begin in range(0, rows, _BLOCK):
            people = [_left(stage, name) for name in _names(begin, min(begin + _BLOCK, rows), _KNOWN)]
            await connection.copy_records_to_table("address", records=people, columns=["bucket", "key", "channel", "stops", "plaintext"])
        await connection.execute("vacuum analyze address")
        await connection.execute("create temporary table candidate (address text)")

        async def copied() -> float:
            await connection.execute("truncate candidate")
            with timed() as span:
                await _copied(connection, file)
            return rows / span.seconds

        async def filtered() -> float:
            with timed() as span:
                await _filtered(file, stage.environment(url))
            return rows / span.seconds

        measured = await turn_by_turn(options.turns, copied=copied, filtered=filtered)
        if await asyncio.to_thread(_lines, file.with_suffix(".out")) != staying(rows) + 1:
            raise SystemExit("the filter let others through than those who have not left")
    yield measured.figure(f"filter {spelled(rows)} candidates", "filtered", "copied", 0.3, unit="rows/s", beside="COPY in of the file")


def staying(rows: int) -> int:
    """Return how many candidates may be sent, and come out."""
    return rows - len(range(0, rows, _KNOWN))


def _names(begin: int, end: int, step: int = 1) -> Iterator[str]:
    return (f"candidate.{n}@example.com" for n in range(begin, end, step))


def _left(stage: Stage, name: str) -> tuple[object, ...]:
    address = stage.addresses.read(name)
    return (address.bucket, address.key, Channel.EMAIL, [stage.catalogue.topic("newsletter").number], name)


def _write(file: Path, rows: int) -> None:
    with file.open("w", encoding="ascii") as out:
        out.write("address\n")
        out.writelines(f"{name}\n" for name in _names(0, rows))


async def _copied(connection: asyncpg.Connection, file: Path) -> None:
    await connection.copy_to_table("candidate", source=file, format="csv", header=True)


async def _filtered(file: Path, environment: dict[str, str]) -> None:
    with file.open("rb") as candidates, file.with_suffix(".out").open("wb") as out:
        words = ["-m", "mailprefs", "filter", "newsletter"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdin=candidates, stdout=out, stderr=asyncio.subprocess.DEVNULL, env=environment, cwd=HERE.parent
        )
        if await process.wait():
            raise SystemExit("the filter failed")


def _lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for _ in lines)
