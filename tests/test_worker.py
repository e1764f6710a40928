"""What the worker promises, with SendGrid's sandbox on the other end of real HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientError, ClientSession, DummyCookieJar, web
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from mailprefs import clock, courier, db, ledger, numbers, outbox, reconcile, worker
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue, Webhook
from mailprefs.courier import Timing
from mailprefs.errors import Misconfigured, Unavailable
from mailprefs.links import KeyRing
from mailprefs.outbox import End, Fate, Verdict
from mailprefs.providers import CHANNELS, PROVIDERS
from mailprefs.providers.base import Credential, Listed, Outcome, Settlement, Telling, Unlisted
from mailprefs.providers.calling import session
from mailprefs.providers.sendgrid import SendGrid
from mailprefs.sandbox.app import create_app
from mailprefs.sandbox.sendgrid import key_pair
from mailprefs.settings import Settings
from mailprefs.words import Address, Cause, Change, Door, Effect

NEWSLETTER, OFFERS = 272, 273
MAIN, SECOND = "sendgrid-main", "sendgrid-second"
BRISK = Timing(quiet=timedelta(), poll=timedelta(seconds=0.05))
SECRETS = dict.fromkeys(("SENDGRID_WEBHOOK_KEY", "SENDGRID_SECOND_WEBHOOK_KEY"), key_pair()[1]) | dict.fromkeys(
    ("SENDGRID_API_KEY", "SENDGRID_SECOND_API_KEY"), "SG.sandbox-key-0123456789"
)


@dataclass
class Sandbox:
    """One SendGrid account on loopback."""

    http: ClientSession
    root: str

    @property
    def api_base(self) -> str:
        return f"{self.root}/sendgrid"

    async def faults(self, *queue: object) -> None:
        async with self.http.post(f"{self.root}/_sandbox/faults", json={"queue": queue}) as answer:
            assert answer.status == 200

    async def groups(self) -> dict[str, list[str]]:
        async with self.http.get(f"{self.root}/_sandbox/state") as answer:
            state = (await answer.json())["sendgrid"]
        assert state["global"] == []
        return {group: sorted(held) for group, held in state["groups"].items()}


@dataclass
class House:
    """A worker's surroundings: a database, two accounts, each with its own sandbox, and the people they are told about."""

    conn: asyncpg.Connection
    pool: db.Pool
    catalogue: Catalogue
    ring: KeyRing
    addresses: Addresses
    main: Sandbox
    second: Sandbox
    settings: Settings = field(default_factory=lambda: Settings().lending(SECRETS))

    async def stop(self, *names: str, scope: int = NEWSLETTER) -> None:
        await self.say(Effect.STOP, Door.LINK, names, scope)

    async def go(self, *names: str, scope: int = NEWSLETTER) -> None:
        await self.say(Effect.GO, Door.MANAGE, names, scope)

    async def say(self, effect: Effect, door: Door, names: Sequence[str], scope: int) -> None:
        people = [self.addresses.read(f"{name}@example.org") for name in names]
        for each in people:
            await self.conn.execute(
                "insert into address (bucket, key, channel, plaintext) values ($1, $2, 'email', $3) on conflict do nothing",
                each.bucket,
                each.key,
                each.text,
            )
        now = worker.wall_clock()
        await ledger.record(self.conn, [Change(each, scope, Cause.CHOICE, effect, door, uuid4().hex, now) for each in people], now=now)

    async def drain(self, seconds: float = 20, **more: Any) -> bool:
        within = timedelta(seconds=seconds)
        return await worker.drain(self.pool, self.catalogue, self.ring, self.settings, within=within, **{"timing": BRISK, **more})

    @asynccontextmanager
    async def working(self, **more: Any) -> AsyncIterator[asyncio.Event]:
        """A worker at work; it must stop within seconds of being told."""
        stop = asyncio.Event()
        task = asyncio.create_task(worker.work(self.pool, self.catalogue, self.ring, self.settings, stop=stop, **{"timing": BRISK, **more}))
        try:
            async with asyncio.timeout(10):
                while not task.done() and await self.conn.fetchval("select count(*) from gate where owner is not null") < 2:
                    await asyncio.sleep(0.02)
            yield stop
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)

    def with_account(self, name: str, **changes: object) -> None:
        accounts = tuple(each.model_copy(update=changes) if each.name == name else each for each in self.catalogue.account)
        self.catalogue = self.catalogue.model_copy(update={"account": accounts})


