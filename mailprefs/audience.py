"""Everyone who may be sent a topic: streamed, one statement, one snapshot. PostgreSQL formats the rows; Python never builds one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from mailprefs.catalogue import Scope
from mailprefs.db import Connection, text
from mailprefs.errors import UnknownScope
from mailprefs.words import Channel

COLUMNS = ("address", "locale", "region", "party")
Sink = Callable[[bytes], Coroutine[Any, Any, None]]


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
) -> int:
    """Send every address that may be sent the topic to ``sink``, chunk by chunk, and return how many there were.

    CSV begins with a header row. Raises UnknownScope, before anything is sent, for what is no topic in use or no column.
    """
    sound(topic, columns)
    arguments = [list(topic.path), topic.wants(channel), channel.value, now]
    if format is Format.NDJSON:
        return await _copy(connection, text("audience", "ndjson"), [list(columns), *arguments], sink, _RAW)
    await sink((",".join(columns) + "\n").encode())
    return await _copy(connection, text("audience", f"csv_{len(columns)}"), [*columns, *arguments], sink, {"format": "csv"})


def sound(topic: Scope, columns: Sequence[str]) -> None:
    """Raise UnknownScope for what is no topic in use, or not one of COLUMNS each at most once."""
    if not topic.is_topic or topic.retired:
        raise UnknownScope("there is no such topic to send")
    if not columns or len(set(columns)) < len(columns) or not set(columns) <= set(COLUMNS):
        raise UnknownScope(f"the columns are some of: {', '.join(COLUMNS)}; each once")


async def _copy(connection: Connection, query: str, arguments: Sequence[Any], sink: Sink, options: dict[str, Any]) -> int:
    done = await connection.copy_from_query(query.rstrip().rstrip(";"), *arguments, output=sink, **options)
    return int(done.rpartition(" ")[2])
