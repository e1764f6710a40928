"""Who left since an export was made: complete from any cursor, whatever commits late.

A cursor is a snapshot of the ledger. What one snapshot does not see and a later one does was recorded between them: each row once,
in whatever order transactions began. A number that counts up would pass over a row that commits after its successor
(docs/audiences.md).
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from mailprefs.catalogue import Catalogue
from mailprefs.db import Connection, in_one_order, queries
from mailprefs.errors import Expired, NotMade, Outdated, Unreadable
from mailprefs.exports import Export
from mailprefs.words import BUCKETS

MOST = 1000  # rows of the ledger that are looked at at once
_NOWHERE = (0, 0, UUID(int=0), "")
_BOUND = 1 << 63
_SNAPSHOT = re.compile(r"[0-9]+:[0-9]+:(?:[0-9]+(?:,[0-9]+)*)?")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader stands: all that ``after`` saw is behind it, and of what ``upto`` saw besides, all up to a row of the ledger."""

    after: str
    upto: str | None = None
    place: tuple[int, int, UUID, str] = _NOWHERE

    def __str__(self) -> str:
        position, bucket, key, evidence = self.place
        raw = json.dumps([self.after, self.upto, position, bucket, key.hex, evidence] if self.upto else [self.after], separators=(",", ":"))
        return urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def read(text: str) -> Cursor:
    """Return the cursor that a text is. Raises Unreadable."""
    try:
        after, *more = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        _xmax(after)
        if not more:
            return Cursor(after)
        upto, position, bucket, key, evidence = more
        _xmax(upto)
        if not (type(position) is type(bucket) is int and 0 <= position < _BOUND and 0 <= bucket < BUCKETS and "\0" not in evidence):
            raise ValueError
        evidence.encode()  # JSON can spell half a character
        return Cursor(after, upto, (position, bucket, UUID(hex=key), evidence))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Unreadable("that is no cursor; give back 'next' as it came, or none to begin at the export") from None


def _xmax(snapshot: str) -> int:
    """Return the end of a snapshot. Raises ValueError unless it is one as pg_snapshot is written."""
    if not _SNAPSHOT.fullmatch(snapshot):
        raise ValueError
    low, high, between = snapshot.split(":")
    running = [int(each) for each in between.split(",")] if between else []
    bounds = [int(low), *running, int(high)]
    if bounds[0] < 1 or bounds[-1] >= _BOUND or running != sorted(set(running)) or bounds != sorted(bounds):
        raise ValueError
    if running and running[-1] >= bounds[-1]:
        raise ValueError
    return bounds[-1]


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody who was in an export and has been stopped since; ``back`` where they may be sent again by now."""

    key: UUID
    text: str | None
    at: datetime  # when it was recorded
    back: bool


async def page(
    connection: Connection, export: Export, catalogue: Catalogue, cursor: Cursor | None, *, now: datetime, most: int = MOST
) -> tuple[list[Left], Cursor, bool]:
    """Return who left next, where a reader then stands, and whether there is more to look at now.

    Raises NotMade, Expired, NotOnACluster, and Outdated for a topic whose own rule changed, so that more have left than the ledger says,
    or where the database was restored, so that nobody knows who left after what the export saw.
    """
    topic = catalogue.by_number.get(export.scope)
    if export.state(now) == "expired":
        raise Expired
    if export.snapshot is None or export.as_of is None:
        raise NotMade
    if topic is None or topic.retired or topic.wants(export.channel) > export.wants:
        raise Outdated
    await in_one_order(connection)
    where = cursor or Cursor(export.snapshot)
    horizon = await _horizon(connection)
    upto = where.upto or horizon
    if _xmax(export.snapshot) > _xmax(horizon):
        raise Outdated("the database was restored since the export was made. Make a new one.")
    if max(map(_xmax, (where.after, upto))) > _xmax(horizon):
        raise Unreadable("that is a cursor of another database, or of this one before it was restored")
    position, bucket, key, evidence = where.place
    asked = {"after": where.after, "upto": upto, "position": str(position), "bucket": bucket, "key": key, "evidence": evidence}
    rule: dict[str, Any] = {"path": list(topic.path), "wants": export.wants, "channel": export.channel.value}
    rows = [
        row
        async for row in queries("exports").left(connection, **asked, **rule, seen=export.snapshot, as_of=export.as_of, now=now, most=most)
    ]
    if not rows:
        return [], Cursor(upto), where.upto is not None  # what a former page saw is read to its end; whoever left since is not in it
    last = rows[-1]
    found = [Left(row["key"], row["plaintext"], row["received_at"], row["back"]) for row in rows if row["gone"]]
    return found, Cursor(where.after, upto, (int(last["position"]), last["bucket"], last["key"], last["evidence"])), True


async def _horizon(connection: Connection) -> str:
    """Return what is seen of the ledger now, once it is on disk.

    What was given up is behind a reader too. If a crash lost its end, its number would be given again: to somebody who leaves, and whom
    the reader would never hear of.
    """
    found = await queries("exports").horizon(connection)
    if not found["is_kept"]:
        await queries("exports").keep(connection)
    return str(found["seen"])