@pytest.fixture
async def house(
    database: str, conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, ring: KeyRing
) -> AsyncIterator[House]:
    pool = await db.pool(database, size=4, command_timeout=10, purpose="worker")
    async with TestServer(create_app()) as one, TestServer(create_app()) as two, ClientSession() as http:
        boxes = [Sandbox(http, str(each.make_url("")).rstrip("/")) for each in (one, two)]
        state = {"sendgrid": {"groups": {"777": []}, "global": []}}
        async with http.put(f"{boxes[1].root}/_sandbox/state", json=state) as answer:
            assert answer.status == 200
        house = House(conn, pool, shared_catalogue, ring, addresses, boxes[0], boxes[1])
        for name, box in ((MAIN, boxes[0]), (SECOND, boxes[1])):
            house.with_account(name, api_base=box.api_base, settle=timedelta(seconds=0.5))
        yield house
    await pool.close()


async def until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_every_account_is_told_until_nothing_is_left(house: House) -> None:
    await house.stop("ann", "bob")
    await house.stop("ann", scope=OFFERS)
    assert await house.drain()
    assert await house.main.groups() == {"12345": ["ann@example.org", "bob@example.org"], "12346": ["ann@example.org"]}
    assert await house.second.groups() == {"777": ["ann@example.org", "bob@example.org"]}
    await house.go("ann")
    assert await house.drain()
    assert await house.main.groups() == {"12345": ["bob@example.org"], "12346": ["ann@example.org"]}
    assert await house.conn.fetchval("select count(*) from told") == 7


async def test_faults_on_the_way_are_settled_before_drain_says_so(house: House) -> None:
    await house.stop("ann", "bob")
    await house.main.faults("500", {"fault": "429-seconds", "seconds": 1}, "html", "truncated")
    began = time.monotonic()
    assert await house.drain()
    assert time.monotonic() - began > 1.5  # the wait that was asked for, and the settling
    assert await house.main.groups() == {"12345": ["ann@example.org", "bob@example.org"], "12346": []}


async def test_drain_says_no_when_time_is_up_and_when_a_row_is_dead(house: House) -> None:
    await house.stop("ann")
    await house.main.faults(*["500"] * 50)
    assert not await house.drain(seconds=0.5)
    await house.main.faults(*["500"] * 50)
    await house.conn.execute("update push set refused = 'http_400', due_at = now() + interval '1 day'")
    began = time.monotonic()
    assert not await house.drain(seconds=20)
    assert time.monotonic() - began < 15  # nothing more can happen today


async def test_trouble_of_one_account_delays_no_other(house: House) -> None:
    await house.stop("ann")
    await house.main.faults(*[{"fault": "slow", "seconds": 6}] * 8)

    async def heard() -> bool:
        return await house.second.groups() == {"777": ["ann@example.org"]}

    async with house.working():
        await until(heard, 5)
        await house.stop("bob")
        began = time.monotonic()
        await until(lambda: heard_both(house), 5)
        assert time.monotonic() - began < 5
        assert (await house.main.groups())["12345"] == []


async def heard_both(house: House) -> bool:
    return await house.second.groups() == {"777": ["ann@example.org", "bob@example.org"]}


async def test_told_to_stop_it_settles_what_is_in_the_air_and_lets_go(house: House) -> None:
    await house.stop("ann")
    await house.main.faults({"fault": "slow", "seconds": 0.5})
    async with house.working() as stop:

        async def sent() -> bool:
            async with house.main.http.get(f"{house.main.root}/_sandbox/requests") as answer:
                return any(each["method"] == "POST" for each in await answer.json())

        await until(sent)
        stop.set()
        await asyncio.sleep(0)
    assert (await house.main.groups())["12345"] == ["ann@example.org"]
    assert await house.conn.fetchval("select count(*) from push where account = 1 or lease is not null") == 0
    assert await house.conn.fetchval("select count(*) from gate where owner is not null") == 0


