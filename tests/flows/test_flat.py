"""A comparison of two long lists takes no more memory than one of two short ones. ``MAILPREFS_TEST_LISTED`` says how many people."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mailprefs.addresses import Addresses
from mailprefs.links import KeyRing

from .flat import NEWSLETTER, ODD_ONE, name

LISTED = int(os.environ.get("MAILPREFS_TEST_LISTED", "10000"))
SLACK = 24 * 1024  # KiB by which ten times as many people may be dearer
PROGRAM = Path(__file__).parent / "flat.py"


async def stopped(conn: asyncpg.Connection, people: range, addresses: Addresses) -> None:
    """These people have stopped here, long since, and the account was told."""

    def rows() -> Iterator[tuple[object, ...]]:
        for n in people:
            who = addresses.read(name(n))
            yield who.bucket, who.key, who.channel, who.text, [NEWSLETTER]

    await conn.copy_records_to_table("address", columns=("bucket", "key", "channel", "plaintext", "stops"), records=rows(), timeout=3600)
    await conn.execute("analyze address", timeout=600)


async def compared(url: str, people: int, ring: Path) -> dict[str, Any]:
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), url, str(people), str(ring), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await program.communicate()
    assert program.returncode == 0
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    sys.stdout.write(f"{people:,} against as many: {result['seconds']:.0f} s, at most {result['peak'] / 1024:.0f} MiB\n")
    return result


@pytest.mark.timeout(3600)
async def test_ten_times_as_many_people_take_no_more_memory(
    database: str, conn: asyncpg.Connection, addresses: Addresses, ring: KeyRing, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    keys.touch(0o600)
    keys.write_text(ring.dumped())
    few = LISTED // 10
    peaks = []
    for people in (range(few), range(few, LISTED)):
        await stopped(conn, people, addresses)
        result = await compared(database, people.stop, keys)
        odd = people.stop // ODD_ONE
        assert result["listed"] == people.stop
        assert result["found"] == {"theirs": 0, "stranger": odd, "ours": odd, "stale": 0, "unsettled": 0}
        peaks.append(result["peak"])
    assert peaks[1] < peaks[0] + SLACK
