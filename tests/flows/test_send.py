"""A send from a kept export, while people leave by every door: nobody is mailed who had left when their batch was last asked about.

``MAILPREFS_TEST_SENT`` says how many messages there are.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import asyncpg
import pytest

from mailprefs import directory
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.client import AsyncClient
from mailprefs.directory import Entry
from mailprefs.exports import Maker
from mailprefs.links import KeyRing
from mailprefs.sandbox import sendgrid
from mailprefs.settings import Settings

from .doors import Doors, opened
from .gateway import PRESSED, Page

MESSAGES = int(os.environ.get("MAILPREFS_TEST_SENT", "2000"))
BATCHES = 40 if MESSAGES < 10_000 else 200
LEAVERS = 6  # who leave at once
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
AT = 1_790_000_000  # when a provider's events happened

People = Mapping[str, str]  # the path of the link, by address


class Crash(Exception):
    """The sender is gone, and all that it knew but its notebook."""


@pytest.fixture
async def doors(
    database: str, shared_catalogue: Catalogue, ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Doors]:
    monkeypatch.setenv("MAILPREFS_DATA", str(tmp_path))
    async with opened(database, shared_catalogue, ring) as lent:
        yield lent


async def exported(doors: Doors, conn: asyncpg.Connection, maker: Maker, addresses: Addresses, messages: int) -> tuple[str, People]:
    """Make an export of so many people, with their links, and return its URL and what is in it."""
    for n in range(0, messages, 1000):
        batch = [Entry(addresses.read(f"someone{each}@example.org")) for each in range(n, min(n + 1000, messages))]
        await directory.know(conn, batch, now=datetime.now(UTC))
    wanted = {"topic": "newsletter", "purpose": "a send", "links": True}
    async with doors.http.post(f"{doors.base}/v1/exports", json=wanted, headers=doors.bearer) as answer:
        url = doors.base + answer.headers["Location"]
    assert await maker.round(conn)
    async with doors.http.get(f"{url}/file", headers=doors.bearer) as answer:
        found = csv.DictReader(io.StringIO(await answer.text()))
        return url, {row["address"]: urlsplit(row["url"]).path for row in found}


@dataclass
class Leaving:
    """People who leave, by one-click, on the page and by what their provider tells, and when each of them had been told that it is so."""

    doors: Doors
    people: People
    plan: list[str]  # who is still to leave
    at: dict[str, float] = field(default_factory=dict)
    by: Counter[str] = field(default_factory=Counter)

    async def live(self) -> None:
        while self.plan:
            who = self.plan.pop()
            way = (self.one_click, self.page, self.webhook)[len(self.plan) % 3]
            assert await way(who) == 200
            self.at[who] = time.monotonic()
            self.by[way.__name__] += 1

    async def one_click(self, who: str) -> int:
        async with self.doors.http.post(self.doors.base + self.people[who], data=ONE_CLICK) as answer:
            return answer.status

    async def page(self, who: str) -> int:
        url = self.doors.base + self.people[who]
        async with self.doors.http.get(url, headers=PRESSED) as answer:
            form = Page(await answer.text()).forms[0]
        async with self.doors.http.post(url, data=next(form.sent()), headers=PRESSED) as answer:
            return answer.status

    async def webhook(self, who: str) -> int:
        event = {"event": "spamreport", "email": who, "sg_event_id": who, "timestamp": AT}
        body = json.dumps([event]).encode()
        signed = sendgrid.sign(self.doors.signing_key, str(int(time.time())), body)
        async with self.doors.http.post(f"{self.doors.base}/hooks/sendgrid-main", data=body, headers=signed) as answer:
            return answer.status


@dataclass
class Sent:
    """What was sent, over all the lives of a sender: to whom, and when their batch was last asked about."""

    asked_at: dict[str, float] = field(default_factory=dict)
    crashes: int = 0

    def wrongly(self, leaving: Leaving) -> list[str]:
        """Return who was mailed though they had left before that."""
        return [who for who, asked in self.asked_at.items() if leaving.at.get(who, asked) < asked]


@dataclass
class Sender:
    """One life of a sender. What outlives it is its notebook: who is out, how far the feed was read, how many were sent."""

    doors: Doors
    export: str
    order: list[str]
    notebook: Path
    sent: Sent
    dice: Random
    how: str
    batch: int

    def __post_init__(self) -> None:
        self.notebook.mkdir(exist_ok=True)
        self.gone = set(self._read("gone").splitlines())
        self.cursor = self._read("cursor")
        self.done = int(self._read("done") or 0)

    def _read(self, name: str) -> str:
        path = self.notebook / name
        return path.read_text() if path.exists() else ""

    def _may_crash(self) -> None:
        if self.dice.random() < 0.05:
            self.sent.crashes += 1
            raise Crash

    async def send(self, leaving: Leaving) -> None:
        """Send to all, batch by batch, each asked about right before; people leave meanwhile, in step."""
        leave = len(leaving.plan) + len(leaving.at)
        while self.done < len(self.order):
            while leaving.plan and len(leaving.at) < leave * self.done / len(self.order):
                await asyncio.sleep(0.001)
            batch = self.order[self.done : self.done + self.batch]
            asked = await self._asked(batch)
            for who in batch:
                if who not in self.gone:
                    self.sent.asked_at[who] = asked
                self.done += 1
            (self.notebook / "done").write_text(f"{self.done}")
            self._may_crash()

    async def _asked(self, batch: list[str]) -> float:
        """Take whoever left out, and return the moment from which on that may be missed."""
        if self.how == "feed":
            return await self._heard()
        asked = time.monotonic()
        if self.how == "guard":
            async with AsyncClient(self.doors.base, self.doors.api_key, timeout=30) as client:
                self.gone |= {answer.address for answer in await client.decide((who, "newsletter") for who in batch) if not answer.allowed}
        return asked

    async def _heard(self) -> float:
        """Read the feed until there is no more of it, and write down first who left and then how far that was."""
        more, wait = True, "0.2"
        while more:
            asked = time.monotonic()
            where = {"after": self.cursor} if self.cursor else {}
            async with self.doors.http.get(f"{self.export}/revoked", params=where | {"wait": wait}, headers=self.doors.bearer) as answer:
                said = await answer.json()
            self._may_crash()
            new = {each["address"] for each in said["items"] if not each["back"]}
            with (self.notebook / "gone").open("a") as file:
                file.writelines(f"{who}\n" for who in new)
            self.gone |= new
            self._may_crash()
            self.cursor, more, wait = said["next"], said["more"], "0"
            (self.notebook / "cursor").write_text(self.cursor)
        return asked


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", ["feed", "guard", "nothing"])
async def test_a_send_that_asks_before_each_batch_mails_nobody_who_left_and_one_that_does_not_does(
    doors: Doors, conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, ring: KeyRing, tmp_path: Path, how: str
) -> None:
    maker = Maker(Settings().home.absolute() / "exports", shared_catalogue, ring, lambda: datetime.now(UTC))
    messages = MESSAGES if how == "feed" else 400
    export, people = await exported(doors, conn, maker, addresses, messages)
    assert len(people) == messages
    dice = Random(7)
    order = dice.sample(sorted(people), messages)
    leaving = Leaving(doors, people, dice.sample(order, messages // 10))
    sent = Sent()
    leavers = [asyncio.create_task(leaving.live()) for _ in range(LEAVERS)]
    over = False
    while not over:
        try:
            await Sender(doors, export, order, tmp_path / "notebook", sent, dice, how, max(messages // BATCHES, 1)).send(leaving)
            over = True
        except Crash:
            continue
    await asyncio.gather(*leavers)
    wrongly = sent.wrongly(leaving)
    kept = len([who for who in leaving.at if who not in sent.asked_at])
    sys.stdout.write(
        f"{how}: {messages:,} messages, {dict(leaving.by)} left meanwhile, {kept:,} of them were not mailed, {sent.crashes} crashes, "
        f"{len(wrongly)} were mailed though they had left before they were asked about\n"
    )
    if how == "nothing":
        assert wrongly, "the control: there was somebody to miss"
    else:
        assert wrongly == []
        assert kept > messages // 50
        assert sent.crashes
