"""Supervises what runs beside the doors: one bulkhead per account, whose trouble delays no other. Stops cleanly.

The machine's clock is read here and handed on.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from aiohttp import ClientSession

from mailprefs import courier, db, exports, inbox, lmtp, numbers, outbox, post, reconcile, silence, telemetry, webhooks
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.courier import Courier, Route, Timing
from mailprefs.errors import Busy, Unavailable
from mailprefs.exports import Maker
from mailprefs.links import KeyRing
from mailprefs.mailroom import Mailroom
from mailprefs.post import Postman
from mailprefs.providers import PROVIDERS, engaged
from mailprefs.providers.base import Barred, Ear, Provider, Slow, Unclear, Unlisted, Unsafe
from mailprefs.providers.calling import session
from mailprefs.reconcile import Books, Shrunk
from mailprefs.settings import Settings
from mailprefs.webhooks import Herald
from mailprefs.words import Clock

MEASURED_EVERY = 15  # seconds
SPARED = 20  # times what it took passes between two looks at all that is owed, so that counting millions is a twentieth of the work at most
TOLD_EVERY = 1  # seconds between two looks for what an endpoint of the sender's own has not heard
MAILED_EVERY = 1  # seconds between two looks for a mail that we owe
FORGOTTEN_EVERY = 3600  # seconds
# Each provider's list with ours. Who was not told after 24 h is alarmed about. Who was, by a lie while a list was being read, is found by
# the next one: within the 48 h of mail, if looking and reading the lists take less than four hours.
COMPARED_EVERY = timedelta(hours=20)
ASKED_EVERY = 600  # seconds between two looks whether that is due
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
LONGEST = timedelta(hours=12)  # that one list may take
MADE_EVERY = 1  # seconds between two looks for an export that was asked for
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
    unhurried: db.Pool | None = None,
    begun: Callable[[], None] = lambda: None,
) -> None:
    """Work until ``stop`` is set; then what is in flight is settled and the rest given back. Says so once it has ``begun``.

    Over ``unhurried``, a pool of two whose statements may take their time, the providers' lists are compared with ours, and exports are
    made, if it is there.
    Raises Misconfigured, before anything is sent, if an account could not be told or would do harm; Unavailable without a database.
    """
    async with AsyncExitStack() as stack:
        couriers = [
            await stack.enter_async_context(_engaged(route, pool, clock, timing or Timing(), stop))
            for route in await _routes(pool, catalogue, ring, settings, clock, providers)
        ]
        heralds = await _heralds(stack, pool, catalogue, settings, clock)
        postman = await _postman(stack, pool, catalogue, ring, settings, clock)
        if settings.lmtp_port is not None:
            room = Mailroom(catalogue, Addresses(ring.digest), ring, settings.authserv)
            await stack.enter_async_context(lmtp.listening(room, pool, settings.lmtp_port, clock))
        begun()
        async with asyncio.TaskGroup() as loops:
            for each in couriers:
                loops.create_task(_supervised(each.route.name, each.round, stop, idle=each.timing.poll.total_seconds()))
            for endpoint in heralds:
                loops.create_task(_supervised(endpoint.webhook.name, endpoint.round, stop, idle=TOLD_EVERY))
            loops.create_task(_supervised("", postman.round, stop, idle=MAILED_EVERY))
            if unhurried:
                nightly = Nightly([each.route for each in couriers], catalogue, Addresses(ring.digest), unhurried, clock, stop)
                loops.create_task(_supervised("", nightly.round, stop, idle=ASKED_EVERY))
                maker = Maker(settings.home.absolute() / exports.FOLDER, catalogue, ring, clock, settings.read_database_url)
                loops.create_task(_supervised("", partial(_make, maker, unhurried, stop), stop, idle=MADE_EVERY))
            measured = Spared(partial(_measure, pool, clock), clock)
            loops.create_task(_supervised("", measured.round, stop, idle=MEASURED_EVERY))
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
            routes.append(
                Route(each.name, accounts[each.name], provider, credential, catalogue.mapped(each), catalogue.called(each), each.settle)
            )
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


async def _heralds(stack: AsyncExitStack, pool: db.Pool, catalogue: Catalogue, settings: Settings, clock: Clock) -> list[Herald]:
    """Return who tells each endpoint of the sender's own. Raises Misconfigured for a secret that is missing or short."""
    keys = {each.name: webhooks.secret(each, settings) for each in catalogue.webhook}
    async with db.acquired(pool) as connection:
        await webhooks.introduce(connection, catalogue, now=clock())
    return [
        Herald(each, keys[each.name], catalogue, pool, await stack.enter_async_context(webhooks.session(each)), clock)
        for each in catalogue.webhook
    ]


async def _postman(stack: AsyncExitStack, pool: db.Pool, catalogue: Catalogue, ring: KeyRing, settings: Settings, clock: Clock) -> Postman:
    """Return who sends the mails that we owe. Raises Misconfigured for an SMTP_URL that is none, or a secret that is missing or short."""
    mailers = [each for each in catalogue.webhook if each.name in {brand.mailer for brand in catalogue.brand}]
    handed = {
        each.name: post.Handed(each, webhooks.secret(each, settings), await stack.enter_async_context(webhooks.session(each)))
        for each in mailers
    }
    return Postman(catalogue, ring, pool, post.ways(settings, catalogue, handed), clock)


