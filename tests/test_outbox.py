"""What the outbox promises, on the real thing: one lease at a time, nothing settled that is not sure, nothing given up."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from mailprefs import db, ledger, outbox
from mailprefs.addresses import Addresses
from mailprefs.outbox import End, Fate, Figures, Gate, Lease, Outlook, Push, Ready, Verdict
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

pytestmark = pytest.mark.spread

MARKETING, NEWSLETTER, OFFERS = 257, 272, 273
MAIN, SECOND = 1, 2  # sendgrid-main is told of newsletter and offers, sendgrid-second of newsletter
CALLED = {1: {272: "sendgrid/12345", 273: "sendgrid/12346"}, 2: {272: "sendgrid/777"}}  # as tests/catalogue.toml maps them
LEASE, SETTLE, QUIET = timedelta(seconds=120), timedelta(minutes=15), timedelta(seconds=60)
TICK = timedelta(seconds=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def jane(conn: asyncpg.Connection, addresses: Addresses) -> Address:
    return await introduce(conn, addresses, "jane@example.org")


async def introduce(conn: asyncpg.Connection, addresses: Addresses, text: str) -> Address:
    """Return an address whose text the database knows."""
    address = addresses.read(text)
    await conn.execute(
        "insert into address (bucket, key, channel, plaintext) values ($1, $2, $3, $4)",
        address.bucket,
        address.key,
        address.channel,
        text,
    )
    return address


def change(
    address: Address, scope: int, effect: Effect, now: datetime, *, cause: Cause = Cause.CHOICE, until: datetime | None = None
) -> Change:
    door = Door.PAGE if effect is Effect.STOP else Door.MANAGE
    return Change(address, scope, cause, effect, door, uuid4().hex, now, until)


async def stop(conn: asyncpg.Connection, address: Address, now: datetime, scope: int = NEWSLETTER) -> None:
    await ledger.record(conn, [change(address, scope, Effect.STOP, now)], now=now)


async def go(conn: asyncpg.Connection, address: Address, now: datetime, scope: int = NEWSLETTER, cause: Cause = Cause.CHOICE) -> None:
    await ledger.record(conn, [change(address, scope, Effect.GO, now, cause=cause)], now=now)


async def chosen_back(conn: asyncpg.Connection, address: Address, now: datetime, at: datetime | None = None) -> None:
    """A stop that was told, and a go since."""
    await stop(conn, address, now)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    await go(conn, address, at or now)


async def pause(conn: asyncpg.Connection, address: Address, now: datetime, until: datetime, scope: int = NEWSLETTER) -> None:
    await ledger.record(conn, [change(address, scope, Effect.STOP, now, cause=Cause.PAUSE, until=until)], now=now)


async def lease(
    conn: asyncpg.Connection, now: datetime, *, stop: bool = True, account: int = MAIN, most: int = 100, scopes: Sequence[int] = (272, 273)
) -> Lease | None:
    called = {scope: CALLED[account].get(scope, "sendgrid/none") for scope in scopes}
    return await outbox.lease(conn, account, called=called, stop=stop, most=most, until=now + LEASE, settle=SETTLE, quiet=QUIET, now=now)


async def leased(conn: asyncpg.Connection, now: datetime, *, stop: bool = True, account: int = MAIN) -> Lease:
    found = await lease(conn, now, stop=stop, account=account)
    assert found is not None
    return found


async def read(conn: asyncpg.Connection, held: Lease, now: datetime) -> list[Ready]:
    return await outbox.read(conn, held, held.pushes, margin=LEASE / 4, now=now)


async def end(
    conn: asyncpg.Connection, held: Lease, fate: Fate, now: datetime, *, sent_at: datetime | None = None, detail: str = ""
) -> Counter[Verdict]:
    """Read, as if the request were sent now, and settle all of it with one fate."""
    return await answer(conn, held, await read(conn, held, sent_at or now), fate, now, sent_at=sent_at or now, detail=detail)


async def answer(
    conn: asyncpg.Connection, held: Lease, ready: Sequence[Ready], fate: Fate, now: datetime, *, sent_at: datetime, detail: str = ""
) -> Counter[Verdict]:
    ends = [End(each.push, fate, each.want, detail) for each in ready]
    return await outbox.settle(conn, held, ends, sent_at=sent_at, settle=SETTLE, now=now)


async def row(conn: asyncpg.Connection, account: int = MAIN, scope: int = NEWSLETTER) -> asyncpg.Record:
    found = await conn.fetchrow("select * from push where account = $1 and scope = $2", account, scope)
    assert found is not None
    return found


async def left(conn: asyncpg.Connection, account: int = MAIN) -> int:
    return int(await conn.fetchval("select count(*) from push where account = $1", account))


async def told(conn: asyncpg.Connection, account: int = MAIN) -> list[bool]:
    return [r["stop"] for r in await conn.fetch("select stop from told where account = $1 order by confirmed_at", account)]


async def texts_known(conn: asyncpg.Connection, people: Sequence[Address], *, now: datetime) -> None:
    """What `directory` does once it has written down their texts."""
    await conn.fetchval("select known($1, $2, $3)", [each.bucket for each in people], [each.key for each in people], now)


# Leases


async def test_a_row_is_leased_once_until_its_lease_ends(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    first = await leased(conn, now)
    assert await lease(conn, now + LEASE - TICK) is None
    again = await leased(conn, now + LEASE)
    assert first.pushes == again.pushes == (Push(jane.bucket, jane.key, NEWSLETTER),)
    assert first.token != again.token


async def test_leases_at_once_share_no_row_and_wait_for_nobody(
    database: str, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    for n in range(20):
        await stop(conn, await introduce(conn, addresses, f"p{n}@example.org"), now)
    other = await asyncpg.connect(database)
    async with conn.transaction(), other.transaction():  # neither has committed when the other asks
        first = await lease(conn, now, most=12)
        second = await asyncio.wait_for(lease(other, now, most=20), 5)
    await other.close()
    assert first is not None
    assert second is not None
    assert len(first.pushes) == 12
    assert len(second.pushes) == 8
    assert not set(first.pushes) & set(second.pushes)


async def test_an_account_leases_only_its_own_rows(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now, MARKETING)
    assert len((await leased(conn, now, account=SECOND)).pushes) == 1
    assert len((await leased(conn, now, account=MAIN)).pushes) == 2


async def test_the_longest_due_is_leased_first(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    texts = {addresses.read(text).bucket: text for text in (f"p{n}@example.org" for n in range(99))}  # a lease takes a bucket as a whole
    people = [await introduce(conn, addresses, text) for text in list(texts.values())[:9]]
    for n, person in enumerate(people):
        await stop(conn, person, now - n * TICK)
    found = await lease(conn, now, most=3)
    assert found is not None
    assert {push.key for push in found.pushes} == {person.key for person in people[-3:]}


async def test_what_is_not_for_this_lease_takes_no_room_in_it(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    """Neither what waits in the other direction, nor what is leased already, however long it is due."""
    people = [await introduce(conn, addresses, f"p{n}@example.org") for n in range(6)]
    for person in people[:2]:
        await stop(conn, person, now - DAY)
        await go(conn, person, now - DAY)
    for n, person in enumerate(people[2:]):
        await stop(conn, person, now + n * TICK)
    for expected in people[2:]:
        found = await lease(conn, now + HOUR, most=1)
        assert found is not None
        assert [push.key for push in found.pushes] == [expected.key]


async def neighbours(conn: asyncpg.Connection, addresses: Addresses) -> tuple[list[Address], Address]:
    """Return three addresses of one bucket, and one of a later bucket."""
    texts = [f"p{n}@example.org" for n in range(6000)]
    buckets: dict[int, list[str]] = {}
    for text in texts:
        buckets.setdefault(addresses.read(text).bucket, []).append(text)
    bucket, three = min((bucket, found[:3]) for bucket, found in buckets.items() if len(found) >= 3)
    last = max(buckets)
    assert last > bucket
    return [await introduce(conn, addresses, text) for text in three], await introduce(conn, addresses, buckets[last][0])


async def test_a_bucket_gives_no_more_than_there_is_room_for_and_the_longest_due_is_never_crowded_out(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    three, oldest = await neighbours(conn, addresses)
    await stop(conn, oldest, now)
    for person in three:
        await stop(conn, person, now + TICK)
    found = await lease(conn, now + HOUR, most=2)
    assert found is not None
    assert found.pushes[0].key == oldest.key
    assert len(found.pushes) == 2
    rest = await lease(conn, now + HOUR, most=2)
    assert rest is not None
    assert len(rest.pushes) == 2


async def test_a_go_that_is_not_quiet_yet_does_not_come_along_with_its_neighbours(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    (ann, bob, _), _ = await neighbours(conn, addresses)
    for n, person in enumerate((ann, bob)):
        await chosen_back(conn, person, now, now + n * QUIET / 2)
    assert [push.key for push in (await leased(conn, now + QUIET, stop=False)).pushes] == [ann.key]


async def test_many_who_lease_at_once_lease_each_row_once(
    database: str, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    for n in range(150):
        await stop(conn, await introduce(conn, addresses, f"p{n}@example.org"), now)

    async def take() -> list[Push]:
        connection = await asyncpg.connect(database)
        taken: list[Push] = []
        while found := await lease(connection, now, most=3):
            taken += found.pushes
        await connection.close()
        return taken

    everyone = [push for taken in await asyncio.gather(*(take() for _ in range(8))) for push in taken]
    assert len(everyone) == len(set(everyone))
    assert await conn.fetchval("select count(*) from push where account = $1 and (lease is null or attempts <> 1)", MAIN) == 150 - len(
        everyone
    )
    assert len(everyone) > 100  # who meets another's lock goes without; nobody waits


async def test_a_stop_and_a_go_never_stand_in_one_lease(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    ann, bob = [await introduce(conn, addresses, f"{name}@example.org") for name in ("ann", "bob")]
    await stop(conn, ann, now)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    await go(conn, ann, now)
    later = now + QUIET
    await stop(conn, bob, later)
    assert [push.key for push in (await leased(conn, later)).pushes] == [bob.key]
    assert [push.key for push in (await leased(conn, later, stop=False)).pushes] == [ann.key]


async def test_a_go_waits_until_nobody_has_spoken_for_the_address_for_a_while(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    spoken = now + timedelta(seconds=50)
    await chosen_back(conn, jane, now, spoken)
    assert await lease(conn, spoken + QUIET - TICK, stop=False) is None
    assert await lease(conn, spoken + QUIET, stop=False) is not None


async def test_a_word_about_another_topic_breaks_the_quiet_and_evidence_alone_does_not(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await chosen_back(conn, jane, now)
    pressed = change(jane, OFFERS, Effect.STOP, now)
    await ledger.record(conn, [pressed], now=now + 30 * TICK)
    assert await lease(conn, now + QUIET, stop=False) is None
    await ledger.record(conn, [ledger.withdrawal(pressed, now=now + 40 * TICK)], now=now + 40 * TICK)
    note = Change(jane, OFFERS, Cause.CHOICE, Effect.NOTE, Door.PROVIDER, "sendgrid-main/e1", now, by="sendgrid-main")
    await ledger.record(conn, [note], now=now + 90 * TICK)
    assert await lease(conn, now + 99 * TICK, stop=False) is None
    assert await lease(conn, now + 100 * TICK, stop=False) is not None


async def test_a_stop_waits_for_no_quiet(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    assert await lease(conn, now) is not None


async def test_a_scope_that_would_do_harm_is_not_leased_and_the_others_are(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now, MARKETING)
    await outbox.close(conn, MAIN, NEWSLETTER, until=now + HOUR)
    assert [push.scope for push in (await leased(conn, now)).pushes] == [OFFERS]
    assert [push.scope for push in (await leased(conn, now, account=SECOND)).pushes] == [NEWSLETTER]
    assert [push.scope for push in (await leased(conn, now + HOUR)).pushes if push.scope == NEWSLETTER] == [NEWSLETTER]


async def test_what_is_closed_opens_when_it_is_mended(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    await outbox.close(conn, MAIN, NEWSLETTER, until=now + HOUR)
    assert await lease(conn, now) is None
    await outbox.reopen(conn, MAIN)
    assert await lease(conn, now) is not None


async def test_a_scope_that_this_catalogue_does_not_map_is_left_to_another_worker(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await stop(conn, jane, now)
    assert await lease(conn, now, scopes=[OFFERS]) is None


# Reading


async def test_what_is_sent_is_the_rule_of_the_moment_not_the_wish_that_was_queued(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await stop(conn, jane, now)
    held = await leased(conn, now)
    (before,) = await read(conn, held, now)
    await go(conn, jane, now)
    (after,) = await read(conn, held, now)
    assert (before.stop, after.stop) == (True, False)
    assert after.want > before.want
    assert before.text == "jane@example.org"


async def test_nothing_is_sent_when_little_of_the_lease_is_left(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    held = await leased(conn, now)
    assert len(await read(conn, held, now + LEASE * 3 / 4 - TICK)) == 1
    assert await read(conn, held, now + LEASE * 3 / 4) == []


async def test_a_lease_that_another_worker_took_over_reads_nothing(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    mine = await leased(conn, now)
    theirs = await leased(conn, now + LEASE)
    assert await read(conn, mine, now) == []
    assert len(await read(conn, theirs, now + LEASE)) == 1


# Settling


async def test_what_is_told_leaves_the_outbox_and_a_proof(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    held = await leased(conn, now + TICK)
    assert await end(conn, held, Fate.DONE, now + 3 * TICK, sent_at=now + 2 * TICK) == {Verdict.SETTLED: 1}
    assert await left(conn) == 0
    proof = await conn.fetchrow("select * from told")
    assert proof is not None
    assert (proof["account"], proof["key"], proof["scope"], proof["stop"]) == (MAIN, jane.key, NEWSLETTER, True)
    assert (proof["asked_at"], proof["sent_at"], proof["confirmed_at"]) == (now, now + 2 * TICK, now + 3 * TICK)
    assert await left(conn, SECOND) == 1


async def test_a_change_of_mind_while_it_is_sent_stays_due(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    held = await leased(conn, now)
    ready = await read(conn, held, now)
    await go(conn, jane, now)
    assert await answer(conn, held, ready, Fate.DONE, now, sent_at=now) == {Verdict.MOVED: 1}
    assert await told(conn) == []
    assert (await row(conn))["lease"] is None
    assert await lease(conn, now + QUIET, stop=False) is not None


async def test_a_mind_changed_twice_while_it_is_sent_is_told_again(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    held = await leased(conn, now)
    ready = await read(conn, held, now)
    await go(conn, jane, now)
    await stop(conn, jane, now)
    assert await answer(conn, held, ready, Fate.DONE, now, sent_at=now) == {Verdict.MOVED: 1}
    assert await lease(conn, now) is not None


async def test_a_go_that_is_being_recorded_while_its_stop_is_settled_is_not_lost(
    conn: asyncpg.Connection, database: str, jane: Address, now: datetime
) -> None:
    await stop(conn, jane, now)
    held = await leased(conn, now)
    ready = await read(conn, held, now)
    other = await asyncpg.connect(database)
    async with other.transaction():
        await go(other, jane, now)
        settling = asyncio.create_task(answer(conn, held, ready, Fate.DONE, now, sent_at=now))
        while not await other.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"
        ):
            assert not settling.done()
            await asyncio.sleep(0.01)
    await other.close()
    assert await settling == {Verdict.MOVED: 1}
    assert await told(conn) == []
    assert [push.key for push in (await leased(conn, now + QUIET, stop=False)).pushes] == [jane.key]


async def test_a_settlement_under_an_old_lease_changes_nothing(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    mine = await leased(conn, now)
    ready = await read(conn, mine, now)
    await leased(conn, now + LEASE)
    before = await row(conn)
    for fate in Fate:
        assert await answer(conn, mine, ready, fate, now + LEASE, sent_at=now) == {}
    assert await row(conn) == before
    assert await told(conn) == []


async def test_settling_twice_changes_nothing_more(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    held = await leased(conn, now)
    ready = await read(conn, held, now)
    assert await answer(conn, held, ready, Fate.UNKNOWN, now, sent_at=now) == {Verdict.POSTPONED: 1}
    before = await row(conn)
    assert await answer(conn, held, ready, Fate.DONE, now, sent_at=now) == {}
    assert await row(conn) == before


async def test_a_dead_workers_lease_makes_the_row_unsure(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    await leased(conn, now)  # and its worker dies
    taken_over = now + LEASE
    held = await leased(conn, taken_over)
    assert (await row(conn))["unsure_until"] == taken_over + SETTLE
    assert await end(conn, held, Fate.DONE, taken_over + TICK) == {Verdict.UNSURE: 1}


async def test_what_was_given_back_is_as_sure_as_before(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    before = await row(conn)
    held = await leased(conn, now)
    await outbox.release(conn, held, held.pushes, now=now)
    assert await row(conn) == before
    assert await end(conn, await leased(conn, now), Fate.DONE, now) == {Verdict.SETTLED: 1}


async def test_after_an_unknown_outcome_a_confirmation_is_asked_for_once_more_when_nothing_can_land_any_more(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await stop(conn, jane, now)
    await end(conn, await leased(conn, now), Fate.UNKNOWN, now)
    sure = now + 9 * TICK + SETTLE  # the answered one may be repeated on its way, too
    assert await end(conn, await leased(conn, now + 9 * TICK), Fate.DONE, now + 9 * TICK) == {Verdict.UNSURE: 1}
    assert await told(conn) == []
    assert await lease(conn, sure) is None
    settled = sure + TICK
    assert await end(conn, await leased(conn, settled), Fate.DONE, settled) == {Verdict.SETTLED: 1}
    assert await told(conn) == [True]


async def test_a_confirmation_of_what_was_sent_too_early_counts_for_nothing_however_late_it_comes(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await stop(conn, jane, now)
    await end(conn, await leased(conn, now), Fate.UNKNOWN, now)
    held = await leased(conn, now + SETTLE)
    assert await end(conn, held, Fate.DONE, now + SETTLE + HOUR, sent_at=now + SETTLE) == {Verdict.UNSURE: 1}


async def test_an_unknown_outcome_waits_longer_each_time_with_full_jitter_and_a_cap(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    for n in range(300):
        await stop(conn, await introduce(conn, addresses, f"p{n}@example.org"), now)
    await conn.execute("delete from push where account <> $1", MAIN)
    for attempts, longest in (
        (0, timedelta(seconds=2)),
        (3, timedelta(seconds=16)),
        (40, timedelta(minutes=15)),
        (2000, timedelta(minutes=15)),
    ):
        await conn.execute("update push set attempts = $1, due_at = $2", attempts, now)
        found = await lease(conn, now, most=300)
        assert found is not None
        assert await end(conn, found, Fate.UNKNOWN, now) == {Verdict.POSTPONED: 300}
        waits = sorted([r["due_at"] - now for r in await conn.fetch("select due_at from push")])
        assert timedelta() <= waits[0] < longest / 20
        assert longest * 0.9 < waits[-1] <= longest
        assert longest * 0.35 < waits[150] < longest * 0.65


async def test_attempts_are_counted_until_one_is_answered(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    for n in range(1, 4):
        at = now + n * HOUR
        await end(conn, await leased(conn, at), Fate.UNKNOWN, at)
        assert (await row(conn))["attempts"] == n
    await end(conn, await leased(conn, now + 4 * HOUR), Fate.DONE, now + 4 * HOUR, sent_at=now + 3 * HOUR)
    assert (await row(conn))["attempts"] == 0


async def test_a_go_may_wait_longer_than_a_stop(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    for n in range(100):
        await chosen_back(conn, await introduce(conn, addresses, f"p{n}@example.org"), now)
    await conn.execute("update push set attempts = 40")
    later = now + QUIET
    await end(conn, await leased(conn, later, stop=False), Fate.UNKNOWN, later)
    longest = await conn.fetchval("select max(due_at) from push where account = $1", MAIN) - later
    assert timedelta(hours=5) < longest <= timedelta(hours=6)


async def test_an_unknown_outcome_of_an_older_wish_does_not_hold_up_the_new_one(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await stop(conn, jane, now)
    await conn.execute("update push set attempts = 30")
    held = await leased(conn, now)
    ready = await read(conn, held, now)
    await go(conn, jane, now)
    await stop(conn, jane, now)
    assert await answer(conn, held, ready, Fate.UNKNOWN, now, sent_at=now) == {Verdict.MOVED: 1}
    assert await end(conn, await leased(conn, now), Fate.DONE, now) == {Verdict.UNSURE: 1}


async def test_a_row_that_the_provider_refuses_is_tried_soon_then_later_then_once_a_day_for_ever(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await stop(conn, jane, now)
    await conn.execute("update push set attempts = 30")  # however long it has waited for other reasons
    for wait in (timedelta(minutes=15), HOUR, 6 * HOUR, DAY, DAY, DAY):
        assert await end(conn, await leased(conn, now), Fate.REFUSED, now, detail="http_400") == {Verdict.QUARANTINED: 1}
        assert ((await row(conn))["refused"], (await row(conn))["due_at"]) == ("http_400", now + wait)
        now += wait
    assert await end(conn, await leased(conn, now), Fate.DONE, now) == {Verdict.SETTLED: 1}


async def test_what_nobody_knows_between_two_refusals_is_no_refusal(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    await end(conn, await leased(conn, now), Fate.REFUSED, now, detail="http_400")
    for _ in range(3):
        now += HOUR
        held = await leased(conn, now)
        assert [each.refused for each in await read(conn, held, now)] == [True]
        assert await end(conn, held, Fate.UNKNOWN, now) == {Verdict.POSTPONED: 1}
    now += HOUR
    await end(conn, await leased(conn, now), Fate.REFUSED, now, detail="http_400")
    assert (await row(conn))["due_at"] == now + HOUR  # the second refusal, and not the fifth


async def test_a_go_that_was_put_aside_for_patience_was_not_refused(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await chosen_back(conn, jane, now)
    late = now + timedelta(hours=72) + TICK
    assert await end(conn, await leased(conn, late, stop=False), Fate.UNKNOWN, late, detail="http_500") == {Verdict.QUARANTINED: 1}
    assert ((await row(conn))["refused"], (await row(conn))["due_at"]) == ("http_500", late + DAY)
    held = await leased(conn, late + DAY, stop=False)
    assert [each.refused for each in await read(conn, held, late + DAY)] == [False]
    await end(conn, held, Fate.REFUSED, late + DAY, detail="http_400")
    assert (await row(conn))["due_at"] == late + DAY + timedelta(minutes=15)
    held = await leased(conn, late + 2 * DAY, stop=False)
    assert [each.refused for each in await read(conn, held, late + 2 * DAY)] == [True]  # the control
    assert await end(conn, held, Fate.UNKNOWN, late + 2 * DAY) == {Verdict.QUARANTINED: 1}
    assert (await row(conn))["due_at"] == late + 3 * DAY


async def test_only_who_is_refused_at_that_moment_is_put_off(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    """Of a wish that moved meanwhile nothing was refused, and a settlement that is repeated puts nobody off again."""
    ann, bob = [await introduce(conn, addresses, f"{name}@example.org") for name in ("ann", "bob")]
    for each in (ann, bob):
        await stop(conn, each, now)
    held = await leased(conn, now)
    ready = await read(conn, held, now)
    await go(conn, ann, now)
    await stop(conn, ann, now)
    for later in (now, now + HOUR):
        await answer(conn, held, ready, Fate.REFUSED, later, sent_at=now, detail="http_400")
        rows = {r["key"]: (r["refused"], r["due_at"]) for r in await conn.fetch("select * from push where account = $1", MAIN)}
        assert rows == {ann.key: (None, now), bob.key: ("http_400", now + timedelta(minutes=15))}


async def test_who_was_refused_under_another_lease_is_not_put_off_by_a_late_settlement(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    bob, ann = [await introduce(conn, addresses, f"{name}@example.org") for name in ("bob", "ann")]
    for n, each in enumerate((bob, ann)):
        await stop(conn, each, now + n * TICK)
        await end(conn, await leased(conn, now + n * TICK), Fate.REFUSED, now + n * TICK, detail="http_400")
    later = now + HOUR
    mine = await leased(conn, later)
    ready = await read(conn, mine, later)
    assert {each.push.key for each in ready} == {bob.key, ann.key}
    theirs = await lease(conn, later + LEASE, most=1)
    assert theirs is not None
    assert await end(conn, theirs, Fate.REFUSED, later + LEASE, detail="http_400") == {Verdict.QUARANTINED: 1}
    before = await conn.fetchrow("select * from push where account = $1 and key = $2", MAIN, bob.key)
    end_of_mine = later + LEASE + TICK
    assert await answer(conn, mine, ready, Fate.REFUSED, end_of_mine, sent_at=later, detail="http_400") == {Verdict.QUARANTINED: 1}
    assert await conn.fetchrow("select * from push where account = $1 and key = $2", MAIN, bob.key) == before
    due_at = await conn.fetchval("select due_at from push where account = $1 and key = $2", MAIN, ann.key)
    assert due_at == end_of_mine + HOUR, "the control: hers was settled, and she is put off"


async def test_a_new_wish_leaves_quarantine(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    await end(conn, await leased(conn, now), Fate.REFUSED, now, detail="http_400")
    await go(conn, jane, now)
    assert (await row(conn))["refused"] is None
    assert await lease(conn, now + QUIET, stop=False) is not None


async def test_a_confirmation_leaves_quarantine_even_before_it_is_sure(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    await end(conn, await leased(conn, now), Fate.REFUSED, now, detail="http_400")
    await leased(conn, now + DAY)  # and its worker dies
    late = now + DAY + LEASE
    assert await end(conn, await leased(conn, late), Fate.DONE, late) == {Verdict.UNSURE: 1}
    assert (await row(conn))["refused"] is None


async def test_a_refusal_of_an_older_wish_does_not_quarantine_the_new_one(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    held = await leased(conn, now)
    ready = await read(conn, held, now)
    await go(conn, jane, now)
    await stop(conn, jane, now)
    assert await answer(conn, held, ready, Fate.REFUSED, now, sent_at=now, detail="http_400") == {Verdict.MOVED: 1}
    assert (await row(conn))["refused"] is None
    assert await lease(conn, now) is not None


async def test_a_go_of_which_nothing_is_known_for_three_days_is_tried_once_a_day_and_a_stop_goes_on(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    ann, bob = [await introduce(conn, addresses, f"{name}@example.org") for name in ("ann", "bob")]
    await chosen_back(conn, ann, now)
    await stop(conn, bob, now)
    late = now + timedelta(hours=72) + TICK
    assert await end(conn, await leased(conn, late, stop=False), Fate.UNKNOWN, late) == {Verdict.QUARANTINED: 1}
    assert await end(conn, await leased(conn, late), Fate.UNKNOWN, late) == {Verdict.POSTPONED: 1}
    assert await lease(conn, late + DAY, stop=False) is not None


async def test_a_request_that_was_broken_off_is_no_attempt_but_may_still_land(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await stop(conn, jane, now)
    assert await end(conn, await leased(conn, now), Fate.CUT, now) == {Verdict.RELEASED: 1}
    after = await row(conn)
    assert (after["attempts"], after["due_at"], after["unsure_until"]) == (0, now, now + SETTLE)


async def test_what_was_given_back_waits_in_the_direction_it_has_now(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await pause(conn, jane, now, now + HOUR)  # and nobody could be told while it lasted
    over = now + HOUR + TICK
    held = await leased(conn, over)
    assert [each.stop for each in await read(conn, held, over)] == [False]
    await outbox.release(conn, held, held.pushes, now=over)
    assert await lease(conn, over) is None
    assert await lease(conn, over, stop=False) is not None


async def test_the_same_told_again_soon_is_sure_and_the_opposite_is_not(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    note = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.NOTE, Door.PROVIDER, "sendgrid-main/e1", now, by="sendgrid-main")
    await ledger.record(conn, [note], now=now + TICK)
    assert await end(conn, await leased(conn, now + TICK), Fate.DONE, now + TICK) == {Verdict.SETTLED: 1}
    await go(conn, jane, now + 2 * TICK)
    soon = now + 2 * TICK + QUIET
    assert await end(conn, await leased(conn, soon, stop=False), Fate.DONE, soon) == {Verdict.UNSURE: 1}


async def test_a_go_that_the_rule_took_back_by_itself_is_followed_by_a_stop(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    """The account's share_bounces was turned on while the go was in the air, and the address had bounced."""
    await stop(conn, jane, now)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    bounce = Change(jane, 0, Cause.BOUNCE, Effect.STOP, Door.PROVIDER, "sendgrid-main/e1", now, by="sendgrid-main")
    await ledger.record(conn, [bounce], now=now)
    await go(conn, jane, now)
    later = now + SETTLE + QUIET
    held = await leased(conn, later, stop=False)
    ready = await read(conn, held, later)
    await conn.execute("update mapping set path = $1 where account = $2 and scope = $3", [0, 256, MARKETING, NEWSLETTER], MAIN, NEWSLETTER)
    assert await answer(conn, held, ready, Fate.DONE, later, sent_at=later) == {Verdict.SETTLED: 1}
    assert (await row(conn))["stop"] is True
    assert await lease(conn, later) is not None


