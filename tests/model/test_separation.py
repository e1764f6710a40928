"""The wall, on the real ledger: whatever happens to marketing, no decision about receipts and care is another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from random import Random

import asyncpg
import pytest

from mailprefs import ledger
from mailprefs.catalogue import Catalogue
from mailprefs.errors import NotEntitled
from mailprefs.words import Channel, Decision

from .kinds import EPOCH, MORE, TICK
from .oracle import (
    ADS,
    BRAND,
    CARE,
    CHOICE,
    COMPLAINT,
    DAY,
    EVERY_DOOR,
    MARKETING,
    NEWSLETTER,
    ORDERS,
    PAUSE,
    ROOT,
    SMALL,
    STAFF,
    STOP,
    TRANSACTIONAL,
    Change,
)
from .system import Call, Pair, address, decide, instant, real, replay

pytestmark = pytest.mark.spread

TRANSACTIONAL_TOPICS = (CARE, ORDERS)
STEPS = 8


def is_marketing(change: Change) -> bool:
    return SMALL.marketing(change.scope) or change.scope == ADS


def random_calls(random: Random) -> list[Call]:
    """Eight steps of all kinds, half of them about marketing alone."""
    kinds = random.choices(list(MORE), k=STEPS)
    pair = Pair(address("nobody"))
    for step, kind in enumerate(kinds):
        now = EPOCH + step * TICK
        pair.call([MORE[kind](step, now, pair.rows)], now)
    return pair.calls


def without(calls: Sequence[Call]) -> list[Call]:
    """The same history as if nothing about marketing had ever been said."""
    return [(now, tuple(change for change in changes if not is_marketing(change))) for now, changes in calls]


def over_the_wall(calls: Sequence[Call]) -> list[Call]:
    """The same history in a house without a wall: a complaint holds the whole brand."""
    return [
        (now, tuple(replace(c, scope=BRAND, cause=STAFF, door="staff") if c.cause == COMPLAINT else c for c in changes))
        for now, changes in calls
    ]


async def decisions_after(
    conn: asyncpg.Connection, catalogue: Catalogue, world: str, histories: Sequence[Sequence[Call]]
) -> list[list[list[Decision]]]:
    """Record the histories, each at an address of its own, and decide about the transactional topics during and after them."""
    pairs = [Pair(address((world, n)), calls=list(calls)) for n, calls in enumerate(histories)]
    answers = []
    for step in range(STEPS):
        turn = [Pair(pair.address, calls=pair.calls[step : step + 1]) for pair in pairs if pair.calls[step][1]]
        await replay(conn, turn)
        answers.append(await decide(conn, catalogue, [pair.address for pair in pairs], TRANSACTIONAL_TOPICS, EPOCH + step * TICK))
    answers.append(await decide(conn, catalogue, [pair.address for pair in pairs], TRANSACTIONAL_TOPICS, EPOCH + 400 * TICK))
    return answers


def differing(one: list[list[list[Decision]]], other: list[list[list[Decision]]]) -> int:
    """How many histories have a decision, or a reason, that is another one in the other world."""
    return sum(any(a[n] != b[n] for a, b in zip(one, other, strict=True)) for n in range(len(one[0])))


async def test_no_marketing_event_changes_a_transactional_decision(conn: asyncpg.Connection, shared_catalogue: Catalogue) -> None:
    random = Random(8)
    histories = [random_calls(random) for _ in range(700)]
    full = await decisions_after(conn, shared_catalogue, "full", histories)
    quiet = await decisions_after(conn, shared_catalogue, "quiet", [without(calls) for calls in histories])
    assert differing(full, quiet) == 0
    seen = Counter(decision.allowed for moment in full for answers in moment for decision in answers)
    assert min(seen[True], seen[False]) > 1000  # the topics are open in some histories and held in others


async def test_without_the_wall_the_difference_is_seen(conn: asyncpg.Connection, shared_catalogue: Catalogue) -> None:
    """The control that must fail: were complaints to hold the brand, the same comparison would say so."""
    random = Random(8)
    histories = [random_calls(random) for _ in range(150)]
    spilt = await decisions_after(conn, shared_catalogue, "spilt", [over_the_wall(calls) for calls in histories])
    quiet = await decisions_after(conn, shared_catalogue, "quiet", [without(calls) for calls in histories])
    assert differing(spilt, quiet) > 10


async def test_the_recipient_s_stops_of_everything_leave_receipts_open(conn: asyncpg.Connection, shared_catalogue: Catalogue) -> None:
    """Every door, one after the other: stop all marketing, ads and every topic, complain, pause."""
    someone = address("someone")
    for n, door in enumerate(sorted(EVERY_DOOR)):
        for scope in (MARKETING, ADS, *(topic for topic in SMALL.topics() if SMALL.marketing(topic))):
            stop = Change(scope, CHOICE, STOP, door, f"{n} {scope}", EPOCH + n)
            await ledger.record(conn, [real(someone, stop)], now=instant(EPOCH + n))
    last = [
        Change(MARKETING, COMPLAINT, STOP, "provider", "c", EPOCH),
        Change(MARKETING, PAUSE, STOP, "page", "p", EPOCH, until=EPOCH + DAY),
        Change(MARKETING, "minor", STOP, "import", "m", EPOCH),
    ]
    await ledger.record(conn, [real(someone, change) for change in last], now=instant(EPOCH))
    answers = await decide(conn, shared_catalogue, [someone], [NEWSLETTER, CARE, ORDERS], EPOCH + DAY // 2)
    assert [decision.allowed for decision in answers[0]] == [False, True, True]


@pytest.mark.parametrize("channel", [Channel.EMAIL, None], ids=["email", "known by its key alone"])
async def test_by_mail_no_door_s_choice_lands_outside_marketing(conn: asyncpg.Connection, channel: Channel | None) -> None:
    someone = replace(address("someone"), channel=channel)
    for scope, cause, door in product((ROOT, BRAND, TRANSACTIONAL, ORDERS, CARE), (CHOICE, PAUSE, COMPLAINT, "minor"), sorted(EVERY_DOOR)):
        stop = Change(scope, cause, STOP, door, f"{scope} {cause}", EPOCH, EPOCH + DAY if cause == PAUSE else None)
        with pytest.raises(NotEntitled):
            await ledger.record(conn, [real(someone, stop)], now=instant(EPOCH))
    assert await conn.fetchval("select count(*) from consent") == 0
