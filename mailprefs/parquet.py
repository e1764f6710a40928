"""Rows of CSV become a Parquet file, by DuckDB, while they come."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from mailprefs import files
from mailprefs.errors import Misconfigured, NotInstalled
from mailprefs.packing import Sink

MEMORY = "128MB"  # that DuckDB takes at most
GROUP = 20_480  # rows, and somewhat more, that are packed together, and held in memory until then
BUFFER = 512 * 1024  # bytes that are read of the rows at once; a row may have half as many


def duckdb() -> Any:
    """Return the library. Raises NotInstalled where the extra is not."""
    try:
        import duckdb
    except ImportError:
        raise NotInstalled("Parquet wants DuckDB. In the folder of mailprefs: .venv/bin/pip install '.[parquet]'") from None
    return duckdb


@asynccontextmanager
async def written(path: Path, columns: Sequence[str]) -> AsyncIterator[Sink]:
    """Lend a sink for CSV without a header, which is a Parquet file at ``path`` when the block has ended. Each column is text.

    Raises Misconfigured where DuckDB is not installed, or cannot write it.
    """
    library, loop = duckdb(), asyncio.get_running_loop()
    # One hand reads while the other writes, and then closes. They are of this file alone: of those that all share, the last could be taken
    # by readers that wait for what none is left to write.
    with files.scratch() as scratch, ThreadPoolExecutor(2) as hands:
        end, begin = os.pipe()
        file = os.fdopen(begin, "wb", 0)
        reading = loop.run_in_executor(hands, _read, library, end, path, columns, scratch)

        async def sink(chunk: bytes) -> None:
            try:
                await loop.run_in_executor(hands, _all, file, chunk)
            except BrokenPipeError:
                await reading  # which says why it reads no more
                raise

        try:
            yield sink
        finally:
            hands.submit(file.close)  # behind what is being written, if whoever wrote it was broken off
            with suppress(Exception):
                await asyncio.shield(reading)
        await reading


def _all(file: Any, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]


def _read(library: Any, pipe: int, path: Path, columns: Sequence[str], scratch: Path) -> None:
    """Read a pipe to its end, or as far as it goes, and close it, so that no writer waits for somebody to read. Raises Misconfigured."""
    try:
        _convert(library, pipe, path, columns, scratch)
    except library.Error as error:
        why = error if isinstance(error, library.IOException) else type(error).__name__  # what it says of a row repeats the row
        raise Misconfigured(f"the Parquet file cannot be written: {why}") from None
    finally:
        os.close(pipe)


def _convert(library: Any, pipe: int, path: Path, columns: Sequence[str], scratch: Path) -> None:
    """Make Parquet of what comes through a pipe. Nothing in it is guessed: every column is text, and an empty text is no null.

    It reads "in parallel", by one thread: the other way it lets go of nothing that came through a pipe before the end, first in memory and
    then on disk. So no field may hold the end of a line: DuckDB refuses such rows, and `bulk` lets none in.
    """
    config = {"threads": 1, "memory_limit": MEMORY, "temp_directory": str(scratch)}
    with library.connect(":memory:", config=config) as connection:
        connection.execute("set enable_progress_bar = false")  # after two seconds it would stand on stdout, among what is written there
        rows = connection.read_csv(
            f"/dev/fd/{pipe}",  # and no name in a folder: the two ends of one wait for each other to be opened
            header=False,
            columns=dict.fromkeys(columns, "VARCHAR"),
            auto_detect=False,
            delimiter=",",
            quotechar='"',
            escapechar='"',
            allow_quoted_nulls=False,
            parallel=True,
            buffer_size=BUFFER,
            max_line_size=BUFFER // 2,
        )
        rows.write_parquet(str(path), compression="zstd", row_group_size=GROUP)
