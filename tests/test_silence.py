"""How long accounts have been silent: what is usual is learnt, what is unusual is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from prometheus_client import REGISTRY

from mailprefs import db, silence, worker
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing
from mailprefs.sandbox import sendgrid
from mailprefs.settings import Settings
from mailprefs.silence import LEARNING, SHORTEST, TIMES, WINDOW, Silence

pytestmark = pytest.mark.spread

NAME = "postmark-main"
BEGUN = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
HOUR, DAY, LOOK = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)


def alarms(account: str = NAME) -> float:
    """How often the process has alarmed for this account's silence."""
    return REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": "account_silent", "account": account}) or 0


def shown(account: str = NAME) -> float | None:
    return REGISTRY.get_sample_value("mailprefs_account_silent_seconds", {"account": account})


async def speak(conn: asyncpg.Connection, at: datetime, account: str = NAME, kind: str = "delivered") -> None:
    await db.queries("inbox").tally(conn, account=account, kinds=[kind], events=[1], now=at)


async def look(conn: asyncpg.Connection, at: datetime, *accounts: str) -> Silence | None:
    """Look as the worker does; return how the account is known then."""
    await silence.watch(conn, accounts or [NAME], now=at)
    return next(iter(await silence.known(conn, accounts[:1] or [NAME])), None)


async def live(conn: asyncpg.Connection, moments: Iterator[datetime] | list[datetime]) -> datetime:
    """Have the account speak at these moments, looked at a minute after and a minute before each; return the last look."""
    at = BEGUN
    for moment in moments:
        await look(conn, moment - LOOK)
        await speak(conn, moment)
        at = moment + LOOK
        await look(conn, at)
    return at


def every(step: timedelta, times: int) -> list[datetime]:
    return [BEGUN + step * n for n in range(times)]


OFTEN = every(8 * HOUR, 25)  # for eight days


async def test_an_account_that_used_to_speak_and_is_silent_for_longer_than_usual_alarms_once(conn: asyncpg.Connection) -> None:
    moments = OFTEN
    await live(conn, moments)
    before = alarms()
    await look(conn, moments[-1] + SHORTEST)
    assert alarms() == before  # the control: not yet
    for minutes in range(1, 4):
        await look(conn, moments[-1] + SHORTEST + minutes * LOOK)
    assert alarms() == before + 1
    assert shown() == (SHORTEST + 3 * LOOK).total_seconds()
    await look(conn, moments[-1] + 30 * DAY)
    assert alarms() == before + 1  # the same silence still


async def test_the_next_silence_alarms_anew(conn: asyncpg.Connection) -> None:
    moments = OFTEN
    await live(conn, moments)
    await look(conn, moments[-1] + 2 * DAY)
    before = alarms()
    back = moments[-1] + 3 * DAY
    await speak(conn, back)
    await look(conn, back + LOOK)
    assert shown() == LOOK.total_seconds()
    assert alarms() == before
    await look(conn, back + SHORTEST + LOOK)  # one outage has taught nothing
    assert alarms() == before + 1


async def test_what_happened_twice_is_usual(conn: asyncpg.Connection) -> None:
    weekly = every(7 * DAY, 4)
    await live(conn, weekly)
    before = alarms()
    known = await look(conn, weekly[-1] + 13 * DAY)
    assert known
    assert 7 * DAY - 2 * LOOK <= known.usual <= 7 * DAY
    assert alarms() == before
    await look(conn, weekly[-1] + 15 * DAY)
    assert alarms() == before + 1


async def test_an_account_is_learnt_before_anything_about_it_is_unusual(conn: asyncpg.Connection) -> None:
    moments = OFTEN[:21]  # eight hours short of it
    await live(conn, moments)
    before = alarms()
    await look(conn, moments[-1] + 20 * DAY)
    assert alarms() == before
    await speak(conn, moments[-1] + 21 * DAY)
    await look(conn, moments[-1] + 21 * DAY)
    await look(conn, moments[-1] + 23 * DAY)
    assert alarms() == before + 1  # the control: now it has been known for long


async def test_one_that_was_never_heard_is_not_silent(conn: asyncpg.Connection) -> None:
    assert await look(conn, BEGUN, "never-heard") is None
    assert shown("never-heard") is None