@dataclass(frozen=True)
class Nightly:
    """Every twenty hours, lays each provider's lists beside ours and heals: one after the other, so that one connection is enough.

    A list that does not come whole is alarmed about and asked for again at the next look, one that is not there as late as any; the others
    go on.
    """

    routes: Sequence[Route]
    catalogue: Catalogue
    addresses: Addresses
    unhurried: db.Pool
    clock: Clock
    stop: asyncio.Event
    futile: dict[tuple[int, int], datetime] = field(default_factory=dict)  # (account, scope) → when it was asked for in vain

    async def round(self) -> bool:
        """Compare what is due."""
        for route in self.routes:
            async with db.acquired(self.unhurried) as connection:
                scopes = await reconcile.due(connection, route.number, route.groups, before=self.clock() - COMPARED_EVERY)
            for scope in scopes:
                if self.clock() - self.futile.get((route.number, scope), _LONG_AGO) > COMPARED_EVERY:
                    await _unless(self.stop, self._compare(route, scope))
        return False

    async def _compare(self, route: Route, scope: int) -> None:
        try:
            async with asyncio.timeout(LONGEST.total_seconds()), db.acquired(self.unhurried) as connection, session(1) as http:
                with suppress(Busy):  # another worker does it
                    (report,) = await self._books(route, scope, connection, http).compare(heal=True, unasked=True)
                    if report.wants_a_person:
                        self.futile[route.number, scope] = self.clock()
        except Unlisted:
            if (route.number, scope) not in self.futile:  # said once: the courier tells its stops again from time to time
                telemetry.log.info("no_list_to_compare", account=route.name)
            self.futile[route.number, scope] = self.clock()
        except (Slow, Barred, Unsafe, Unclear, Shrunk, TimeoutError) as error:
            telemetry.alarm("list_not_compared", account=route.name, why=type(error).__name__)
            if isinstance(error, Unsafe | Shrunk):
                self.futile[route.number, scope] = self.clock()

    def _books(self, route: Route, scope: int, connection: db.Connection, http: ClientSession) -> Books:
        said = route.provider, route.credential, {scope: route.groups[scope]}, {scope: self.catalogue.by_number[scope].name}
        return Books(route.name, route.number, *said, connection, http, self.addresses, self.clock, route.settle)


async def _make(maker: Maker, pool: db.Pool, stop: asyncio.Event) -> bool:
    made = False

    async def one() -> None:
        nonlocal made
        async with db.acquired(pool) as connection:
            made = await maker.round(connection)

    await _unless(stop, one())
    return made


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Work to the end, or until ``stop`` is set: then the work is broken off."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        broken_off = not working.done()
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait({working, stopping})
    if not broken_off:
        working.result()


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


@dataclass
class Spared:
    """Takes a turn, and lets ``SPARED`` times as long as it took pass before the next, also where it failed."""

    turn: Callable[[], Awaitable[bool]]
    clock: Clock
    ended_at: datetime = _LONG_AGO
    due_at: datetime = _LONG_AGO

    async def round(self) -> bool:
        """Take the turn if it is due, and return what it returned."""
        began_at = self.clock()
        if self.ended_at <= began_at < self.due_at:  # a clock that was set back since holds up nothing
            return False
        try:
            return await self.turn()
        finally:
            self.ended_at = self.clock()
            self.due_at = self.ended_at + SPARED * (self.ended_at - began_at)


async def _measure(pool: db.Pool, clock: Clock) -> bool:
    now = clock()
    for each in await _figures(pool, clock):
        age = (now - each.oldest_at).total_seconds() if each.oldest_at else 0
        telemetry.gauge("oldest_unsynced_age_seconds", max(age, 0), account=each.account)
        telemetry.gauge("pushes_waiting", each.waiting, account=each.account)
        telemetry.gauge("pushes_no_address", each.no_address, account=each.account)
        telemetry.gauge("pushes_dead", each.dead, account=each.account)
        telemetry.gauge("pushes_late", each.late, account=each.account)
        if each.warned_at and each.warned_at <= now:  # half of the time is gone: before the deadline, while something can be done
            telemetry.alarm("deadline_near", account=each.account)
    return False


async def _watch(pool: db.Pool, catalogue: Catalogue, clock: Clock) -> bool:
    async with db.acquired(pool) as connection:
        await silence.watch(connection, [account.name for account in catalogue.account], now=clock())
    return False


async def _forget(pool: db.Pool, catalogue: Catalogue, clock: Clock) -> bool:
    async with db.acquired(pool) as connection:
        await inbox.forget(connection, catalogue, now=clock())
        await post.forget(connection, now=clock())
    return False


async def _figures(pool: db.Pool, clock: Clock) -> list[outbox.Figures]:
    async with db.acquired(pool) as connection:
        return await outbox.sync(connection, now=clock())
