"""Rows of CSV become a Parquet file, by DuckDB, while they come."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from mailprefs.errors import Misconfigured
from mailprefs.packing import Sink

MEMORY = "128MB"  # that DuckDB takes at most
GROUP = 20_480  # rows, and somewhat more, that are packed together, and held in memory until then
BUFFER = 512 * 1024  # bytes that are read of the rows at once; a row may have half as many


def duckdb() -> Any:
    """Return the library. Raises Misconfigured where the extra is not installed."""
    try:
        import duckdb
    except ImportError:
        raise Misconfigured("Parquet wants DuckDB. In the folder of mailprefs: .venv/bin/pip install '.[parquet]'") from None
    return duckdb


@asynccontextmanager
async def written(path: Path, columns: Sequence[str]) -> AsyncIterator[Sink]:
    """Lend a sink for CSV without a header, which is a Parquet file at ``path`` when the block has ended. Each column is text.

    Raises Misconfigured where DuckDB is not installed.
    """
    library = duckdb()
    with tempfile.TemporaryDirectory(prefix="mailprefs-") as folder:
        pipe = Path(folder) / "rows"
        os.mkfifo(pipe, 0o600)
        reading = asyncio.create_task(asyncio.to_thread(_convert, library, pipe, path, columns))
        file = await asyncio.to_thread(pipe.open, "wb", 0)
        try:

            async def sink(chunk: bytes) -> None:
                await asyncio.to_thread(_all, file, chunk)

            yield sink
        except BaseException:
            with suppress(Exception):
                file.close()
                await reading
            raise
        else:
            file.close()
            await reading
        finally:
            file.close()


def _all(file: Any, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]


def _convert(library: Any, pipe: Path, path: Path, columns: Sequence[str]) -> None:
    """Read the pipe to its end. Nothing in it is guessed: every column is text, and an empty text is no null.

    It reads "in parallel", by one thread: the other way it lets go of nothing that came through a pipe before the end, first in memory and
    then on disk. So no field may hold the end of a line: DuckDB refuses such rows, and `bulk.ONE_LINE` lets none in.
    """
    config = {"threads": 1, "memory_limit": MEMORY, "temp_directory": str(pipe.parent)}
    with library.connect(":memory:", config=config) as connection:
        rows = connection.read_csv(
            str(pipe),
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
