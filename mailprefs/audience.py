"""Everyone who may be sent a topic: streamed, one statement, one snapshot.

PostgreSQL formats the rows, and Python builds none, unless links are minted or something is escaped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from mailprefs.catalogue import Scope
from mailprefs.db import Connection, queries, text
from mailprefs.errors import UnknownScope
from mailprefs.links import Links, mintable
from mailprefs.packing import Sink
from mailprefs.spelling import COLUMNS, MINTED, Speller
from mailprefs.words import Channel

LONGEST = (
    24 * 3600.0
)  # seconds that one in order may take, which nobody reads meanwhile; the others end with their connection's own patience
SLICE = 32_768  # bytes of rows that are spelt before the loop serves somebody else


class Format(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"


# JSON holds neither of these two bytes unescaped, so COPY has nothing to quote and gives the line as it is
_RAW: dict[str, Any] = {"format": "csv", "delimiter": "\x02", "quote": "\x01"}


async def stream(
    connection: Connection,
    topic: Scope,
    channel: Channel,
    sink: Sink,
    *,
    now: datetime,
    columns: Sequence[str] = ("address",),
    format: Format = Format.CSV,
    links: Links | None = None,
    spreadsheet: bool = False,
    order: str | None = None,
    seen: str | None = None,
) -> int:
    """Send every address that may be sent the topic to ``sink``, chunk by chunk, and return how many there were.

    CSV begins with a header row, in a chunk of its own. ``columns`` are some of COLUMNS, then, with the ``links`` of the topic's
    brand, some of MINTED. ``order``: None is as they lie; "ordered", by address, byte by byte; "recomputed", the same by the
    ledger alone, as a snapshot saw it (``seen``).
    Raises UnknownScope and NotMintable, before anything is sent, for what is no topic in use or no column.
    """
    known, minted = sound(topic, columns)
    if order is None:
        await queries("audience").by_two(connection)
    arguments = [list(topic.path), topic.wants(channel), channel.value, now]
    if order is None and not minted and not spreadsheet:
        return await _plain(connection, known, arguments, sink, format)
    speller = Speller(known if format is Format.CSV else (), minted, links, topic, spreadsheet)

    async def spelt(chunk: bytes) -> None:
        for start in range(0, len(chunk), SLICE):
            if lines := speller.spell(chunk[start : start + SLICE]):
                await sink(lines)
            await asyncio.sleep(0)

    if header := speller.header():
        await sink(header)
    listed = [*known, *(None for _ in COLUMNS[len(known) :])]
    chosen = [None, *listed] if format is Format.CSV else [known, *(None for _ in COLUMNS)]
    asked = [*chosen, *arguments, *([seen] if seen else [])]
    options = {"format": "csv", "timeout": LONGEST if order else None}
    return await _copy(connection, text("audience", order or "keyed"), asked, spelt, options)


def sound(topic: Scope, columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what is kept of an address, and what is minted for it, of the columns asked for.

    Raises UnknownScope for what is no topic in use, or not some of COLUMNS and then some of MINTED, each at most once; NotMintable for
    some of MINTED of a topic that has no links.
    """
    if not topic.is_topic or topic.retired:
        raise UnknownScope("there is no such topic to send")
    known, minted = [name for name in columns if name in COLUMNS], [name for name in columns if name in MINTED]
    if not known or len(set(columns)) < len(columns) or [*known, *minted] != list(columns):
        raise UnknownScope(f"the columns are some of: {', '.join(COLUMNS)}; then some of: {', '.join(MINTED)}; each once")
    if minted:
        mintable(topic)
    return known, minted


async def about(connection: Connection) -> int:
    """Return about how many addresses there are, whoever may be sent what."""
    return int(await queries("audience").about(connection))


async def _plain(connection: Connection, columns: Sequence[str], arguments: Sequence[Any], sink: Sink, format: Format) -> int:
    """Send what PostgreSQL spells by itself: nothing here looks at it."""
    if format is Format.NDJSON:
        return await _copy(connection, text("audience", "ndjson"), [list(columns), *arguments], sink, _RAW)
    await sink((",".join(columns) + "\n").encode())
    return await _copy(connection, text("audience", f"csv_{len(columns)}"), [*columns, *arguments], sink, {"format": "csv"})


async def _copy(connection: Connection, query: str, arguments: Sequence[Any], sink: Sink, options: dict[str, Any]) -> int:
    done = await connection.copy_from_query(query.rstrip().rstrip(";"), *arguments, output=sink, **options)
    return int(done.rpartition(" ")[2])
