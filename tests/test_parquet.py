"""Rows of CSV become Parquet in little memory, whatever their number, and the same bytes each time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailprefs import parquet

MOST = 32  # MiB, beside what DuckDB itself takes when it is opened
ROWS = 400_000
_WRITING = """
import asyncio, sys
from pathlib import Path
from mailprefs import parquet

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

async def made(path, rows):
    async with parquet.written(Path(path), ["address", "url"]) as sink:
        for n in range(0, rows, 1000):
            each = range(n, n + 1000)
            await sink(b"".join(b"person.%d@example.com,https://go.example.com/u/%0200x\\n" % (i, i) for i in each))

asyncio.run(made(sys.argv[1], 1000))
idle = peak()
asyncio.run(made(sys.argv[1], int(sys.argv[2])))
print((peak() - idle) / 1024)
"""


def test_memory_does_not_follow_the_number_of_rows(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    words = [sys.executable, "-c", _WRITING, str(tmp_path / "rows.parquet"), str(ROWS)]  # 96 MiB of rows
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert float(done.stdout) < MOST
    assert [each.name for each in tmp_path.iterdir()] == ["rows.parquet"]  # nothing was laid aside on disk


async def test_rows_in_pieces_of_any_size_are_the_same_file(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    rows = [(f'"{n}", {"é" * (n % 50)}@example.com', "" if n % 3 else "de") for n in range(60_000)]
    whole = "".join('"{}","{}"\n'.format(*(each.replace('"', '""') for each in row)) for row in rows).encode()
    made = [await _made(tmp_path / f"{most}.parquet", _pieces(whole, most)) for most in (3000, 300_000, len(whole))]
    assert made[0] == made[1] == made[2]
    assert duckdb.read_parquet(str(tmp_path / "3000.parquet")).fetchall() == rows


async def _made(path: Path, pieces: Iterator[bytes]) -> bytes:
    async with parquet.written(path, ["address", "locale"]) as sink:
        for each in pieces:
            await sink(each)
    return path.read_bytes()


def _pieces(whole: bytes, most: int) -> Iterator[bytes]:
    chance, at = random.Random(most), 0
    while at < len(whole):
        size = chance.randint(1, most)
        yield whole[at : at + size]
        at += size
