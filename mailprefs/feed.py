"""The ledger read in the order in which it was recorded, from a place onwards: every row once, with no gaps, whatever commits late."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from mailprefs.db import Connection, queries

NOBODY = UUID(int=0)
EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a reader stands: behind this row of the ledger."""

    position: int  # of the transaction that recorded it
    bucket: int = 0
    key: UUID = NOBODY
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of the ledger as it is told to others, with what is known of its address, and how its scope stands now."""

    place: Place
    scope: int
    cause: str
    effect: str
    door: str
    at: datetime
    received_at: datetime
    until: datetime | None
    stopped: bool
    text: str | None
    channel: str | None
    party: str | None


async def after(connection: Connection, place: Place, *, most: int, now: datetime, since: datetime = EVER) -> list[Fact]:
    """Return what was recorded after a place, and not before a time, the earliest first."""
    where = {"position": str(place.position), "bucket": place.bucket, "key": place.key, "evidence": place.evidence}
    return [
        Fact(
            Place(int(row["position"]), row["bucket"], row["key"], row["evidence"]),
            row["scope"],
            row["cause"],
            row["effect"],
            row["door"],
            row["at"],
            row["received_at"],
            row["until"],
            row["stopped"],
            row["plaintext"],
            row["channel"],
            row["party"],
        )
        async for row in queries("feed").after(connection, **where, most=most, now=now, since=since)
    ]


async def since(connection: Connection, at: datetime) -> Place | None:
    """Return the place before everything that was recorded from a time on; None if nothing was."""
    position = await queries("feed").first_since(connection, since=at)
    return Place(int(position)) if position else None
