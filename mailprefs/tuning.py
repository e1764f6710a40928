"""What our own PostgreSQL is told when it starts: how much it may take of the machine, and that it writes nothing down of anybody."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

SHARE = 4  # of the memory that there is, one part is for pages of the database; and of the disk that is free, one for the log
BUFFERS = (128, 8192)  # MB at least, which is PostgreSQL's own; and at most: keys are random, and those of a hundred million addresses fit
WAL = (1024, 16384)  # MB of log between checkpoints, after each of which changes log whole pages; PostgreSQL's own is the least
QUIET = {  # nothing a person typed is ever in the log: not as DETAIL, not as a statement, not in an ERROR
    "log_error_verbosity": "terse",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}


def settings(home: Path) -> dict[str, str]:
    """Return them for a cluster in ``home``, by their names."""
    return {**QUIET, "shared_buffers": buffers(), "max_wal_size": wal_size(home)}


def buffers(bound: Path = Path("/sys/fs/cgroup/memory.max")) -> str:
    """Return how much memory is for pages, as PostgreSQL spells it. It is taken as it is needed."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no such file, or "max": not bounded
        there = min(there, int(bound.read_text()))
    return _share(there, BUFFERS)


def wal_size(home: Path) -> str:
    """Return how long the log may become before a checkpoint, as PostgreSQL spells it. Most of it is given back."""
    return _share(shutil.disk_usage(home).free, WAL)


def _share(there: int, bounds: tuple[int, int]) -> str:
    least, most = bounds
    return f"{min(max((there >> 20) // SHARE, least), most)}MB"
