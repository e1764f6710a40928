"""One definition of "may be sent": whoever asks, in whatever way, about any address, topic and channel, gets one answer."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest

from mailprefs import catalogue, decisions, directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.audience import Format
from mailprefs.decisions import Question
from mailprefs.directory import Entry
from mailprefs.links import KeyRing, Links

from .doors import opened
from .voices import SECOND_BRAND, World, text_of


@pytest.fixture
async def world(
    database: str, conn: asyncpg.Connection, ring: KeyRing, addresses: Addresses, links: Links, now: datetime
) -> AsyncIterator[World]:
    both = catalogue.parse((Path(__file__).parent.parent / "catalogue.toml").read_text() + SECOND_BRAND)
    clock = [now]
    async with opened(database, both, ring, clock=lambda: clock[-1]) as doors:
        yield World(doors, conn, both, addresses, links, Random(), clock)


@pytest.mark.parametrize("seed", [1, None], ids=["same", "fresh"])
async def test_whoever_asks_gets_one_answer(world: World, seed: int | None) -> None:
    seed = Random().randrange(1 << 32) if seed is None else seed
    sys.stdout.write(f"seed {seed}\n")
    world.random.seed(seed)
    rows = await world.live()
    answers: set[bool] = set()
    for days in (0, 5, 200):  # timed holds end in between, and nothing runs when they do
        world.clock.append(world.now + timedelta(days=days))
        assert await world.disagreements() == []
        answers |= set((await world.allowed()).values())
    assert answers == {True, False}
    sys.stdout.write(f"{rows:,} rows, {len(world.town.everyone)} addresses, {len(world.topics)} topics, 3 moments: 0 disagreements\n")


COLUMNS = ("stops", "goes", "grants", "claims", "pauses")


async def test_a_summary_altered_by_hand_is_noticed(world: World) -> None:
    """The control: what makes one voice wrong makes it differ from another. Each column of one address, in turn."""
    world.random.seed(1)
    await world.live()
    people = {one.key: one for one in world.town.everyone}
    before = await world.allowed()
    for column in COLUMNS:
        for found in await world.conn.fetch("select key, stops, goes, grants, claims, pauses::text pauses from address order by key"):
            row = dict(found)
            if row[column] is not None:
                await written(world.conn, {**row, column: None})
                if not (await world.allowed([people[row["key"]]])).items() <= before.items():  # else what is left says the same
                    break
                await written(world.conn, row)
        else:
            raise AssertionError(f"{column} matters to nobody")
        assert await ledger.differing(world.conn) == 1
        assert await world.by_ledger() != await world.allowed()
        if column == COLUMNS[0]:  # all voices at once see no more of it, at five times the price
            assert any(one.startswith("ledger: ") for one in await world.differing())
        await written(world.conn, row)
    assert await world.disagreements() == []


async def written(conn: asyncpg.Connection, row: Mapping[str, Any]) -> None:
    """Write a summary past the ledger."""
    await conn.execute(
        "update address set stops = $2, goes = $3, grants = $4, claims = $5, pauses = $6::text::pause[] where key = $1",
        row["key"],
        *(row[column] for column in COLUMNS),
    )


async def test_an_audience_holds_nobody_whose_text_is_unknown(world: World) -> None:
    await world.live()
    unknown = {text_of(one) for one in [*world.town.keyed, *world.town.strangers]}
    base = await world.allowed()
    assert sum(base[text, topic.number] for text in unknown for topic in world.topics) > 100, "they may be sent, but nobody can"
    async for _, _, _, texts in world.audiences():
        assert not unknown & set(texts)
    someone = next(one for one in world.town.keyed if one.channel and base[text_of(one), 288])
    await directory.know(world.conn, [Entry(someone)], now=world.now)
    assert someone.channel
    texts = await world.audience(world.catalogue.topic("orders"), someone.channel, Format.CSV)
    assert text_of(someone) in texts, "the control: now it is known"


async def test_a_retired_topic_is_sent_to_nobody(world: World) -> None:
    question = Question(world.addresses.read("p1@example.org"), "p1@example.org", "second/gone")
    (answer,) = await decisions.decide(world.conn, [question], world.catalogue, now=world.now)
    assert not answer.allowed
    async with world.doors.http.get(f"{world.doors.base}/v1/audiences/second/gone", headers=world.doors.bearer) as refused:
        assert refused.status == 404
