"""The only wiring: rooms, doors and what stands between them and the world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

from aiohttp import http_parser, web

from mailprefs import db, groupcommit, numbers, post
from mailprefs import exports as kept
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue
from mailprefs.errors import Misconfigured
from mailprefs.groupcommit import GroupCommit
from mailprefs.inbox import Inbox
from mailprefs.links import KeyRing, by_brand
from mailprefs.providers import CHANNELS, engaged, told_apart
from mailprefs.providers.calling import session
from mailprefs.reception import Forgeries
from mailprefs.settings import Settings
from mailprefs.web import (
    admin,
    audiences,
    candidates,
    changes,
    exports,
    guard,
    manage,
    marketer,
    operator,
    optin,
    preferences,
    provider,
    questions,
    recipient,
    screens,
    wire,
)
from mailprefs.web.arrivals import Arrivals, largest
from mailprefs.web.asking import Askers
from mailprefs.web.bursts import Bursts
from mailprefs.web.keys import (
    ARRIVALS,
    ASKED,
    ASKERS,
    BURSTS,
    COMPARING,
    EXPORTS,
    FORGERIES,
    HOOKS,
    HOUSE,
    HTTP,
    KEPT,
    METRICS,
    POOL,
    PRESSES,
    STANDBY,
    THOUGHTS,
    Hearing,
    House,
)
from mailprefs.web.thoughts import SecondThoughts

COMMAND = 2.0  # seconds a statement of ours may take before the request is told to come back
HOOK = 10.0  # seconds for a statement that records a delivery
EXPORT = 3600.0  # seconds an audience may take
AT_ONCE = 2  # deliveries of one account that are recorded at once: a quarter of the pool, so that its flood leaves places to others
POOLS = {"web": 8, "hooks": 4 * AT_ONCE, "exports": 4, "presses": groupcommit.WRITERS}  # connections, by class of request
CONNECTIONS = sum(POOLS.values())  # to the database, of one web process at most

DOORS = {
    "public": (recipient, preferences, manage, optin),
    "hooks": (provider,),
    "api": (marketer, changes, audiences, candidates, exports, operator),
    "metrics": (admin,),
}


def create_app(
    settings: Settings, catalogue: Catalogue, ring: KeyRing, *, database_url: str, only: Sequence[str] = tuple(DOORS)
) -> web.Application:
    """Return the service, or some of its doors, ready to run. Raises Misconfigured if an account could not be heard or would do harm."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise Misconfigured("aiohttp runs without its C parser here; install it from a wheel")
    app = web.Application(middlewares=[wire.outermost], client_max_size=questions.BODY)
    app[HOUSE] = house(settings, catalogue, ring)
    app[KEPT] = settings.home.absolute() / kept.FOLDER
    app[STANDBY] = settings.read_database_url
    app[FORGERIES] = Forgeries()
    app[ARRIVALS] = Arrivals()
    app[ASKED] = Arrivals(share=guard.SHARE, gives_way=largest)
    app[ASKERS] = Askers()
    app[THOUGHTS] = SecondThoughts()
    app[BURSTS] = Bursts()
    app[COMPARING] = asyncio.Semaphore(POOLS["exports"] // 2)
    app[screens.PREPARED] = screens.prepared(app[HOUSE])
    app[METRICS] = admin.token(settings)
    for room in (room for door in only for room in DOORS[door]):
        app.add_routes(room.routes)
    app.on_response_prepare.append(wire.dress)
    app.cleanup_ctx.append(_opened(database_url))
    return app


def house(settings: Settings, catalogue: Catalogue, ring: KeyRing) -> House:
    """Return what the doors share."""
    addresses = Addresses(ring.digest)
    hearings = {account.name: _hearing(settings, catalogue, ring, addresses, account) for account in catalogue.account}
    told_apart([(each.account, each.provider, each.credential) for each in hearings.values()])
    return House(catalogue, ring, addresses, by_brand(catalogue.brand, ring), hearings, mailing=post.mailing(settings, catalogue))


def _hearing(settings: Settings, catalogue: Catalogue, ring: KeyRing, addresses: Addresses, account: Account) -> Hearing:
    each, credential = engaged(account, settings)
    inbox = Inbox(account, catalogue, addresses, ring, each.channel)
    return Hearing(account, each, credential, inbox, asyncio.Semaphore(AT_ONCE))


def _opened(url: str) -> Callable[[web.Application], AsyncIterator[None]]:
    async def opened(app: web.Application) -> AsyncIterator[None]:
        """Open the pools, one for each class of request, and refuse a database that would lose what we acknowledge."""
        async with AsyncExitStack() as stack:
            limits = {"web": COMMAND, "hooks": HOOK, "exports": EXPORT, "presses": COMMAND}
            pools = {purpose: await _pool(stack, url, purpose, seconds) for purpose, seconds in limits.items()}
            app[POOL], app[HOOKS], app[EXPORTS] = pools["web"], pools["hooks"], pools["exports"]
            app[PRESSES] = GroupCommit(pools["presses"])
            await _sound(app, url)
            async with session(AT_ONCE) as app[HTTP], app[PRESSES].running(), app[FORGERIES].running(app[HOOKS]):
                yield

    return opened


async def _pool(stack: AsyncExitStack, url: str, purpose: str, seconds: float) -> db.Pool:
    pool = await db.pool(url, size=POOLS[purpose], command_timeout=seconds, purpose=purpose)
    stack.callback(pool.terminate)  # nothing is in flight at the end, and close() can hang on a frozen server
    return pool


async def _sound(app: web.Application, url: str) -> None:
    shared, connection = app[HOUSE], await db.connect(url)  # one without a time limit: a scope that is mapped anew may take a while
    try:
        await numbers.ready(connection, shared.catalogue, shared.ring.fingerprints, CHANNELS, now=shared.clock())
    finally:
        await connection.close()
