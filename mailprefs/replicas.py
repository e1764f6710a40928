"""A standby for the reads that may be a little old: audiences, and the files of exports. Never for a decision, a page, or who left since.

Whatever speaks against the standby, the primary is read in its stead, and the log says what it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta

from pydantic import SecretStr

from mailprefs import db, numbers, telemetry
from mailprefs.catalogue import Catalogue
from mailprefs.db import Connection, queries
from mailprefs.errors import Misconfigured

LAG = timedelta(seconds=30)  # how far behind the primary a standby may be
SPAN = 10_000  # transactions that a standby may see beyond the oldest one under way: an export names each that it does not see
ANSWER = 3.0  # seconds in which it must say how far it is


@asynccontextmanager
async def reading(primary: Connection, url: SecretStr | None, catalogue: Catalogue, *, now: datetime) -> AsyncIterator[Connection]:
    """Lend a connection to the standby at ``url`` if it is at most LAG behind and of our release, else the primary itself."""
    standby = await _fit(primary, url.get_secret_value(), catalogue, now) if url else None
    try:
        yield standby or primary
    finally:
        if standby:
            standby.terminate()


async def _fit(primary: Connection, url: str, catalogue: Catalogue, now: datetime) -> Connection | None:
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(ANSWER):
                standby = await db.connect(url)
                stack.callback(standby.terminate)
                why = await _unfit(primary, standby, catalogue, now)
        except Misconfigured:
            why = "no_url"
        except Exception as error:
            if not db.is_trouble(error):
                raise
            why = "away"
        if why is None:
            stack.pop_all()
            return standby
    telemetry.count("standby_not_read", why=why)
    telemetry.log.warning("standby_not_read", why=why)
    return None


async def _unfit(primary: Connection, standby: Connection, catalogue: Catalogue, now: datetime) -> str | None:
    """Return what speaks against reading there, as a code."""
    ahead = await queries("replicas").written(primary)
    row = await queries("replicas").replayed(standby, written=ahead["written"], recent=now - LAG)
    if not row["is_standby"] or row["system"] != ahead["system"]:
        return "no_standby_of_ours"  # promoted, or of another server: what it lacks it may lack for ever
    if row["is_behind"]:
        return "behind"
    if row["span"] > SPAN:
        return "long_transaction"
    try:
        await numbers.current(standby, catalogue)
    except Misconfigured:
        return "older_release"
    return None