async def test_a_hold_that_is_not_told_to_an_account_does_not_turn_its_pushes_round(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    """Who bounced, chose one topic back and paused it is, for an account that hears of no bounces, paused and then back."""
    await stop(conn, jane, now, MARKETING)
    bounce = Change(jane, 0, Cause.BOUNCE, Effect.STOP, Door.PROVIDER, "sendgrid-main/e1", now, by="sendgrid-main")
    await ledger.record(conn, [bounce], now=now)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    await go(conn, jane, now)
    later = now + SETTLE + QUIET
    held = await leased(conn, later, stop=False)
    assert [each.stop for each in await read(conn, held, later)] == [False]
    await outbox.release(conn, held, held.pushes, now=later)
    assert (await row(conn))["stop"] is False
    assert await end(conn, await leased(conn, later, stop=False), Fate.DONE, later) == {Verdict.SETTLED: 1}
    assert await left(conn) == 0
    paused = later + SETTLE
    await pause(conn, jane, paused, paused + DAY)
    await end(conn, await leased(conn, paused + SETTLE), Fate.DONE, paused + SETTLE)
    assert (await row(conn))["due_at"] == paused + DAY


async def test_an_address_whose_text_is_gone_waits_for_it(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    held = await leased(conn, now)
    await conn.execute("update address set plaintext = null")
    assert [each.text for each in await read(conn, held, now)] == [None]
    await outbox.release(conn, held, held.pushes, now=now)
    assert await lease(conn, now + 365 * DAY) is None
    await conn.execute("update address set plaintext = 'jane@example.org'")
    await texts_known(conn, [jane], now=now)
    assert await lease(conn, now) is not None


async def waiting_for_a_lock(conn: asyncpg.Connection, many: int) -> None:
    while (
        await conn.fetchval("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") < many
    ):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("verb", ["settle", "known"])
async def test_a_release_that_maps_anew_and_what_is_settled_meanwhile_never_wait_in_a_circle(
    database: str, conn: asyncpg.Connection, jane: Address, now: datetime, verb: str
) -> None:
    """Whoever has locked a row and asks for the mappings then would wait for a release that holds these and waits for the row."""
    await stop(conn, jane, now)
    held = await leased(conn, now)
    ready = await read(conn, held, now)
    ann, release, watcher = [await asyncpg.connect(database) for _ in range(3)]

    async def work() -> None:
        async with conn.transaction():
            if verb == "settle":
                assert await answer(conn, held, ready, Fate.DONE, now, sent_at=now) == {Verdict.SETTLED: 1}
            else:
                await texts_known(conn, [jane], now=now)
                await conn.fetchval("select count(*) from mapping")

    async def map_anew() -> None:
        async with release.transaction():
            await db.queries("numbers").lock_mappings(release)
            await db.queries("numbers").drop_mappings(release, accounts=[MAIN], scopes=[OFFERS])

    async with ann.transaction():  # who changes her mind at this moment makes both of them wait, each where it stands
        await ann.execute("select from push where bucket = $1 and account = $2 and key = $3 for update", jane.bucket, MAIN, jane.key)
        tasks = [asyncio.create_task(work())]
        await waiting_for_a_lock(watcher, 1)
        tasks.append(asyncio.create_task(map_anew()))
        await waiting_for_a_lock(watcher, 2)
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert await left(conn) == 0
    for each in (ann, release, watcher):
        await each.close()


# The end of a pause


async def test_an_account_hears_go_when_a_pause_ends_although_nothing_runs_then(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    until = now + 30 * DAY
    await pause(conn, jane, now, until)
    assert await end(conn, await leased(conn, now), Fate.DONE, now) == {Verdict.SETTLED: 1}
    assert await told(conn) == [True]
    future = await row(conn)
    assert (future["stop"], future["since"], future["due_at"], future["lease"]) == (False, until, until, None)
    assert await lease(conn, until - TICK, stop=False) is None
    over = until + TICK
    held = await leased(conn, over, stop=False)
    assert [each.stop for each in await read(conn, held, over)] == [False]
    assert await end(conn, held, Fate.DONE, over) == {Verdict.SETTLED: 1}
    assert await told(conn) == [True, False]
    assert await left(conn) == 0


async def test_a_pause_under_a_stop_for_ever_leaves_nothing_for_later(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await pause(conn, jane, now, now + DAY)
    await stop(conn, jane, now, MARKETING)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    assert await left(conn) == 0


async def test_of_two_pauses_the_latest_end_counts_and_one_elsewhere_does_not(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await pause(conn, jane, now, now + 2 * DAY)
    await pause(conn, jane, now, now + 5 * DAY, MARKETING)
    await pause(conn, jane, now, now + 9 * DAY, OFFERS)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    assert (await row(conn, scope=NEWSLETTER))["due_at"] == now + 5 * DAY
    assert (await row(conn, scope=OFFERS))["due_at"] == now + 9 * DAY


async def test_a_pause_made_longer_is_not_ended_early(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await pause(conn, jane, now, now + 2 * DAY)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    await pause(conn, jane, now + DAY, now + 9 * DAY)
    early = now + 2 * DAY + TICK
    held = await leased(conn, early, stop=False)
    assert [each.stop for each in await read(conn, held, early)] == [True]
    await outbox.release(conn, held, held.pushes, now=early)
    await end(conn, await leased(conn, early), Fate.DONE, early)
    assert (await row(conn))["due_at"] == now + 9 * DAY


async def test_a_pause_that_ends_while_the_stop_is_sent_is_followed_by_a_go(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    until = now + 10 * TICK
    await pause(conn, jane, now, until)
    held = await leased(conn, now)
    assert await end(conn, held, Fate.DONE, until + TICK, sent_at=until - TICK) == {Verdict.SETTLED: 1}
    assert ((await row(conn))["stop"], (await row(conn))["due_at"]) == (False, until)


async def test_who_resumes_before_the_end_is_told_go_then(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await pause(conn, jane, now, now + 30 * DAY)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    resumed = now + DAY
    await go(conn, jane, resumed, cause=Cause.PAUSE)
    assert (await row(conn))["since"] == resumed
    assert await lease(conn, resumed + QUIET, stop=False) is not None


async def test_a_pause_whose_stop_is_still_unsure_is_asserted_again_first(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await pause(conn, jane, now, now + 30 * DAY)
    await end(conn, await leased(conn, now), Fate.UNKNOWN, now)
    await end(conn, await leased(conn, now + 9 * TICK), Fate.DONE, now + 9 * TICK)
    assert ((await row(conn))["stop"], await told(conn)) == (True, [])
    sure = now + SETTLE + 10 * TICK
    await end(conn, await leased(conn, sure), Fate.DONE, sure)
    assert ((await row(conn))["stop"], await told(conn)) == (False, [True])


# What is owed


async def test_a_stop_taken_back_before_it_was_told_is_told_to_nobody(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    """A go alone would take away an opt-out of the provider's own that we never made."""
    pressed = change(jane, NEWSLETTER, Effect.STOP, now)
    await ledger.record(conn, [pressed], now=now)
    assert await left(conn) == 1
    await ledger.record(conn, [ledger.withdrawal(pressed, now=now + TICK)], now=now + TICK)
    assert await left(conn) == 0


@pytest.mark.parametrize("fate", [Fate.DONE, Fate.UNKNOWN, Fate.CUT])
async def test_a_stop_that_may_have_been_told_is_taken_back_there_too(
    conn: asyncpg.Connection, jane: Address, now: datetime, fate: Fate
) -> None:
    pressed = change(jane, NEWSLETTER, Effect.STOP, now)
    await ledger.record(conn, [pressed], now=now)
    await end(conn, await leased(conn, now), fate, now)
    await ledger.record(conn, [ledger.withdrawal(pressed, now=now + TICK)], now=now + TICK)
    assert (await row(conn))["stop"] is False


async def test_a_stop_that_is_on_its_way_is_taken_back_there_too(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    pressed = change(jane, NEWSLETTER, Effect.STOP, now)
    await ledger.record(conn, [pressed], now=now)
    await leased(conn, now)
    await ledger.record(conn, [ledger.withdrawal(pressed, now=now + TICK)], now=now + TICK)
    assert (await row(conn))["stop"] is False


async def test_whoever_told_us_of_a_stop_is_told_of_the_go(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    told_us = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.PROVIDER, "sendgrid-main/e1", now, by="sendgrid-main")
    await ledger.record(conn, [told_us], now=now)
    assert await left(conn) == 0
    await go(conn, jane, now + TICK)
    await stop(conn, jane, now + 2 * TICK)
    await go(conn, jane, now + 3 * TICK)
    assert (await row(conn))["stop"] is False  # the stop in between was not told, the provider's own stands


async def test_a_stop_told_long_ago_is_not_forgotten_by_a_later_one_that_was_not(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await stop(conn, jane, now)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    resubscribed = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.NOTE, Door.PROVIDER, "sendgrid-main/e1", now, by="sendgrid-main")
    await ledger.record(conn, [resubscribed], now=now + TICK)
    assert (await row(conn))["stop"] is True
    await go(conn, jane, now + 2 * TICK)
    assert (await row(conn))["stop"] is False


async def test_an_event_from_before_we_told_go_is_not_what_the_account_believes_now(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    """The stop that comes late was lifted there by our own request: the account must hear it again."""
    await chosen_back(conn, jane, now)
    later = now + 2 * SETTLE
    await end(conn, await leased(conn, later, stop=False), Fate.DONE, later)
    assert await told(conn) == [True, False]
    late = Change(jane, NEWSLETTER, Cause.STAFF, Effect.STOP, Door.STAFF, "s", now, by="sendgrid-main")
    said = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.PROVIDER, "sendgrid-main/e1", now, by="sendgrid-main")
    await ledger.record(conn, [late, said], now=later + TICK)
    assert (await row(conn))["stop"] is True


async def test_an_event_from_after_we_told_go_is_what_the_account_believes(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await chosen_back(conn, jane, now)
    later = now + 2 * SETTLE
    await end(conn, await leased(conn, later, stop=False), Fate.DONE, later)
    since = later + TICK
    said = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.PROVIDER, "sendgrid-main/e1", since, by="sendgrid-main")
    await ledger.record(conn, [said], now=since)
    assert await left(conn) == 0


@pytest.mark.parametrize(("first", "second", "owed"), [(Effect.STOP, Effect.NOTE, 1), (Effect.NOTE, Effect.STOP, 0)])
@pytest.mark.parametrize("backwards", [False, True])
async def test_of_what_one_delivery_says_the_latest_is_believed_whatever_its_place(
    conn: asyncpg.Connection, jane: Address, now: datetime, first: Effect, second: Effect, owed: int, backwards: bool
) -> None:
    def said(effect: Effect, at: datetime) -> Change:
        return Change(jane, NEWSLETTER, Cause.CHOICE, effect, Door.PROVIDER, f"sendgrid-main/{effect}", at, by="sendgrid-main")

    changes = [said(first, now - 2 * TICK), said(second, now - TICK)]
    await ledger.record(conn, changes[::-1] if backwards else changes, now=now)
    assert await left(conn) == owed


@pytest.mark.parametrize(("first", "second", "owed"), [(Effect.STOP, Effect.NOTE, 1), (Effect.NOTE, Effect.STOP, 0)])
async def test_of_what_was_said_in_one_second_the_last_in_the_delivery_is_believed(
    conn: asyncpg.Connection, jane: Address, now: datetime, first: Effect, second: Effect, owed: int
) -> None:
    changes = [
        Change(jane, NEWSLETTER, Cause.CHOICE, effect, Door.PROVIDER, f"sendgrid-main/{effect}", now, by="sendgrid-main")
        for effect in (first, second)
    ]
    await ledger.record(conn, changes, now=now)
    assert await left(conn) == owed


async def test_who_is_chosen_back_within_a_pause_is_told_go_at_its_end(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now)
    await end(conn, await leased(conn, now), Fate.DONE, now)
    until = now + 30 * DAY
    await pause(conn, jane, now + TICK, until)
    assert await left(conn) == 0
    await go(conn, jane, now + 2 * TICK)
    later = await row(conn)
    assert (later["stop"], later["since"], later["due_at"]) == (False, until, until)
    await go(conn, jane, now + 3 * TICK, cause=Cause.PAUSE)
    assert (await row(conn))["due_at"] == now + 3 * TICK


# Addresses known by their key alone


async def test_an_address_known_by_key_is_leased_when_its_text_becomes_known(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    jane = addresses.read("jane@example.org")
    await stop(conn, Address(jane.key), now)
    assert await lease(conn, now + DAY) is None
    await texts_known(conn, [jane], now=now)  # not yet: the table does not know it either
    assert await lease(conn, now + DAY) is None
    await conn.execute("update address set plaintext = 'jane@example.org', channel = 'email'")
    await texts_known(conn, [jane, addresses.read("nobody@example.org")], now=now + DAY)
    assert await lease(conn, now + DAY - TICK) is None
    assert len((await leased(conn, now + DAY)).pushes) == 1


async def test_a_text_that_becomes_known_hurries_nobody_who_waits_for_something_else(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    ann, bob = [await introduce(conn, addresses, f"{name}@example.org") for name in ("ann", "bob")]
    await stop(conn, ann, now)
    await end(conn, await leased(conn, now), Fate.REFUSED, now, detail="http_400")
    await texts_known(conn, [ann], now=now)
    assert (await row(conn))["due_at"] == now + timedelta(minutes=15)
    await pause(conn, bob, now, now + DAY, OFFERS)
    held = await leased(conn, now)
    ready = await read(conn, held, now)
    await conn.execute("update address set plaintext = null where key = $1", bob.key)
    await answer(conn, held, ready, Fate.DONE, now, sent_at=now)
    await conn.execute("update address set plaintext = 'bob@example.org' where key = $1", bob.key)
    await texts_known(conn, [bob], now=now)
    assert (await row(conn, scope=OFFERS))["due_at"] == now + DAY  # the end of the pause


async def test_who_turns_out_to_be_a_phone_is_owed_nothing_at_an_account_for_mail(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    await conn.execute("insert into account (account, name, channel) values (9, 'texts', 'sms')")
    await conn.execute("insert into mapping (account, scope, path) values (9, $1, $2)", NEWSLETTER, [MARKETING, NEWSLETTER])
    phone = addresses.read("+15005550006")
    await stop(conn, Address(phone.key), now)
    assert await conn.fetchval("select count(*) from push") == 3
    await conn.execute("update address set plaintext = '+15005550006', channel = 'sms'")
    await texts_known(conn, [replace(phone, channel=Channel.SMS)], now=now)
    assert [r["account"] for r in await conn.fetch("select account from push")] == [9]


# Owners and gates


async def test_an_account_has_one_owner_at_a_time(conn: asyncpg.Connection, now: datetime) -> None:
    one, two = uuid4(), uuid4()
    assert await outbox.own(conn, MAIN, one, until=now + LEASE, now=now) == Gate(False, False)
    assert await outbox.own(conn, MAIN, two, until=now + LEASE, now=now) is None
    assert await outbox.own(conn, SECOND, two, until=now + LEASE, now=now) == Gate(False, False)
    half = now + LEASE / 2
    assert await outbox.own(conn, MAIN, one, until=half + LEASE, now=half) is not None
    assert await outbox.own(conn, MAIN, two, until=now + 2 * LEASE, now=now + LEASE) is None  # it was renewed
    assert await outbox.own(conn, MAIN, two, until=now + 3 * LEASE, now=half + LEASE) is not None
    assert await outbox.own(conn, MAIN, one, until=now + 3 * LEASE, now=half + LEASE) is None


async def look(conn: asyncpg.Connection, owner: UUID, at: datetime) -> Outlook:
    return await outbox.look(conn, MAIN, owner, lapsing=at + LEASE / 2, now=at)


async def test_a_look_says_whose_the_account_is_and_for_how_long(conn: asyncpg.Connection, now: datetime) -> None:
    one, two = uuid4(), uuid4()
    free, opened = Outlook(False, True, Gate(False, False)), Gate(False, False)
    assert await look(conn, one, now) == free
    await outbox.own(conn, MAIN, one, until=now + LEASE, now=now)
    assert await look(conn, one, now) == Outlook(False, False, opened)
    assert await look(conn, two, now) == Outlook(True, True, opened)
    half, over = now + LEASE / 2, now + LEASE
    assert await look(conn, one, half) == Outlook(False, True, opened)
    assert (await look(conn, two, over)).taken is False
    await outbox.wait(conn, MAIN, until=now + HOUR, now=now, barred=True)
    assert (await look(conn, one, now)).gate == Gate(True, True)
    await outbox.disown(conn, MAIN, one)
    assert ((await look(conn, two, now)).taken, (await look(conn, one, now)).lapsing) == (False, True)


async def test_a_lease_of_nothing_writes_nothing(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    await stop(conn, jane, now + DAY)
    for wanted, at in ((True, now), (False, now), (True, now + DAY)):  # the last is the control
        async with conn.transaction():
            found = await lease(conn, at, stop=wanted)
            assert (await conn.fetchval("select pg_current_xact_id_if_assigned()") is not None) == (found is not None) == (at > now)


async def test_who_lets_go_makes_nobody_wait_and_takes_nothing_from_another(conn: asyncpg.Connection, now: datetime) -> None:
    one, two, three = uuid4(), uuid4(), uuid4()
    await outbox.own(conn, MAIN, one, until=now + LEASE, now=now)
    await outbox.disown(conn, MAIN, one)
    assert await outbox.own(conn, MAIN, two, until=now + LEASE, now=now) is not None
    await outbox.disown(conn, MAIN, one)
    assert await outbox.own(conn, MAIN, three, until=now + LEASE, now=now) is None


async def test_of_many_who_ask_at_once_one_owns(database: str, now: datetime) -> None:
    pool = await asyncpg.create_pool(database, min_size=8, max_size=8)

    async def ask() -> bool:
        async with pool.acquire() as connection:
            return await outbox.own(connection, MAIN, uuid4(), until=now + LEASE, now=now) is not None

    assert sum(await asyncio.gather(*(ask() for _ in range(40)))) == 1
    await pool.close()


async def test_a_wait_shuts_the_gate_and_is_neither_shortened_nor_longer_than_an_hour(conn: asyncpg.Connection, now: datetime) -> None:
    me = uuid4()

    async def shut(at: datetime) -> bool:
        gate = await outbox.own(conn, MAIN, me, until=at + LEASE, now=at)
        assert gate is not None
        return gate.shut

    await outbox.wait(conn, MAIN, until=now + 10 * HOUR, now=now)
    await outbox.wait(conn, MAIN, until=now + TICK, now=now)
    assert await shut(now)
    assert await shut(now + HOUR - TICK)
    assert not await shut(now + HOUR)


async def test_a_mended_credential_is_tried_at_once_and_a_wait_that_was_asked_for_is_kept(conn: asyncpg.Connection, now: datetime) -> None:
    me = uuid4()
    await outbox.wait(conn, MAIN, until=now + HOUR, now=now, barred=True)
    await outbox.wait(conn, SECOND, until=now + HOUR, now=now)
    assert await outbox.own(conn, MAIN, me, until=now + LEASE, now=now) == Gate(True, True)
    await outbox.reopen(conn, MAIN)
    await outbox.reopen(conn, SECOND)
    assert await outbox.own(conn, MAIN, me, until=now + LEASE, now=now) == Gate(False, False)
    assert await outbox.own(conn, SECOND, me, until=now + LEASE, now=now) == Gate(True, False)


async def test_a_wait_does_not_say_that_a_refused_credential_is_accepted(conn: asyncpg.Connection, now: datetime) -> None:
    me = uuid4()
    await outbox.wait(conn, MAIN, until=now, now=now, barred=True)
    await outbox.wait(conn, MAIN, until=now, now=now)
    assert await outbox.own(conn, MAIN, me, until=now + LEASE, now=now) == Gate(False, True)
    await outbox.admitted(conn, MAIN)
    assert await outbox.own(conn, MAIN, me, until=now + LEASE, now=now) == Gate(False, False)


# Figures


async def test_the_figures_count_everything_that_can_be_told_now(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    people = [await introduce(conn, addresses, f"p{n}@example.org") for n in range(4)]
    oldest = now - 3 * DAY
    await stop(conn, people[0], oldest)
    await end(conn, await leased(conn, oldest), Fate.REFUSED, oldest, detail="http_400")  # dead
    await stop(conn, people[1], now - DAY)
    await end(conn, await leased(conn, now - DAY), Fate.UNKNOWN, now - DAY)  # backing off
    await conn.execute("update push set due_at = $1 where refused is null and account = 1", now + HOUR)
    await stop(conn, people[2], now)
    await leased(conn, now)  # leased
    await stop(conn, Address(addresses.read("unknown@example.org").key), oldest - DAY)
    await pause(conn, people[3], now, now + DAY)
    await conn.execute("delete from push where account = 2")
    await end(conn, await leased(conn, now), Fate.DONE, now)  # a pause that was told: later is not now
    assert await outbox.sync(conn, now=now) == [
        Figures("sendgrid-main", 3, 1, oldest, 1, oldest + 2 * DAY, oldest + DAY, 1),
        Figures("sendgrid-second", 0, 0, None, 0),
    ]
    assert (await outbox.sync(conn, now=now + DAY))[0].waiting == 4


async def test_the_clock_counts_stops_alone_and_nothing_stops_it_but_a_proof(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    await chosen_back(conn, jane, now - 9 * DAY)
    assert (await outbox.sync(conn, now=now))[0].next_deadline_at is None  # a go has no deadline
    await stop(conn, jane, now, OFFERS)
    for late in (HOUR, 30 * HOUR, 60 * HOUR):
        held = await leased(conn, now + late)
        await end(conn, held, Fate.UNKNOWN, now + late)
        figures = (await outbox.sync(conn, now=now + late))[0]
        assert (figures.next_deadline_at, figures.late) == (now + 2 * DAY, int(late > 2 * DAY))
    await conn.execute("update account set channel = 'sms' where account = $1", MAIN)
    figures = (await outbox.sync(conn, now=now + 3 * DAY))[0]  # the same stop by text: a Sunday, and Thanksgiving on the way
    assert (figures.next_deadline_at, figures.late) == (datetime(2026, 12, 8, 5, tzinfo=UTC), 0)


# Accounts that change


async def test_a_scope_that_is_mapped_no_longer_is_told_to_nobody_and_counted_nowhere(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    """Whoever leases it still, an older release perhaps, sends nothing about it, and the other scopes go on."""
    await stop(conn, jane, now, MARKETING)
    held = await leased(conn, now)
    assert {push.scope for push in held.pushes} == {NEWSLETTER, OFFERS}
    await conn.execute("delete from mapping where account = $1 and scope = $2", MAIN, NEWSLETTER)
    assert [each.push.scope for each in await read(conn, held, now)] == [OFFERS]
    assert (await outbox.sync(conn, now=now))[0].waiting == 1
    assert await end(conn, held, Fate.DONE, now) == {Verdict.SETTLED: 1}
    assert (await outbox.sync(conn, now=now))[0] == Figures("sendgrid-main", 0, 0, None, 0)


async def test_a_scope_that_a_release_maps_anew_is_left_to_a_worker_that_knows_the_new_id(
    conn: asyncpg.Connection, jane: Address, now: datetime
) -> None:
    """Whoever still works with the old catalogue would tell the old group, and the new one would never hear of it."""
    await stop(conn, jane, now)
    held = await leased(conn, now)
    await conn.execute("update mapping set called = 'sendgrid/999' where account = $1 and scope = $2", MAIN, NEWSLETTER)
    assert await read(conn, held, now) == []
    await outbox.release(conn, held, held.pushes, now=now)
    assert await lease(conn, now) is None
    newer = {NEWSLETTER: "sendgrid/999"}
    found = await outbox.lease(conn, MAIN, called=newer, stop=True, most=9, until=now + LEASE, settle=SETTLE, quiet=QUIET, now=now)
    assert found is not None
    assert [each.stop for each in await read(conn, found, now)] == [True]


async def test_nobody_is_told_to_an_account_that_cannot_reach_them_any_more(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    """Under its name there is a provider for texts now: no e-mail address goes there."""
    await stop(conn, jane, now)
    held = await leased(conn, now)
    assert len(await read(conn, held, now)) == 1
    await conn.execute("update account set channel = 'sms' where account = $1", MAIN)
    assert await read(conn, held, now) == []


async def test_what_is_owed_is_owed_since_the_first_time(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    """However often the mind is changed meanwhile: the clock of a stop counts from when it was first asked for."""
    await stop(conn, jane, now)
    for hours, change_mind in enumerate((go, stop, go, stop), 1):
        await leased(conn, now + hours * HOUR, stop=change_mind is go)  # it may have been told: else it would be owed no more
        await change_mind(conn, jane, now + hours * HOUR)
        assert (await row(conn))["since"] == now
    assert (await outbox.sync(conn, now=now + DAY))[0].oldest_at == now


# All together

PLACES = [(NEWSLETTER, [MARKETING, NEWSLETTER]), (OFFERS, [MARKETING, OFFERS])]


async def change_minds(database: str, people: Sequence[Address], seed: int, now: datetime) -> None:
    dice = random.Random(seed)
    connection = await asyncpg.connect(database)
    for _ in range(60):
        at = now + timedelta(seconds=dice.random())
        some = dice.sample(people, 4)
        changes = [change(each, dice.choice(PLACES)[0], dice.choice([Effect.STOP, Effect.GO]), at) for each in some]
        await ledger.record(connection, changes, now=at)
    await connection.close()


async def carry(database: str, copy: dict[tuple[object, int], bool], seed: int, over: asyncio.Event, now: datetime) -> Counter[Verdict]:
    """Lease, send and settle until it is over and nothing is left; far enough apart that every go is quiet and every lease sure."""
    dice = random.Random(seed)
    connection = await asyncpg.connect(database)
    settled, idle = Counter[Verdict](), 0
    while not over.is_set() or idle < 6:
        now += QUIET + LEASE + SETTLE
        either = bool(idle % 2) if idle else dice.random() < 0.5  # by chance alone it could look six times where nothing is left
        found = await lease(connection, now, stop=either, most=10)
        idle = idle + 1 if found is None else 0
        await asyncio.sleep(dice.random() * 0.005)
        if found is None:
            continue
        ready = [each for each in await read(connection, found, now) if each.stop == found.stop]
        copy |= {(each.push.key, each.push.scope): each.stop for each in ready}
        settled += await answer(connection, found, ready, Fate.DONE, now, sent_at=now)
        await outbox.release(connection, found, found.pushes, now=now)
    await connection.close()
    return settled


async def test_whatever_interleaves_the_last_that_was_told_is_what_the_rule_says(
    database: str, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    """Writers change their minds while workers lease, send and settle: nobody waits for ever, and the copy ends up right."""
    people = [await introduce(conn, addresses, f"p{n}@example.org") for n in range(30)]
    copy: dict[tuple[object, int], bool] = {}
    over = asyncio.Event()
    workers = [asyncio.create_task(carry(database, copy, 100 + n, over, now)) for n in range(2)]
    await asyncio.wait_for(asyncio.gather(*(change_minds(database, people, n, now) for n in range(4))), 60)
    over.set()
    settled = sum(await asyncio.wait_for(asyncio.gather(*workers), 60), Counter[Verdict]())
    assert await left(conn) == 0
    assert settled[Verdict.SETTLED] > 50
    for scope, path in PLACES:
        held = "select key, held(stops, goes, pauses, $1, $2) held from address"
        for each in await conn.fetch(held, path, now):
            assert copy.get((each["key"], scope), False) == each["held"]
