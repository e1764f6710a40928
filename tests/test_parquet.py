"""Rows of CSV become Parquet in little memory, whatever their number, and the same bytes each time."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from mailprefs import parquet, shapes
from mailprefs.errors import Misconfigured
from mailprefs.packing import Sink
from mailprefs.shapes import Shape

MOST = 48  # MiB, beside what DuckDB itself takes when it is opened: 18 to 29 at most times, of rows that take twice as much
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
        await asyncio.sleep(2.2 * (rows > 1000))  # from two seconds on DuckDB would show on stdout how far it is

asyncio.run(made(sys.argv[1], 1000))
idle = peak()
asyncio.run(made(sys.argv[1], int(sys.argv[2])))
print((peak() - idle) / 1024)
"""


def test_memory_does_not_follow_the_number_of_rows_and_nothing_is_shown_of_them(tmp_path: Path) -> None:
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


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("columns", "row", "size", "why"),
    [
        (["address"], b"jane@example.com\n", 10, "No space left"),  # all of it is in the pipe before anything is written
        (["address"], b"jane@example.com\n", 300_000, "No space left"),
        (["address"], b"jane@example.com,de\n", 300_000, "InvalidInput"),
        ([], b"\n", 10, "Binder"),  # before the pipe is read at all
    ],
)
async def test_what_cannot_be_written_is_said_at_once_without_a_word_of_the_rows(
    columns: list[str], row: bytes, size: int, why: str
) -> None:
    pytest.importorskip("duckdb")

    async def write() -> None:
        async with parquet.written(Path("/dev/full"), columns) as sink:
            for _ in range(0, size, 1000):
                await sink(row * 1000)

    before = _open()
    with pytest.raises(Misconfigured, match=why) as error:
        await write()
    assert "jane" not in str(error.value)
    assert _open() == before


@pytest.mark.timeout(60)
async def test_who_breaks_off_leaves_no_thread_and_no_file_open(tmp_path: Path) -> None:
    """However often: each is broken off in the middle of a write, of which there is always one more."""
    pytest.importorskip("duckdb")

    async def write() -> None:
        async with parquet.written(tmp_path / "rows.parquet", ["address"]) as sink:
            while True:
                await sink(b"jane@example.com\n" * 50_000)

    before = _open(), threading.active_count()
    for _ in range(10):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(write(), 0.05)
    assert (_open(), threading.active_count()) == before


def _open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("through", [parquet.written, lambda path, columns: shapes.delivered(Shape(columns, "parquet"), sinking)])
async def test_a_folder_that_cannot_be_made_is_no_trouble_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: Callable[..., AbstractAsyncContextManager[Sink]]
) -> None:
    """Neither what DuckDB has no memory for, nor the file itself before it is whole."""
    pytest.importorskip("duckdb")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(Misconfigured, match="cannot be made where TMPDIR says: No such file or directory"):
        async with through(tmp_path / "out.parquet", ("address",)):
            raise AssertionError("there is nothing to write to")


async def sinking(chunk: bytes) -> None:
    raise AssertionError("nothing is whole")