async def test_time_in_which_nobody_looked_is_no_silence(conn: asyncpg.Connection) -> None:
    """A worker that was away must not take what it missed for a gap, which would make the next outage usual."""
    await live(conn, OFTEN)
    end = BEGUN + 8 * DAY
    for n in (1, 2):  # away for ten days, twice, while the account spoke all along
        await speak(conn, end + n * 10 * DAY)
        await look(conn, end + n * 10 * DAY)
    known = await look(conn, end + 20 * DAY + LOOK)
    assert known
    assert known.limit == SHORTEST
    for n in (3, 4):  # the control: watched, the same silences are learnt
        await look(conn, end + n * 10 * DAY - LOOK)
        await speak(conn, end + n * 10 * DAY)
    known = await look(conn, end + 40 * DAY + LOOK)
    assert known
    assert known.limit > 19 * DAY


async def test_what_is_usual_does_not_fade_while_an_account_is_silent(conn: asyncpg.Connection) -> None:
    weekly = every(7 * DAY, 4)
    await live(conn, weekly)
    first = await look(conn, weekly[-1] + LOOK)
    last = await look(conn, weekly[-1] + WINDOW * 2)
    assert first
    assert last
    assert first.usual == last.usual


async def test_what_is_older_than_the_window_is_forgotten(conn: asyncpg.Connection) -> None:
    await live(conn, every(7 * DAY, 4))
    daily = [BEGUN + 21 * DAY + WINDOW + n * DAY for n in range(3)]
    await live(conn, daily)
    assert await conn.fetchval("select min(day) from gap") >= (daily[-1] - WINDOW).date()
    known = await look(conn, daily[-1] + LOOK)
    assert known
    assert known.usual <= DAY


async def test_workers_that_look_at_once_learn_the_same_and_alarm_once(conn: asyncpg.Connection, database: str) -> None:
    others = [await asyncpg.connect(database) for _ in range(4)]
    names = [NAME, *(f"account-{n}" for n in range(20))]

    async def all_look(at: datetime) -> None:
        await asyncio.gather(*(silence.watch(other, names[::step], now=at) for other, step in zip(others, (1, -1, 1, -1), strict=True)))

    for moment in OFTEN:
        for name in names:
            await speak(conn, moment, name)
        await all_look(moment + LOOK)
        await all_look(moment + 8 * HOUR - LOOK)
    known = await silence.known(conn, names)
    assert {each.usual for each in known} == {8 * HOUR - LOOK}
    before = alarms()
    await all_look(OFTEN[-1] + 2 * DAY)
    for other in others:
        await other.close()
    assert alarms() == before + 1


async def test_an_account_that_is_gone_from_the_catalogue_alarms_nobody(conn: asyncpg.Connection) -> None:
    moments = OFTEN
    await live(conn, moments)
    before = alarms()
    await look(conn, moments[-1] + 2 * DAY, "another")
    assert alarms() == before


async def test_a_clock_that_steps_back_makes_no_silence_negative(conn: asyncpg.Connection) -> None:
    await live(conn, OFTEN)
    await look(conn, BEGUN)
    assert shown() == 0
    await speak(conn, BEGUN + 9 * DAY)
    assert await look(conn, BEGUN + 9 * DAY)


@pytest.mark.parametrize(("usual", "limit"), [(timedelta(), SHORTEST), (SHORTEST / TIMES, SHORTEST), (3 * DAY, 3 * DAY * TIMES)])
def test_too_long_is_twice_the_usual_and_never_less_than_a_day(usual: timedelta, limit: timedelta) -> None:
    each = Silence(NAME, BEGUN, BEGUN + LEARNING, usual)
    assert not each.unusual(BEGUN + LEARNING + limit)
    assert each.unusual(BEGUN + LEARNING + limit + timedelta(seconds=1))


async def test_the_worker_looks(conn: asyncpg.Connection, database: str, shared_catalogue: Catalogue, ring: KeyRing) -> None:
    _, public = sendgrid.key_pair()
    secrets = {v: public if name == "webhook_key" else "SG." + "x" * 40 for a in shared_catalogue.account for name, v in a.secrets.items()}
    await speak(conn, datetime.now(UTC), "sendgrid-main")
    pool, stop = await db.pool(database, size=4, command_timeout=5, purpose="tests"), asyncio.Event()
    working = asyncio.create_task(worker.work(pool, shared_catalogue, ring, Settings().lending(secrets), stop=stop))
    async with asyncio.timeout(20):
        while not (seen := await conn.fetch("select account from silence")):
            await asyncio.sleep(0.05)
    stop.set()
    await working
    pool.terminate()
    assert [row["account"] for row in seen] == ["sendgrid-main"]
