"""What comes by mail: each letter changes what it says and nothing else, and none is lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from mailprefs.mailroom import Mailroom

from .postbox import ENTRIES, Postbox, aside, counted, rows, soft


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
async def test_every_letter_of_the_corpus_does_what_it_says_and_nothing_else(
    conn: asyncpg.Connection, room: Mailroom, box: Postbox, now: datetime, entry: Mapping[str, Any]
) -> None:
    await room.record(conn, room.read(box.letter(entry), now=now), now=now)
    assert await rows(conn) == box.expected(entry)
    assert await soft(conn) == {box.addresses.heard(whose).key for whose in entry.get("soft", ())}
    assert await aside(conn) == ([entry["aside"]] if "aside" in entry else [])
    found = await counted(conn)
    assert {kind: found.get(kind, 0) for kind in entry.get("counted", {})} == entry.get("counted", {})
