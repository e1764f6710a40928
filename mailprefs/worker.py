"""Supervises what runs beside the doors: one bulkhead per account, whose trouble delays no other. Stops cleanly.

The machine's clock is read here and handed on.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

from mailprefs import courier, db, inbox, lmtp, numbers, outbox, silence, telemetry
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.courier import Clock, Courier, Route, Timing
from mailprefs.errors import Unavailable
from mailprefs.links import KeyRing
from mailprefs.mailroom import Mailroom
from mailprefs.providers import PROVIDERS, engaged
from mailprefs.providers.base import Ear, Provider
from mailprefs.providers.calling import session
from mailprefs.settings import Settings

MEASURED_EVERY = 15  # seconds
FORGOTTEN_EVERY = 3600  # seconds
WATCHED_EVERY = 60  # seconds: what is learnt of silences is as exact as that
PATIENCE = 5  # times the usual pause after a turn that failed

Providers = Mapping[str, Ear]


def wall_clock() -> datetime:
    """Return the machine's time, in UTC."""
    return datetime.now(UTC)


async def work(
    pool: db.Pool,
    catalogue: Catalogue,
    ring: KeyRing,
    settings: Settings,
    *,
    stop: asyncio.Event,
    clock: Clock = wall_clock,
    timing: Timing | None = None,
    providers: Providers = PROVIDERS,
) -> None:
    """Work until ``stop`` is set; then what is in flight is settled and the rest given back.

    Raises Misconfigured, before anything is sent, if an account could not be told or would do harm; Unavailable without a database.
    """
    async with AsyncExitStack() as stack:
        couriers = [
            await stack.enter_async_context(_engaged(route, pool, clock, timing or Timing(), stop))
            for route in await _routes(pool, catalogue, ring, settings, clock, providers)
        ]
        if settings.lmtp_port is not None:
            room = Mailroom(catalogue, Addresses(ring.digest), ring, settings.authserv)
            await stack.enter_async_context(lmtp.listening(room, pool, settings.lmtp_port, clock))
        async with asyncio.TaskGroup() as loops:
            for each in couriers:
                loops.create_task(_supervised(each.route.name, each.round, stop, idle=each.timing.poll.total_seconds()))
            loops.create_task(_supervised("", lambda: _measure(pool, clock), stop, idle=MEASURED_EVERY))
            loops.create_task(_supervised("", lambda: _forget(pool, catalogue, clock), stop, idle=FORGOTTEN_EVERY))
            loops.create_task(_supervised("", lambda: _watch(pool, catalogue, clock), stop, idle=WATCHED_EVERY))


async def drain(
    pool: db.Pool,
    catalogue: Catalogue,
    ring: KeyRing,
    settings: Settings,
    *,
    within: timedelta,
    clock: Clock = wall_clock,
    timing: Timing | None = None,
    providers: Providers = PROVIDERS,
) -> bool:
    """Work until nothing is left that can be told, or time is up; return whether every account has heard everything. Raises as ``work``."""
    stop = asyncio.Event()
    working = asyncio.create_task(work(pool, catalogue, ring, settings, stop=stop, clock=clock, timing=timing, providers=providers))
    try:
        async with asyncio.timeout(within.total_seconds()):
            while not working.done() and any(each.waiting > each.dead for each in await _figures(pool, clock)):
                await asyncio.wait([working], timeout=0.1)
    except TimeoutError:
        pass
    finally:
        stop.set()
        await working
    return not any(each.waiting for each in await _figures(pool, clock))


def heed_signals(stop: asyncio.Event) -> None:
    """Make SIGTERM and SIGINT set ``stop``, in the running loop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _routes(
    pool: db.Pool, catalogue: Catalogue, ring: KeyRing, settings: Settings, clock: Clock, providers: Providers
) -> list[Route]:
    """Return the accounts that are told anything, all of them checked, on a database that knows them."""
    known = {account.name: engaged(account, settings, providers) for account in catalogue.account}
    channels = {name: provider.channel for name, provider in providers.items()}
    async with db.acquired(pool) as connection:
        await numbers.ready(connection, catalogue, ring.fingerprints, channels, now=clock())
        accounts = await outbox.accounts(connection)
    routes = []
    for each in catalogue.account:
        provider, credential = known[each.name]
        if isinstance(provider, Provider) and catalogue.mapped(each):
            routes.append(Route(each.name, accounts[each.name], provider, credential, catalogue.mapped(each), each.settle))
        elif catalogue.mapped(each):  # what it is owed waits, and is counted as waiting
            telemetry.alarm("cannot_be_told_yet", account=each.name)
    return routes


@asynccontextmanager
async def _engaged(route: Route, pool: db.Pool, clock: Clock, timing: Timing, stop: asyncio.Event) -> AsyncIterator[Courier]:
    """Lend an account its courier. At the end it lets go of the account, so that the next worker need not wait."""
    async with session(courier.AT_ONCE) as http:
        each = Courier(route, pool, http, clock, timing, stop)
        async with each.desk() as connection:
            await outbox.reopen(connection, route.number)
        yield each
        with suppress(Unavailable):
            await each.leave()


async def _supervised(account: str, turn: Callable[[], Awaitable[bool]], stop: asyncio.Event, *, idle: float) -> None:
    """Take turns until ``stop`` is set: at once after a busy one, else after ``idle`` seconds. A turn that fails ends nothing else."""
    while not stop.is_set():
        try:
            pause = 0 if await turn() else idle
        except Unavailable:
            telemetry.log.warning("database_away", account=account)
            pause = idle * PATIENCE
        except Exception as error:
            telemetry.alarm("loop_failed", account=account)
            telemetry.log.error("loop_failed", account=account, exc_info=error)
            pause = idle * PATIENCE
        if pause:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)


async def _measure(pool: db.Pool, clock: Clock) -> bool:
    now = clock()
    for each in await _figures(pool, clock):
        age = (now - each.oldest_at).total_seconds() if each.oldest_at else 0
        telemetry.gauge("oldest_unsynced_age_seconds", max(age, 0), account=each.account)
        telemetry.gauge("pushes_waiting", each.waiting, account=each.account)
        telemetry.gauge("pushes_no_address", each.no_address, account=each.account)
        telemetry.gauge("pushes_dead", each.dead, account=each.account)
    return False


async def _watch(pool: db.Pool, catalogue: Catalogue, clock: Clock) -> bool:
    async with db.acquired(pool) as connection:
        await silence.watch(connection, [account.name for account in catalogue.account], now=clock())
    return False


async def _forget(pool: db.Pool, catalogue: Catalogue, clock: Clock) -> bool:
    async with db.acquired(pool) as connection:
        await inbox.forget(connection, catalogue, now=clock())
    return False


async def _figures(pool: db.Pool, clock: Clock) -> list[outbox.Figures]:
    async with db.acquired(pool) as connection:
        return await outbox.sync(connection, now=clock())
