"""The SQL against the oracle: the same histories told to both, and every column, answer, reason and push compared."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from random import Random

import asyncpg
import pytest

from mailprefs import ledger
from mailprefs.catalogue import Catalogue
from mailprefs.errors import NotEntitled
from mailprefs.words import Channel

from .kinds import ELEVEN, EPOCH, MORE, TELLER, TEXTED, TICK, moments
from .oracle import (
    BOUNCE,
    BRAND,
    CHOICE,
    ENDING,
    EVERY_DOOR,
    GO,
    GRANT,
    HOUR,
    MARKETING,
    MAY_LIFT,
    MAY_SET,
    MINUTE,
    NEWSLETTER,
    OFFERS,
    ROOT,
    SMALL,
    STOP,
    WITHDRAW,
    Change,
    allowed,
    entitled,
    summary,
)
from .system import Pair, Worlds, address, decide, expected_why, instant, ledgers, pushes, real, replay, summaries, why

AGO = (0, 2 * TICK, 400 * TICK)  # how long after a history one asks


@pytest.fixture
def worlds(conn: asyncpg.Connection, shared_catalogue: Catalogue) -> Worlds:
    return Worlds(conn, shared_catalogue)


def plain(kinds: Sequence[str], tick: int = TICK, channel: Channel = Channel.EMAIL) -> Pair:
    """A history of one Change a step, a tick apart."""
    pair = Pair(address((kinds, tick), channel))
    for step, kind in enumerate(kinds):
        now = EPOCH + step * tick
        pair.call([TEXTED[kind](step, now, pair.rows)], now)
    return pair


def troubled(name: str, kinds: Sequence[str], times: Sequence[int], random: Random) -> Pair:
    """A history with several Changes in a call, with facts told again, at the times of an unsteady clock."""
    pair = Pair(address(name))
    left = list(enumerate(kinds))
    sent: list[Change] = []
    for now in times:
        turn = [left.pop(0) for _ in range(min(len(left), random.choice((1, 1, 1, 2, 3))))]
        changes = [MORE[kind](step, now, pair.rows) for step, kind in turn]
        changes += random.sample(sent, min(len(sent), random.choice((0, 0, 0, 1, 2))))
        sent += changes
        if changes:
            pair.call(changes, now)
    return pair


async def compared(conn: asyncpg.Connection, catalogue: Catalogue, pairs: Sequence[Pair]) -> Counter[str]:
    """Tell every history to the real ledger, compare everything, and return how much was compared."""
    counts: Counter[str] = Counter(histories=len(pairs), changes=sum(len(pair.added) for pair in pairs))
    for pair, answered in zip(pairs, await replay(conn, pairs), strict=True):
        assert answered == pair.added, str(pair)
    addresses = [pair.address for pair in pairs]
    for pair, stored in zip(pairs, await summaries(conn, addresses), strict=True):
        assert stored == summary(pair.rows), str(pair)
    for pair, rows in zip(pairs, await ledgers(conn, addresses), strict=True):
        assert {row.evidence for row in rows} == {row.evidence for row in pair.rows}, str(pair)
        assert summary(rows) == summary(pair.rows), str(pair)
        counts["rows"] += len(rows)
    assert await ledger.differing(conn) == 0
    for pair, outbox in zip(pairs, await pushes(conn, addresses), strict=True):
        assert outbox == pair.outbox, str(pair)
        counts["pushes"] += len(outbox)
    for since in AGO:
        counts += await _decided(conn, catalogue, pairs, since)
    return counts


async def _decided(conn: asyncpg.Connection, catalogue: Catalogue, pairs: Sequence[Pair], since: int) -> Counter[str]:
    """Ask the real rule about every topic, so long after each history ended."""
    counts: Counter[str] = Counter()
    by_end: dict[int, list[Pair]] = {}
    for pair in pairs:
        by_end.setdefault(pair.calls[-1][0] + since, []).append(pair)
    for now, ended in by_end.items():
        answers = await decide(conn, catalogue, [pair.address for pair in ended], SMALL.topics(), now)
        for pair, decisions in zip(ended, answers, strict=True):
            channel = pair.address.channel or Channel.SMS
            told = summary(pair.rows)
            for topic, decision in zip(SMALL.topics(), decisions, strict=True):
                assert decision.allowed is allowed(topic, told, now, SMALL.asks(topic, channel)), f"{topic} at {now} in {pair}"
                assert why(decision, catalogue) == expected_why(topic, pair.rows, now, channel), f"{topic} at {now} in {pair}"
                counts["decisions"] += 1
                counts["denied"] += not decision.allowed
    return counts


def told(counts: Counter[str]) -> None:
    """Say how much was compared (`pytest -s` shows it)."""
    sys.stdout.write("compared: " + ", ".join(f"{count:,} {what}" for what, count in counts.items()) + "\n")


def distinct(histories: Iterable[Pair]) -> list[Pair]:
    return list({pair.address.key: pair for pair in histories}.values())


def test_the_oracle_s_tree_is_the_catalogue_s(shared_catalogue: Catalogue) -> None:
    assert {number: scope.path for number, scope in shared_catalogue.by_number.items()} == dict(SMALL.paths)
    assert {number: str(shared_catalogue.by_number[number].wanted) for number in SMALL.topics()} == dict(SMALL.wanted)


@pytest.mark.spread
async def test_every_pair_of_all_kinds_means_the_same_in_the_ledger(conn: asyncpg.Connection, shared_catalogue: Catalogue) -> None:
    """With a clock that goes on and one that steps back. The quickest whole comparison: what the mutants are judged by."""
    told(await compared(conn, shared_catalogue, [plain(kinds, tick) for tick in (TICK, -TICK) for kinds in product(MORE, repeat=2)]))


@pytest.mark.parametrize("tick", [TICK, 25 * HOUR], ids=["an undo reaches back", "no undo reaches back"])
async def test_every_history_of_three_means_the_same_in_the_ledger(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, tick: int
) -> None:
    histories = [plain(kinds, tick) for length in (1, 2, 3) for kinds in product(ELEVEN, repeat=length)]
    counts = await compared(conn, shared_catalogue, histories)
    assert counts["histories"] == 11 + 11**2 + 11**3
    told(counts)


async def test_a_sample_of_longer_histories_means_the_same_in_the_ledger(conn: asyncpg.Connection, shared_catalogue: Catalogue) -> None:
    random = Random(20261122)
    eleven, more = list(ELEVEN), list(MORE)
    histories = [plain(random.choices(eleven, k=random.choice((4, 5)))) for _ in range(1500)]
    histories += [plain(random.choices(more, k=random.choice((3, 4, 5, 8)))) for _ in range(1500)]
    histories += [plain(random.choices(list(TEXTED), k=random.choice((3, 4, 5, 8))), channel=Channel.SMS) for _ in range(1500)]
    told(await compared(conn, shared_catalogue, distinct(histories)))


async def test_together_twice_and_by_an_unsteady_clock_it_means_the_same(conn: asyncpg.Connection, shared_catalogue: Catalogue) -> None:
    random = Random(7)
    clocks = [list(moments(12, random)) for _ in range(12)]
    histories = [
        troubled(f"{n} {clock}", random.choices(list(MORE), k=8), clocks[clock], random) for n in range(150) for clock in range(len(clocks))
    ]
    counts = await compared(conn, shared_catalogue, histories)
    counts["told again"] = counts["changes"] - counts["rows"]
    assert counts["told again"] > 1000
    told(counts)


async def test_a_press_after_a_go_in_the_same_call_stops(worlds: Worlds) -> None:
    await worlds.tell(Change(MARKETING, CHOICE, STOP, "link", "1", EPOCH), now=EPOCH)
    later = EPOCH + HOUR
    pair = Change(MARKETING, CHOICE, GO, "manage", "2", later), Change(MARKETING, CHOICE, STOP, "link", "3", later)
    assert await worlds.tell(*pair, now=later) == (True, True)
    assert not await worlds.may(NEWSLETTER, now=later)


async def test_a_second_stop_by_text_outlasts_a_start_sent_before_it(worlds: Worlds) -> None:
    grant = Change(NEWSLETTER, CHOICE, GRANT, "sms", "0", EPOCH)
    await worlds.tell(grant, Change(BRAND, CHOICE, STOP, "sms", "1", EPOCH), now=EPOCH, channel=Channel.SMS)
    await worlds.tell(Change(BRAND, CHOICE, STOP, "sms", "2", EPOCH + 2 * HOUR), now=EPOCH + 2 * HOUR, channel=Channel.SMS)
    await worlds.tell(Change(BRAND, CHOICE, GO, "sms", "3", EPOCH + HOUR), now=EPOCH + 3 * HOUR, channel=Channel.SMS)
    assert not await worlds.may(NEWSLETTER, now=EPOCH + 3 * HOUR, channel=Channel.SMS)


async def test_a_bounce_tells_no_provider_to_stop_a_topic_that_was_chosen_back(conn: asyncpg.Connection) -> None:
    """Its go closes with the bounce, but bounces are told only where they are shared."""
    pair = Pair(address("someone"))
    chosen = Change(MARKETING, CHOICE, STOP, "page", "1", EPOCH), Change(NEWSLETTER, CHOICE, GO, "manage", "2", EPOCH)
    pair.call(chosen, EPOCH)
    pair.call([Change(ROOT, BOUNCE, STOP, "provider", "3", EPOCH + MINUTE, by=TELLER)], EPOCH + MINUTE)
    await replay(conn, [pair])
    assert await pushes(conn, [pair.address]) == [{(TELLER, OFFERS): True}]


@pytest.mark.spread
async def test_only_those_named_may_lift(conn: asyncpg.Connection) -> None:
    """I6, for every door: what is not in the table of who may lift what is refused, whatever it would lift."""
    refused = accepted = 0
    for effect, cause, door in product((GO, GRANT), MAY_LIFT, sorted(EVERY_DOOR)):
        change = Change(_node(cause), cause, effect, door, f"{effect} {cause}", EPOCH)
        try:
            await ledger.record(conn, [real(address("someone"), change)], now=instant(EPOCH))
            accepted += 1
            assert entitled(change, liftable=True), change
        except NotEntitled:
            refused += 1
            assert not entitled(change, liftable=True), change
    assert (accepted, refused) == (11, 149)


async def test_whoever_is_named_may_set(conn: asyncpg.Connection) -> None:
    for cause, doors in MAY_SET.items():
        for door in sorted(doors):
            until = EPOCH + HOUR if cause in ENDING else None
            change = Change(_node(cause), cause, STOP, door, f"{cause}", EPOCH, until)
            assert await ledger.record(conn, [real(address(f"{cause} {door}"), change)], now=instant(EPOCH)) == [True], change


def _node(cause: str) -> int:
    return ROOT if cause in ("bounce", "invalid", "soft") else MARKETING


@pytest.mark.parametrize(
    "named",
    [
        Change(NEWSLETTER, CHOICE, STOP, "link", "x", EPOCH),
        Change(NEWSLETTER, CHOICE, STOP, "provider", "x", EPOCH),
        Change(MARKETING, "complaint", STOP, "provider", "x", EPOCH),
        Change(ROOT, BOUNCE, STOP, "mail", "x", EPOCH),
        Change(NEWSLETTER, CHOICE, STOP, "import", "x", EPOCH),
        Change(NEWSLETTER, CHOICE, GO, "manage", "x", EPOCH + 1),
        Change(NEWSLETTER, CHOICE, GRANT, "manage", "x", EPOCH),
    ],
    ids=lambda named: f"{named.effect} of {named.cause} through {named.door}",
)
@pytest.mark.parametrize("door", sorted(EVERY_DOOR))
async def test_an_undo_takes_back_nothing_but_a_press_of_a_page(conn: asyncpg.Connection, named: Change, door: str) -> None:
    """Whatever door it comes through: either it is refused, or the summary stays what it was."""
    someone = address("someone")
    first = Change(NEWSLETTER, CHOICE, STOP, "page", "earlier", EPOCH)
    await ledger.record(conn, [real(someone, first), real(someone, named)], now=instant(EPOCH))
    before = await summaries(conn, [someone])
    undo = replace(named, effect=WITHDRAW, door=door, id=named.evidence)
    with suppress(NotEntitled):
        await ledger.record(conn, [real(someone, undo)], now=instant(EPOCH + 1))
    assert await summaries(conn, [someone]) == before