@dataclass(frozen=True)
class Watched(SendGrid):
    """SendGrid that notes which worker tells which account."""

    worker: str = ""
    log: list[tuple[str, str]] = field(default_factory=list)

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        self.log.append((self.worker, credential.account))
        return await super().tell(http, credential, tellings)


async def test_of_two_workers_started_at_once_one_sends_for_an_account_and_the_other_takes_over(house: House) -> None:
    log: list[tuple[str, str]] = []
    workers = {name: {"sendgrid": Watched(worker=name, log=log)} for name in ("one", "two")}

    async def heard(count: int) -> bool:
        return len((await house.main.groups())["12345"]) == len((await house.second.groups())["777"]) == count

    async with house.working(providers=workers["one"]) as first, house.working(providers=workers["two"]) as last:
        for n in range(15):
            await house.stop(f"p{n:02}")
            await until(lambda n=n: heard(n + 1))
        owners = {account: {who for who, whose in log if whose == account} for account in (MAIN, SECOND)}
        assert {len(who) for who in owners.values()} == {1}
        (owner,) = owners[MAIN]
        stopped, survivor = (first, "two") if owner == "one" else (last, "one")
        stopped.set()
        log.clear()
        await house.stop("zoe")
        await until(lambda: heard(16), 5)
        assert {who for who, whose in log if whose == MAIN} <= {owner, survivor}

        async def taken_over() -> bool:
            await house.stop(uuid4().hex)
            return (survivor, MAIN) in {(who, whose) for who, whose in log}

        await until(taken_over, 5)


