"""The way to a Citus cluster, statement by statement: it takes no two of such calls in one. And a stand-in, where there is none."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg

from mailprefs import shipped


def statements() -> list[str]:
    """Return those of sql/citus.sql, without its comments."""
    text = re.sub(r"^--[^\n]*", "", (shipped.folder("sql") / "citus.sql").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [each.strip() for each in re.split(r";(?=\s*(?:\n\n|$))", text) if each.strip()]


async def spread(connection: asyncpg.Connection) -> None:
    """Spread the tables of a migrated database over its cluster."""
    for each in statements():
        await connection.execute(each)


async def stand_in(connection: asyncpg.Connection) -> None:
    """Let a database take the calls of sql/citus.sql: it refuses the tables that Citus refuses, and moves nothing."""
    await connection.execute((Path(__file__).parent / "double_of_citus.sql").read_text(encoding="utf-8"))
