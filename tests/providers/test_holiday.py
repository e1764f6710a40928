"""Opt-outs over Thanksgiving, at three providers at once that lie, break off, answer late or not at all, on a clock of its own.

Each is confirmed or alarmed about before its deadline, and none is called confirmed in the end that the provider does not list. Without
settling and the nightly comparison the same days go wrong. ``MAILPREFS_TEST_OPT_OUTS`` says how many people there are.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY

from mailprefs import clock as deadlines
from mailprefs import db, ledger, numbers, outbox, worker
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue
from mailprefs.courier import Courier, Route
from mailprefs.links import KeyRing
from mailprefs.providers import PROVIDERS
from mailprefs.sandbox.app import SIMULATED, create_app
from mailprefs.sandbox.faults import FAULTS, Fault, read
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

from .tellers import Teller, teller_of
from .test_carried import Clock, hurried

NEWSLETTER = 272
PEOPLE = int(os.environ.get("MAILPREFS_TEST_OPT_OUTS", "150"))
BEGINS = datetime(2026, 11, 25, 14, 0, tzinfo=UTC)  # the Wednesday before Thanksgiving, nine in the morning in New York
ASKED_WITHIN = timedelta(days=3)
DONE_BY = timedelta(days=5, hours=12)
CLOSED = (timedelta(hours=9), timedelta(hours=69))  # since the beginning: one provider takes nothing
SETTLE = timedelta(minutes=15)
HALF_A_DAY = timedelta(hours=12)
STEPS = [timedelta(minutes=n) for n in ((1, 4, 10, 90) if PEOPLE > 1000 else (3, 10, 40, 150))]
LANDS_WITHIN = timedelta(minutes=10)  # what is late is never as late as ``SETTLE``
TIMEOUT = 0.3  # seconds until an answer is given up
FINE: Mapping[str, object] = {"fault": "slow", "seconds": 0}
TROUBLE = (
    "429-seconds",
    "429-date",
    "429-reset",
    "500",
    "html",
    "applied-then-dropped",
    "applied-late",
    "half-closed",
    "truncated",
    "duplicated",
    "per-item",
    "lying",
    "lying",
    "slow",
)
UNREAD = ("500", "html", "truncated", "half-closed")  # what becomes of a listing
AWAY = {"sendgrid": "500", "ses": "401"}  # all over the holiday
TRIOS = [("sendgrid", "postmark", "mailgun"), ("ses", "twilio", "mailchimp")][: 1 + (PEOPLE > 1000)]
ALARMS = ("deadline_near", "provider_lost_stops")


class Endless(deque[Fault]):
    """A queue that is never empty: what comes next is made when it is asked for."""

    def __init__(self, make: Callable[[], Fault]) -> None:
        super().__init__()
        self.make = make

    def __len__(self) -> int:
        return 1

    def popleft(self) -> Fault:
        return self.make()


@dataclass
class Desk:
    """One account: its courier, what its provider holds, and what was seen of both."""

    teller: Teller
    courier: Courier
    app: Any
    alarmed: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    settled: set[UUID] = field(default_factory=set)  # confirmed, and nothing owed
    true_since: dict[UUID, datetime] = field(default_factory=dict)  # confirmed, and so it is
    found_at: dict[UUID, list[datetime]] = field(default_factory=lambda: defaultdict(list))  # that it had been a lie
    lies: int = 0

    @property
    def name(self) -> str:
        return self.courier.route.name

    def alarms(self, name: str) -> float:
        return REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": name, "account": self.name}) or 0

    def held(self, keys: Mapping[str, UUID]) -> set[UUID]:
        """Return who is stopped there, by our keys."""
        state = self.app[SIMULATED][self.teller.name].state
        return {keys[each.casefold()] for each in self.teller.held(state, self.courier.route.groups[NEWSLETTER])}

    def spoil(self, dice: Random, away: str) -> None:
        """Let a third of the replies be faulty from now on, or, while the provider is away, each with that fault."""

        def write() -> Fault:
            name = away or (dice.choice(TROUBLE) if dice.random() < 1 / 3 else "")
            if name == "lying" and not self.teller.lists:
                name = "500"  # nobody could ever find out
            seconds = TIMEOUT + 0.1 if name == "slow" else 30 if name.startswith("429") else dice.uniform(0, 0.1)
            return read({"fault": name, "seconds": seconds} if name else FINE)

        def page() -> Fault:
            return read({"fault": dice.choice(UNREAD)} if dice.random() < 1 / 3 else FINE)

        self.app[FAULTS].queue, self.app[FAULTS].listings = Endless(write), Endless(page)

    def mend(self) -> None:
        """Let everything be answered as documented from now on."""
        self.app[FAULTS].queue, self.app[FAULTS].listings = deque[Fault](), deque[Fault]()

    async def landed(self) -> None:
        while self.app[FAULTS].landing:
            await asyncio.sleep(0.01)


@dataclass
class Days:
    """All that happens in these days."""

    conn: asyncpg.Connection
    pool: db.Pool
    clock: Clock
    dice: Random
    desks: Sequence[Desk]
    nightly: worker.Nightly | None
    people: Mapping[str, Sequence[Address]]  # by account
    asked: dict[UUID, datetime] = field(default_factory=dict)  # when they last said stop
    figures: Counter[str] = field(default_factory=Counter)
    landed_at: datetime = BEGINS

    def __post_init__(self) -> None:
        self.keys = {who.text.casefold(): who.key for each in self.people.values() for who in each if who.text}
        self.plan: list[tuple[datetime, Address, Effect]] = []
        for who in {who.key: who for each in self.people.values() for who in each}.values():
            at = BEGINS + ASKED_WITHIN * self.dice.random()
            self.plan.append((at, who, Effect.STOP))
            if self.dice.random() < 0.15:  # a change of mind, and one more
                self.plan += [(at + timedelta(minutes=minutes), who, effect) for minutes, effect in ((6, Effect.GO), (14, Effect.STOP))]
        self.plan.sort(key=lambda each: (each[0], each[2] is Effect.STOP), reverse=True)

    async def say(self) -> None:
        """Record what people ask for by now."""
        now = self.clock.now
        while self.plan and self.plan[-1][0] <= now:
            batch: dict[UUID, Change] = {}
            while self.plan and self.plan[-1][0] <= now and self.plan[-1][1].key not in batch and len(batch) < 500:
                _, who, effect = self.plan.pop()
                door = Door.LINK if effect is Effect.STOP else Door.MANAGE
                batch[who.key] = Change(who, NEWSLETTER, Cause.CHOICE, effect, door, uuid4().hex, now)
                if effect is Effect.STOP:
                    self.asked[who.key] = now
            self.figures["changes"] += sum(await ledger.record(self.conn, list(batch.values()), now=now))

    async def live(self) -> None:
        """One step of the clock: people speak, accounts are told, lists are compared, alarms are raised."""
        step = self.dice.choice(STEPS)
        if self.clock.now + step - self.landed_at >= LANDS_WITHIN:
            for desk in self.desks:
                await desk.landed()
            self.landed_at = self.clock.now + step
        self.clock.now += step
        await self.say()
        closed = CLOSED[0] <= self.clock.now - BEGINS < CLOSED[1]
        for desk in self.desks:
            desk.spoil(self.dice, AWAY.get(desk.teller.name, "") if closed else "")
        before = [{alarm: desk.alarms(alarm) for alarm in ALARMS} for desk in self.desks]
        await asyncio.gather(*(self._carry(desk) for desk in self.desks))
        if self.nightly:
            await self.nightly.round()
        await worker._measure(self.pool, self.clock)
        for desk, counts in zip(self.desks, before, strict=True):
            for alarm in ALARMS:
                if desk.alarms(alarm) > counts[alarm]:
                    desk.alarmed[alarm].append(self.clock.now)
        await self.look()

    async def _carry(self, desk: Desk) -> None:
        for _ in range(50):
            if not await desk.courier.round():
                return

    async def look(self) -> None:
        """Remember who is called confirmed, and whether that is so."""
        rows = await self.conn.fetch(
            """select t.account, array_agg(t.key) keys
            from (select distinct on (bucket, account, scope, key) * from told order by bucket, account, scope, key, sent_at desc) t
            where t.stop and not exists (select from push p where p.account = t.account and p.bucket = t.bucket and p.key = t.key)
            group by t.account"""
        )
        settled = {row["account"]: set(row["keys"]) for row in rows}
        for desk in self.desks:
            confirmed, held = settled.get(desk.courier.route.number, set()), desk.held(self.keys)
            for key in desk.settled - confirmed - held:
                desk.found_at[key].append(self.clock.now)
            true = confirmed & held
            desk.true_since = {key: desk.true_since.get(key, self.clock.now) for key in true}
            desk.settled = confirmed
            desk.lies = len(confirmed - held)
            self.figures["called confirmed though it is not, at the worst"] = max(
                desk.lies, self.figures["called confirmed though it is not, at the worst"]
            )

    def unwarned(self) -> list[str]:
        """Return the opt-outs that were neither confirmed, truly, nor alarmed about by their deadline."""
        missed = []
        for desk in self.desks:
            channel = desk.teller.provider.channel
            for who in self.people[desk.name]:
                if (asked := self.asked.get(who.key)) is None:
                    continue
                due = deadlines.deadline(asked, channel, NEWSLETTER)
                near = any(deadlines.warned(asked, due) <= at <= due for at in desk.alarmed["deadline_near"])
                lost = desk.found_at.get(who.key, [])
                found = any(asked <= at <= due and at in desk.alarmed["provider_lost_stops"] for at in lost)
                in_time = desk.true_since.get(who.key, datetime.max.replace(tzinfo=UTC)) <= due
                self.figures["confirmed in time"] += in_time
                self.figures["alarmed about in time"] += not in_time and (near or found)
                if not in_time and not near and not found:
                    missed.append(f"{desk.name}: asked {asked}, due {due}, lie found {lost}, true since {desk.true_since.get(who.key)}")
        return missed

    async def pass_by(self, time: timedelta = DONE_BY) -> None:
        while self.clock.now < BEGINS + time:
            await self.live()
        for desk in self.desks:  # the trouble is over
            desk.mend()
            await desk.landed()
        await self.rest()

    async def rest(self) -> None:
        """Let two quiet days pass, in which the lists are compared and everything that is owed is told."""
        for _ in range(36):
            self.clock.now += timedelta(minutes=85)
            await asyncio.gather(*(self._carry(desk) for desk in self.desks))
            if self.nightly:
                await self.nightly.round()
        await self.look()


@asynccontextmanager
async def days(
    trio: Sequence[str], url: str, shared: Catalogue, ring: KeyRing, addresses: Addresses, *, people: int, settle: timedelta, nightly: bool
) -> AsyncIterator[Days]:
    tellers = [teller_of(name) for name in trio]
    accounts = tuple(
        Account(name=f"{each.name}-holiday", provider=each.name, brand="connective", scopes={"newsletter": each.groups[0]})
        for each in tellers
    )
    known = shared.model_copy(update={"account": accounts})
    clock = Clock(BEGINS)
    async with AsyncExitStack() as stack:
        conn = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
        stack.push_async_callback(conn.close)
        channels = {name: provider.channel for name, provider in PROVIDERS.items()}
        await numbers.register(conn, known, [key.id for key in ring.keys], channels, now=BEGINS)
        ids = {row["name"]: row["account"] for row in await conn.fetch("select name, account from account")}
        pool = await stack.enter_async_context(await db.pool(url, size=6, command_timeout=30, purpose="test"))
        desks = []
        for each, account in zip(tellers, accounts, strict=True):
            app = create_app([each.name])
            server = await stack.enter_async_context(TestServer(app))
            http = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(total=TIMEOUT)))
            credential = replace(each.credential, account=account.name, api_base=f"{str(server.make_url('')).rstrip('/')}/{each.name}")
            mapped, called = known.mapped(account), known.called(account)
            route = Route(account.name, ids[account.name], hurried(each.provider), credential, mapped, called, settle)
            desks.append(Desk(each, Courier(route, pool, http, clock), app))
        comparing = worker.Nightly([desk.courier.route for desk in desks], known, addresses, pool, clock, asyncio.Event())
        said = {channel: await introduced(conn, addresses, channel, people) for channel in {each.provider.channel for each in tellers}}
        by_account = {desk.name: said[desk.teller.provider.channel] for desk in desks}
        yield Days(conn, pool, clock, Random(f"{trio}"), desks, comparing if nightly else None, by_account)


async def introduced(conn: asyncpg.Connection, addresses: Addresses, channel: Channel, people: int) -> list[Address]:
    texts = (f"+1202{5550000 + n}" if channel is Channel.SMS else f"p{n:05}@example.org" for n in range(people))
    found = [addresses.read(text) for text in texts]
    rows = [(each.bucket, each.key, each.channel, each.text) for each in found]
    await conn.executemany("insert into address (bucket, key, channel, plaintext) values ($1, $2, $3, $4)", rows)
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("trio", TRIOS, ids=[" ".join(trio) for trio in TRIOS])
async def test_each_opt_out_over_a_holiday_is_confirmed_or_alarmed_about_before_its_deadline(
    trio: Sequence[str], database: str, shared_catalogue: Catalogue, ring: KeyRing, addresses: Addresses
) -> None:
    async with days(trio, database, shared_catalogue, ring, addresses, people=PEOPLE, settle=SETTLE, nightly=True) as run:
        await run.pass_by()
        missed = run.unwarned()
        differing = {desk.name: len(set(run.asked) & {w.key for w in run.people[desk.name]} ^ desk.held(run.keys)) for desk in run.desks}
        told = {desk.name: desk.lies for desk in run.desks}
        sys.stdout.write(
            f"{' '.join(trio)}: {dict(run.figures)}, alarms { {d.name: {n: len(t) for n, t in d.alarmed.items()} for d in run.desks} }\n"
        )
        assert missed == []
        assert set(told.values()) == {0}, "none is called confirmed that the provider does not list"
        assert set(differing.values()) == {0}
        assert run.figures["alarmed about in time"]
        believed = [desk for desk in run.desks if desk.teller.lists and not desk.teller.reads_back]  # who is taken at their word
        assert (run.figures["called confirmed though it is not, at the worst"] > 0) is bool(believed), "there were lies"


async def test_whatever_nobody_is_told_of_is_alarmed_about_before_its_deadline_and_late_only_after_it(
    database: str, conn: asyncpg.Connection, shared_catalogue: Catalogue, ring: KeyRing, addresses: Addresses
) -> None:
    """By mail, by text, and of ads, asked for before each long holiday and on one."""
    kinds = {
        "mail": ("sendgrid", "newsletter", NEWSLETTER, addresses.read("ann@example.org")),
        "texts": ("twilio", "newsletter", NEWSLETTER, addresses.read("+12025550101")),
        "ads": ("sendgrid", "ads", 259, addresses.read("bob@example.org")),
    }
    known = shared_catalogue.model_copy(
        update={
            "account": tuple(
                Account(name=f"closed-{name}", provider=provider, brand="connective", scopes={scope: "12345"})
                for name, (provider, scope, _, _) in kinds.items()
            )
        }
    )
    await numbers.register(conn, known, [key.id for key in ring.keys], {n: each.channel for n, each in PROVIDERS.items()}, now=BEGINS)
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        for asked in (
            BEGINS,
            datetime(2026, 11, 26, 3, tzinfo=UTC),
            datetime(2026, 12, 23, 22, tzinfo=UTC),
            datetime(2027, 1, 1, 12, tzinfo=UTC),
        ):
            await conn.execute("truncate address, consent, push, told")
            for _, _, scope, who in kinds.values():
                row = who.bucket, who.key, who.channel, who.text
                await conn.execute("insert into address (bucket, key, channel, plaintext) values ($1, $2, $3, $4)", *row)
                await ledger.record(conn, [Change(who, scope, Cause.CHOICE, Effect.STOP, Door.LINK, uuid4().hex, asked)], now=asked)
            alarmed, late = await closed(conn, pool, Clock(asked), list(kinds))
            for name, (provider, _, scope, _) in kinds.items():
                due = deadlines.deadline(asked, PROVIDERS[provider].channel, scope)
                assert asked < alarmed[name] <= asked + (due - asked) / 2 + HALF_A_DAY < due
                assert due <= late[name] <= due + HALF_A_DAY


async def closed(
    conn: asyncpg.Connection, pool: db.Pool, clock: Clock, names: Sequence[str]
) -> tuple[dict[str, datetime], dict[str, datetime]]:
    """Let a month pass in which no account is told anything; return when each was alarmed about first, and when it was late."""
    alarmed: dict[str, datetime] = {}
    late: dict[str, datetime] = {}
    labels = {name: {"alarm": "deadline_near", "account": f"closed-{name}"} for name in names}
    for _ in range(25 * 2):
        clock.now += HALF_A_DAY
        before = {name: REGISTRY.get_sample_value("mailprefs_alarms_total", labels[name]) for name in names}
        await worker._measure(pool, clock)
        for figures in await outbox.sync(conn, now=clock.now):
            name = figures.account.removeprefix("closed-")
            if name in labels and REGISTRY.get_sample_value("mailprefs_alarms_total", labels[name]) != before[name]:
                alarmed.setdefault(name, clock.now)
            if figures.late:
                late.setdefault(name, clock.now)
    return alarmed, late


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_without_settling_and_comparing_the_same_days_go_wrong(
    database: str, shared_catalogue: Catalogue, ring: KeyRing, addresses: Addresses
) -> None:
    """The control."""
    async with days(TRIOS[0], database, shared_catalogue, ring, addresses, people=1600, settle=timedelta(), nightly=False) as run:
        while run.clock.now < BEGINS + DONE_BY and sum(desk.lies for desk in run.desks) < 5:  # of which some may still land
            await run.live()
        await run.pass_by(timedelta())
        assert sum(desk.lies for desk in run.desks), "nothing went wrong"
        assert run.unwarned()