async def test_a_turn_that_fails_ends_nothing(house: House) -> None:
    failed = REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": "loop_failed", "account": MAIN}) or 0

    async def alarmed() -> bool:
        return (REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": "loop_failed", "account": MAIN}) or 0) > failed

    async def heard() -> bool:
        return bool((await house.main.groups())["12345"])

    async with house.working():
        await house.conn.execute("alter table closed rename to mislaid")
        await house.stop("ann")
        await until(alarmed)
        await house.conn.execute("alter table mislaid rename to closed")
        await until(heard)


async def test_a_database_that_was_away_is_waited_for(house: House) -> None:
    async def heard() -> bool:
        return bool((await house.main.groups())["12345"])

    async with house.working():
        await house.conn.fetch("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mailprefs worker'")
        await house.stop("ann")
        await until(heard)


async def test_what_is_still_owed_shows_in_the_metrics(house: House) -> None:
    await ledger.record(
        house.conn,
        [Change(Address(uuid4()), NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", worker.wall_clock())],
        now=worker.wall_clock(),
    )

    async def shown() -> bool:
        return REGISTRY.get_sample_value("mailprefs_pushes_no_address", {"account": MAIN}) == 1

    async with house.working():
        await until(shown)
    assert REGISTRY.get_sample_value("mailprefs_oldest_unsynced_age_seconds", {"account": MAIN}) == 0


async def test_what_is_dear_to_count_is_counted_less_often() -> None:
    """Two million that wait take a second; while little waits, each look is a turn."""
    now = worker.wall_clock()
    took = {"seconds": 1.0}
    turns: list[datetime] = []

    async def count() -> bool:
        nonlocal now
        turns.append(now)
        now += timedelta(seconds=took["seconds"])
        if took["seconds"] == 10:
            raise Unavailable
        return False

    measured = worker.Spared(count, lambda: now)

    async def looks(seconds: int) -> int:
        """Look every second, and return how many turns that came to."""
        nonlocal now
        before, until = len(turns), now + timedelta(seconds=seconds)
        while now < until:
            with suppress(Unavailable):
                await measured.round()
            now += timedelta(seconds=1)
        return len(turns) - before

    assert await looks(210) == 10, "a second of each twenty-one"
    took["seconds"] = 10
    assert await looks(400) == 2, "one that is broken off is not asked for at once either"
    took["seconds"] = 0
    await looks(200)
    assert await looks(60) == 60, "the control: what costs nothing is never put off"
    took["seconds"] = 10
    await looks(1)
    now -= timedelta(hours=1)
    assert await looks(1) == 1, "a clock that was set back holds up nothing"


async def test_sigterm_and_sigint_stop_it() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        stop = asyncio.Event()
        worker.heed_signals(stop)
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 20)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


async def test_what_was_kept_long_enough_is_forgotten(house: House) -> None:
    now = worker.wall_clock()
    for days in (29, 31):
        received = now - timedelta(days=days)
        kept = "insert into event (account, id, received_at, reason, raw) values ($1, $2, $3, 'unknown_kind', $4)"
        await house.conn.execute(kept, MAIN, f"{days} days", received, b"raw")

    async def forgotten() -> bool:
        return [row["id"] for row in await house.conn.fetch("select id from event")] == ["29 days"]

    async with house.working():
        await until(forgotten)


async def test_what_was_mended_is_tried_at_once_when_it_starts(house: House) -> None:
    await house.stop("ann")
    hour = worker.wall_clock() + timedelta(hours=1)
    await outbox.close(house.conn, 1, NEWSLETTER, until=hour)
    await outbox.wait(house.conn, 2, until=hour, now=worker.wall_clock(), barred=True)
    assert await house.drain()
    assert await house.conn.fetchval("select count(*) from gate where barred") == 0


# What it refuses to start with


class Careless(SendGrid):
    """A provider whose check sees nothing."""

    hosts: ClassVar[tuple[str, ...]] = ("api.example.com",)

    def check(self, credential: Credential) -> None: ...


@pytest.mark.parametrize("base", ["http://192.0.2.1/sendgrid", "https://api.sendgrid.com.example.net", "https://169.254.169.254/latest"])
async def test_an_account_whose_requests_would_go_elsewhere_refuses_to_start(house: House, base: str) -> None:
    house.with_account(MAIN, api_base=base)
    for providers in (PROVIDERS, {"sendgrid": Careless()}):
        with pytest.raises(Misconfigured, match=f"'{MAIN}'.*api_base"):
            await house.drain(providers=providers)


async def test_a_provider_that_is_none_refuses_to_start(house: House) -> None:
    house.with_account(MAIN, provider="pigeon")
    with pytest.raises(Misconfigured, match=r"'pigeon'; there are: .*sendgrid"):
        await house.drain()


async def test_a_secret_that_is_not_set_refuses_to_start(house: House) -> None:
    house.settings = Settings().lending({k: v for k, v in SECRETS.items() if k != "SENDGRID_API_KEY"})
    with pytest.raises(Misconfigured, match="SENDGRID_API_KEY"):
        await house.drain()


async def test_a_database_that_is_not_migrated_refuses_to_start(house: House) -> None:
    await house.conn.execute("delete from migration where name like '0004%'")
    with pytest.raises(Misconfigured, match="mailprefs migrate"):
        await house.drain()


async def test_an_account_that_is_mapped_to_nothing_is_not_told_and_needs_no_owner(house: House) -> None:
    house.with_account(MAIN, scopes={})
    keys = [key.id for key in house.ring.keys]
    await numbers.register(house.conn, house.catalogue, keys, CHANNELS, now=worker.wall_clock())
    await house.stop("ann")
    assert await house.drain()
    assert await house.conn.fetchval("select count(*) from gate") == 1


# The way out


async def test_a_session_follows_no_redirect_keeps_no_cookie_and_trusts_no_proxy() -> None:
    reached = []

    async def elsewhere(_: web.Request) -> web.Response:
        reached.append(True)
        return web.Response()

    async def away(_: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere", headers={"Set-Cookie": "a=b"})

    app = web.Application()
    app.add_routes([web.post("/", away), web.get("/elsewhere", elsewhere)])
    async with TestServer(app) as server, session(courier.AT_ONCE) as http:
        with pytest.raises(ClientError):
            await http.post(server.make_url("/"))
        assert reached == []
        async with http.get(server.make_url("/elsewhere")) as answer:  # the control: the way there is open
            assert answer.status == 200
        assert reached == [True]
        assert (http.trust_env, type(http.cookie_jar)) == (False, DummyCookieJar)
        assert (http.timeout.total, http.timeout.connect) == (20, 5)
        assert http.connector is not None
        assert http.connector.limit == courier.AT_ONCE


def test_the_settlements_a_courier_knows_are_those_of_the_providers() -> None:
    assert {outbox.Fate(outcome) for outcome in Outcome} == {outbox.Fate.DONE, outbox.Fate.UNKNOWN, outbox.Fate.REFUSED}


def alarms(alarm: str) -> float:
    return REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": alarm, "account": MAIN}) or 0


async def test_a_deadline_is_alarmed_about_while_something_can_be_done(house: House) -> None:
    """When half of the 48 hours is gone, and not before."""
    await house.stop("ann")
    before = alarms("deadline_near")
    now = worker.wall_clock()
    for at, alarmed in ((now + timedelta(hours=23), False), (now + timedelta(hours=25), True)):
        await worker._measure(house.pool, partial(datetime.fromtimestamp, at.timestamp(), UTC))
        assert (alarms("deadline_near") > before) is alarmed


async def test_each_provider_s_list_is_compared_once_a_day_and_healed(house: House, addresses: Addresses, database: str) -> None:
    left = addresses.read("left@example.org")
    state = {"sendgrid": {"groups": {"12345": ["left@example.org"], "12346": []}, "global": []}}
    async with house.main.http.put(f"{house.main.root}/_sandbox/state", json=state) as answer:
        assert answer.status == 200
    unhurried = await db.pool(database, size=1, command_timeout=60, purpose="lists")

    async def stopped() -> bool:
        return bool(await house.conn.fetchval("select stops @> array[272] from address where key = $1", left.key))

    async def compared() -> bool:
        return await stopped() and await house.conn.fetchval("select count(*) from reconciliation where account = 1") == 2

    async with house.working(unhurried=unhurried):
        await until(compared)
    await unhurried.close()
    assert not await house.conn.fetchval("select count(*) from push where account = 1")


async def test_more_than_is_healed_unasked_waits_for_a_person_and_is_alarmed_about(
    house: House, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "UNASKED", 0)
    monkeypatch.setattr(reconcile, "SHARE", 0.5)
    unhurried = await db.pool(database, size=1, command_timeout=60, purpose="lists")
    before = alarms("much_to_heal")
    state = {"sendgrid": {"groups": {"12345": ["kim@example.org", "lee@example.org"], "12346": []}, "global": []}}
    async with house.main.http.put(f"{house.main.root}/_sandbox/state", json=state) as answer:
        assert answer.status == 200

    async def compared() -> bool:
        return bool(await house.conn.fetchval("select count(*) = 3 from reconciliation"))

    async with house.working(unhurried=unhurried):
        await until(compared)
    assert alarms("much_to_heal") == before + 1
    assert await house.conn.fetchval("select healed from reconciliation where account = 1 and scope = 272") is False
    assert await house.conn.fetchval("select count(*) from consent") == 0
    await unhurried.close()


async def test_a_worker_that_is_told_to_stop_waits_for_no_listing(house: House, database: str) -> None:
    unhurried = await db.pool(database, size=1, command_timeout=60, purpose="lists")
    await house.main.faults({"fault": "slow", "seconds": 60, "listing": True})
    async with house.working(unhurried=unhurried):  # it must stop within seconds of being told
        await asyncio.sleep(1)
    assert await house.conn.fetchval("select count(*) from reconciliation where account = 1 and scope = 272") == 0
    await unhurried.close()


async def test_one_list_that_does_not_come_whole_holds_up_no_other(house: House, database: str) -> None:
    unhurried = await db.pool(database, size=1, command_timeout=60, purpose="lists")
    before = alarms("list_not_compared")
    await house.main.faults({"fault": "401", "listing": True})

    async def compared() -> bool:
        return bool(await house.conn.fetchval("select count(*) = 2 from reconciliation"))

    async with house.working(unhurried=unhurried):
        await until(compared)
    assert {tuple(row) for row in await house.conn.fetch("select account, scope from reconciliation")} == {(1, 273), (2, 272)}
    assert alarms("list_not_compared") > before
    now = worker.wall_clock()
    assert await reconcile.due(house.conn, 1, [272, 273], before=now - timedelta(hours=1)) == [272]
    await house.conn.execute("update reconciliation set healed = false")  # somebody only looked
    assert await reconcile.due(house.conn, 1, [272, 273], before=now - timedelta(hours=1)) == [272, 273]
    await unhurried.close()


class Silent(SendGrid):
    """A provider that shows no list."""

    def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        raise Unlisted


async def test_that_a_provider_shows_no_list_is_said_once_and_is_no_alarm(house: House, database: str) -> None:
    unhurried = await db.pool(database, size=1, command_timeout=60, purpose="lists")
    credential = Credential(MAIN, {}, api_base=house.main.api_base)
    routes = [courier.Route(MAIN, 1, Silent(), credential, {NEWSLETTER: "12345"}, {NEWSLETTER: "sendgrid/12345"}, timedelta(minutes=15))]
    now = [worker.wall_clock()]
    nightly = worker.Nightly(routes, house.catalogue, house.addresses, unhurried, lambda: now[0], asyncio.Event())
    before = alarms("list_not_compared")
    with capture_logs() as lines:
        for _ in range(3):
            await nightly.round()
            now[0] += timedelta(days=2)
    assert [(line["event"], line["account"]) for line in lines] == [("no_list_to_compare", MAIN)]
    assert alarms("list_not_compared") == before
    await unhurried.close()


class Liar(SendGrid):
    """A provider that confirms what it is told, and lists nobody."""

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        for each in list[Listed]():
            yield each


async def test_a_lie_that_was_told_while_the_list_was_read_is_found_before_the_deadline(house: House, database: str) -> None:
    """It came as late as it may without an alarm, and that comparison can say nothing of it."""
    unhurried = await db.pool(database, size=1, command_timeout=60, purpose="lists")
    await house.stop("ann")
    asked = await house.conn.fetchval("select since from push where account = 1")
    now = [asked + clock.MAILBOX / 2 - timedelta(minutes=1)]
    called, settle = {NEWSLETTER: "sendgrid/12345"}, timedelta(minutes=15)
    routes = [courier.Route(MAIN, 1, Liar(), Credential(MAIN, {}), {NEWSLETTER: "12345"}, called, settle)]
    nightly = worker.Nightly(routes, house.catalogue, house.addresses, unhurried, lambda: now[0], asyncio.Event())
    await nightly.round()
    until, quiet = now[0] + timedelta(minutes=1), timedelta()
    held = await outbox.lease(house.conn, 1, called=called, stop=True, most=1, until=until, settle=settle, quiet=quiet, now=now[0])
    assert held is not None
    ready = await outbox.read(house.conn, held, held.pushes, margin=quiet, now=now[0])
    done = [End(each.push, Fate.DONE, each.want) for each in ready]
    assert await outbox.settle(house.conn, held, done, sent_at=now[0], settle=settle, now=now[0]) == {Verdict.SETTLED: 1}
    before = alarms("provider_lost_stops")
    while alarms("provider_lost_stops") == before:
        now[0] += timedelta(seconds=worker.ASKED_EVERY)
        assert now[0] < asked + clock.MAILBOX
        await nightly.round()
    (figures,) = [each for each in await outbox.sync(house.conn, now=asked + clock.MAILBOX) if each.account == MAIN]
    assert (figures.waiting, figures.late) == (1, 1), "it is told again, and its clock has run all along"
    await unhurried.close()


async def test_the_sender_s_own_systems_hear_of_it(house: House) -> None:
    heard: list[str] = []

    async def take(request: web.Request) -> web.Response:
        heard.append((await request.json())["data"]["effect"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/hooks", take)
    async with TestServer(app) as crm:
        webhook = Webhook(name="crm", url=str(crm.make_url("/hooks")), secret="CRM_SECRET", private=True)
        house.catalogue = house.catalogue.model_copy(update={"webhook": (webhook,)})
        house.settings = Settings().lending(SECRETS | {"CRM_SECRET": "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
        async with house.working():
            await house.stop("ann")

            async def told() -> bool:
                return heard == ["stop"]

            await until(told)
