"""Soft bounces are counted, not recorded: enough of them within a window put an address on hold for a while, which ends by itself.

The hold is derived from the set of bounces, never from the order in which they came: it counts from the latest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailprefs.db import Connection, queries
from mailprefs.words import ROOT, Address, Cause, Change, Door, Effect


@dataclass(frozen=True, slots=True)
class Policy:
    """How many soft bounces within which window put an address on hold, and for how long."""

    threshold: int
    window: timedelta
    hold: timedelta


@dataclass(frozen=True, slots=True)
class SoftBounce:
    """One soft bounce: whose, when, and the name that its teller gave it."""

    address: Address
    id: str
    at: datetime


async def count(
    connection: Connection, bounces: Sequence[SoftBounce], policy: Policy, *, door: Door, by: str, now: datetime
) -> list[Change]:
    """Remember soft bounces, in the caller's transaction, and return the holds that are now due. A bounce told twice counts once."""
    rows = queries("softbounces").count(
        connection,
        bucket=[bounce.address.bucket for bounce in bounces],
        key=[bounce.address.key for bounce in bounces],
        id=[bounce.id for bounce in bounces],
        at=[min(bounce.at, now) for bounce in bounces],
        threshold=policy.threshold,
        window=policy.window,
    )
    addresses = {bounce.address.key: bounce.address for bounce in bounces}
    return [
        Change(addresses[row["key"]], ROOT, Cause.SOFT, Effect.STOP, door, f"soft/{row['id']}", row["at"], row["at"] + policy.hold, by)
        async for row in rows
    ]


async def forget(connection: Connection, policy: Policy, *, now: datetime) -> None:
    """Drop the bounces that no window will ever reach again."""
    await queries("softbounces").forget(connection, before=now - policy.window * 2)
