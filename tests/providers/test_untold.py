"""No name or title of a topic leaves in any request to a provider, and of a sensitive topic nothing at all does: canaries, grepped for.

From the ledger through the courier and the comparison of lists, for every provider that is told; and to systems of the sender's own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from mailprefs import db, ledger, numbers, webhooks, worker
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue, Webhook
from mailprefs.courier import Courier, Route
from mailprefs.links import KeyRing
from mailprefs.providers import PROVIDERS
from mailprefs.reconcile import Books
from mailprefs.sandbox.app import create_app
from mailprefs.settings import Settings
from mailprefs.words import Cause, Change, Channel, Door, Effect

from .tellers import PATIENT, TOLD, Box, teller_of
from .test_carried import Clock, hurried

MARKETING, NEWSLETTER, OFFERS, RECOVERY = 257, 272, 273, 276
CANARY = "hidden" + uuid4().hex[:10]
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Knowing = Callable[[Catalogue, KeyRing], AbstractAsyncContextManager[str]]


def renamed(shared: Catalogue) -> Catalogue:
    """Return the shared catalogue with a canary in every name and title, and no account."""

    def hidden(name: str) -> dict[str, object]:
        return {"name": f"{CANARY}-{name}", "title": {"en": f"{CANARY} title of {name}"}}

    brands = tuple(
        brand.model_copy(
            update={
                "name": f"{CANARY}-brand",
                "title": f"{CANARY} Care",
                "topic": tuple(topic.model_copy(update=hidden(topic.name)) for topic in brand.topic),
            }
        )
        for brand in shared.brand
    )
    return Catalogue(brand=brands)


@dataclass
class Sent:
    """One account that is told everything there is, and what left for it."""

    conn: asyncpg.Connection
    addresses: Addresses
    clock: Clock
    box: Box
    courier: Courier
    sensitive: str  # what the account calls the sensitive topic

    async def say(self, effect: Effect, *scopes: int) -> None:
        door = Door.LINK if effect is Effect.STOP else Door.MANAGE
        channel = self.box.teller.provider.channel
        for n in range(4):
            who = self.addresses.read(f"+1202555{n:04}" if channel is Channel.SMS else f"p{n}@example.org")
            row = (who.bucket, who.key, who.channel, who.text)
            await self.conn.execute(
                "insert into address (bucket, key, channel, plaintext) values ($1, $2, $3, $4) on conflict do nothing", *row
            )
            changes = [Change(who, scope, Cause.CHOICE, effect, door, uuid4().hex, self.clock.now) for scope in scopes]
            await ledger.record(self.conn, changes, now=self.clock.now)

    async def carry(self) -> None:
        for _ in range(4):
            self.clock.now += timedelta(minutes=20)
            while await self.courier.round():
                await asyncio.sleep(0.01)

    async def compare(self) -> None:
        route = self.courier.route
        names = {scope: f"{CANARY}/{scope}" for scope in route.groups}
        said = route.provider, route.credential, route.groups, names, self.conn, self.box.http, self.addresses, self.clock
        await Books(route.name, route.number, *said).compare(heal=True)


@asynccontextmanager
async def sending(
    name: str, knowing: Knowing, shared: Catalogue, ring: KeyRing, addresses: Addresses, now: datetime
) -> AsyncIterator[Sent]:
    teller, clock, known = teller_of(name), Clock(now), renamed(shared)
    scopes = dict(zip((f"{CANARY}-newsletter", f"{CANARY}-recovery"), (teller.groups[0], teller.groups[-1] + "1"), strict=True))
    account = Account(name=f"{CANARY}-account", provider=name, brand=f"{CANARY}-brand", scopes=scopes)
    told = known.model_copy(update={"account": (account,)})
    channels = {each: provider.channel for each, provider in PROVIDERS.items()}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(knowing(known, ring))
        conn = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
        stack.push_async_callback(conn.close)
        await numbers.register(conn, told, [key.id for key in ring.keys], channels, now=now)
        pool = await stack.enter_async_context(await db.pool(url, size=3, command_timeout=10, purpose="test"))
        server = await stack.enter_async_context(TestServer(create_app([name])))
        http = await stack.enter_async_context(ClientSession(timeout=PATIENT))
        box = Box.at(str(server.make_url("")).rstrip("/"), http, teller)
        options = {**box.credential.options, "scopes": scopes, "name": account.name, "brand": account.brand}
        credential = replace(box.credential, account=account.name, options=options)
        number = await conn.fetchval("select account from account where name = $1", account.name)
        route = Route(
            account.name, number, hurried(teller.provider), credential, told.mapped(account), told.called(account), timedelta(minutes=15)
        )
        yield Sent(conn, addresses, clock, box, Courier(route, pool, http, clock), scopes[f"{CANARY}-recovery"])


@pytest.mark.parametrize("name", TOLD)
async def test_no_name_or_title_of_a_topic_leaves_and_of_a_sensitive_one_nothing(
    name: str, knowing: Knowing, shared_catalogue: Catalogue, ring: KeyRing, addresses: Addresses, now: datetime
) -> None:
    async with sending(name, knowing, shared_catalogue, ring, addresses, now) as case:
        await case.say(Effect.STOP, RECOVERY)
        await case.carry()
        assert await case.box.requests() == []  # enforced here, told to nobody
        await case.say(Effect.STOP, NEWSLETTER, MARKETING)
        await case.carry()
        if case.box.teller.lists:
            await case.compare()
        await case.say(Effect.GO, NEWSLETTER, RECOVERY)
        await case.carry()
        sent = json.dumps(await case.box.requests())
        assert sent.count("POST") + sent.count("PUT") + sent.count("PATCH"), "something was told"
        assert CANARY not in sent
        assert case.sensitive not in sent
        assert await case.box.holds() == []
        assert CANARY in json.dumps([*case.courier.route.credential.options.values()], default=str)  # the control: the grep finds them


async def test_systems_of_the_senders_own_hear_nothing_of_a_sensitive_topic_and_no_name_or_title(
    knowing: Knowing, shared_catalogue: Catalogue, ring: KeyRing, addresses: Addresses
) -> None:
    heard: list[str] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append(f"{request.raw_path} {dict(request.headers)} {await request.text()}")
        return web.Response()

    app = web.Application()
    app.router.add_post("/hooks", hear)
    async with (
        TestServer(app, host="127.0.0.1") as crm,
        sending("sendgrid", knowing, shared_catalogue, ring, addresses, worker.wall_clock()) as case,
    ):
        hook = Webhook(name="crm", url=str(crm.make_url("/hooks")), secret="CRM_SECRET", private=True)
        known = renamed(shared_catalogue).model_copy(update={"webhook": (hook,)})
        await webhooks.introduce(case.conn, known, now=worker.wall_clock())
        await case.say(Effect.STOP, RECOVERY, NEWSLETTER)
        key = webhooks.secret(hook, Settings().lending({"CRM_SECRET": SECRET}))
        async with asyncio.timeout(20), webhooks.session(hook) as http:
            herald = webhooks.Herald(hook, key, known, case.courier.pool, http, worker.wall_clock)
            while await herald.round() or len(heard) < 4:
                await asyncio.sleep(0.01)
    assert len(heard) == 4  # of the newsletter alone
    assert not [each for each in heard if CANARY in each]
    assert all("example.org" in each for each in heard)  # the control
