"""Run as a program: compare a provider's list of so many people, who are made up as they are read, with ours; say what it took."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import cast

import asyncpg
from aiohttp import ClientSession

from mailprefs.addresses import Addresses
from mailprefs.links import KeyRing
from mailprefs.providers.base import Credential, Listed, Provider
from mailprefs.reconcile import Books
from mailprefs.words import Channel

NEWSLETTER, GROUP = 272, "12345"
ODD_ONE = 500  # one in so many is missing there, and as many there are strangers here
LEFT = datetime(2026, 11, 1, tzinfo=UTC)


def name(n: int) -> str:
    return f"person{n:08}@example.org"


class Long:
    """A provider whose list is long."""

    channel = Channel.EMAIL

    def __init__(self, people: int) -> None:
        self.people = people

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        for n in range(self.people):
            yield Listed(name(n + self.people * (n % ODD_ONE == 0)), group, LEFT)


async def compared(url: str, people: int, addresses: Addresses) -> dict[str, object]:
    connection = await asyncpg.connect(url, server_settings={"timezone": "UTC"}, command_timeout=3600)
    said = cast(Provider, Long(people)), Credential("sendgrid-main", {}), {NEWSLETTER: GROUP}, {NEWSLETTER: "newsletter"}
    now = LEFT + timedelta(days=20)
    began = time.monotonic()
    books = Books("sendgrid-main", 1, *said, connection, cast(ClientSession, None), addresses, lambda: now)
    (report,) = await books.compare(heal=False)
    await connection.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    return {"listed": report.listed, "found": dict(report.found), "peak": peak, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    url, people, ring = sys.argv[1:]
    sys.stdout.write("\n" + json.dumps(asyncio.run(compared(url, int(people), Addresses(KeyRing.load(ring).digest)))))
