"""What the courier promises, with a small provider of its own whose every answer is scripted, on a clock of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import ClassVar, cast
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from mailprefs import courier, db, ledger, outbox
from mailprefs.addresses import Addresses
from mailprefs.courier import Courier, Route, Timing
from mailprefs.errors import MailprefsError
from mailprefs.providers.base import (
    Answers,
    Barred,
    Credential,
    Delivery,
    Heard,
    Listed,
    Outcome,
    Rejected,
    Settlement,
    Slow,
    Telling,
    Unclear,
    Unsafe,
)
from mailprefs.words import BUCKETS, Address, Cause, Change, Channel, Door, Effect, Kind

NEWSLETTER, OFFERS = 272, 273
GROUPS = {NEWSLETTER: "12345", OFFERS: "12346"}
CALLED = {scope: f"sendgrid/{group}" for scope, group in GROUPS.items()}  # as tests/catalogue.toml maps them
SETTLE = timedelta(minutes=15)
QUIET = Timing().quiet
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)

Act = Callable[["Post", Sequence[Telling]], Awaitable[list[Settlement]]]


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Post:
    """A provider that holds what it was told, and answers by its script before it answers as documented."""

    name: ClassVar[str] = "post"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers()
    kinds: ClassVar[Mapping[str, Kind | str]] = {}
    secrets_in: ClassVar[tuple[str, ...]] = ()
    secrets_out: ClassVar[tuple[str, ...]] = ()
    hosts: ClassVar[tuple[str, ...]] = ("post.example.com",)
    batch: ClassVar[int] = 3
    pace: ClassVar[float] = 10_000.0

    script: deque[Act] = field(default_factory=deque)
    calls: list[tuple[Telling, ...]] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)  # seconds of the loop's clock
    held: set[tuple[str, str]] = field(default_factory=set)  # (address, group)
    landing: list[Sequence[Telling]] = field(default_factory=list)  # taken, not yet applied

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        assert not http.closed
        self.calls.append(tuple(tellings))
        self.begun.append(asyncio.get_running_loop().time())
        return await (self.script.popleft() if self.script else done)(self, tellings)

    def apply(self, tellings: Sequence[Telling]) -> None:
        for each in tellings:
            change = self.held.add if each.stop else self.held.discard
            change((each.address, each.group))

    def told(self) -> list[tuple[str, bool]]:
        """Everything that was told, in order: the name before the @, and whether it was a stop."""
        return [(each.address.partition("@")[0], each.stop) for call in self.calls for each in call]

    def check(self, credential: Credential) -> None: ...

    def verify(self, credential: Credential, delivery: Delivery) -> None: ...

    def parse(self, delivery: Delivery) -> Heard:
        return Heard()

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        for address, held in sorted(self.held):
            if held == group:
                yield Listed(address, group)


async def done(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
    post.apply(tellings)
    return [Settlement(Outcome.DONE)] * len(tellings)


async def lost(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
    """Nobody answers, and nothing is applied."""
    return [Settlement(Outcome.UNKNOWN, "no_answer")] * len(tellings)


async def late(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
    """Nobody answers, and it is applied when the test says so."""
    post.landing.append(tellings)
    return [Settlement(Outcome.UNKNOWN, "no_answer")] * len(tellings)


def raising(error: BaseException) -> Act:
    async def act(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        raise error

    return act


def poisoned(*names: str) -> Act:
    """Rejects every request in which one of these names stands, for ever."""

    async def act(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        post.script.append(act)
        if any(each.address.startswith(names) for each in tellings):
            raise Rejected
        return await done(post, tellings)

    return act


@dataclass
class House:
    """One account with its courier, its provider and the people it is told about."""

    conn: asyncpg.Connection
    pool: db.Pool
    http: ClientSession
    addresses: Addresses
    clock: Clock
    post: Post
    timing: Timing = field(default_factory=Timing)
    settle: timedelta = SETTLE
    account: int = 1

    def courier(self) -> Courier:
        route = Route("sendgrid-main", self.account, self.post, Credential("sendgrid-main", {}), GROUPS, CALLED, self.settle)
        return Courier(route, self.pool, self.http, self.clock, self.timing)

    async def person(self, name: str) -> Address:
        address = self.addresses.read(f"{name}@example.org")
        await self.conn.execute(
            "insert into address (bucket, key, channel, plaintext) values ($1, $2, 'email', $3) on conflict do nothing",
            address.bucket,
            address.key,
            address.text,
        )
        return address

    async def say(self, effect: Effect, *names: str, scope: int = NEWSLETTER) -> None:
        door = Door.PAGE if effect is Effect.STOP else Door.MANAGE
        people = [await self.person(name) for name in names]
        changes = [Change(each, scope, Cause.CHOICE, effect, door, uuid4().hex, self.clock.now) for each in people]
        await ledger.record(self.conn, changes, now=self.clock.now)

    async def stop(self, *names: str, scope: int = NEWSLETTER) -> None:
        await self.say(Effect.STOP, *names, scope=scope)

    async def go(self, *names: str, scope: int = NEWSLETTER) -> None:
        await self.say(Effect.GO, *names, scope=scope)

    async def owed(self) -> list[asyncpg.Record]:
        return await self.conn.fetch("select * from push where account = $1 order by due_at, bucket, key, scope", self.account)

    async def proofs(self) -> list[bool]:
        return [row["stop"] for row in await self.conn.fetch("select stop from told where account = $1 order by sent_at", self.account)]

    def later(self, span: timedelta) -> None:
        self.clock.now += span


@pytest.fixture
async def house(database: str, conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> AsyncIterator[House]:
    pool = await db.pool(database, size=3, command_timeout=10, purpose="test")
    async with ClientSession() as http:
        yield House(conn, pool, http, addresses, Clock(now), Post())
    await pool.close()


async def rounds(one: Courier) -> int:
    """Go round until nothing is due, in either direction; return how many rounds got anywhere."""
    count = idle = 0
    while idle < 2:
        found = await one.round()
        count, idle = count + found, 0 if found else idle + 1
        assert count < 100
    return count


def alarms(name: str) -> float:
    return REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": name, "account": "sendgrid-main"}) or 0


# What is sent


async def test_what_is_owed_is_told_once_and_proved(house: House) -> None:
    await house.stop("ann", "bob")
    await rounds(house.courier())
    assert house.post.held == {("ann@example.org", "12345"), ("bob@example.org", "12345")}
    assert (await house.owed(), await house.proofs()) == ([], [True, True])
    assert sorted(house.post.told()) == [("ann", True), ("bob", True)]


async def test_a_request_holds_one_group_one_direction_and_no_more_than_the_provider_takes(house: House) -> None:
    names = [f"p{n}" for n in range(10)]
    await house.stop(*names)
    await house.stop(*names[:4], scope=OFFERS)
    one = house.courier()
    await rounds(one)
    await house.go(*names[5:])
    house.later(QUIET)
    others = [f"q{n}" for n in range(5)]
    await house.stop(*others, scope=OFFERS)
    await rounds(one)
    for call in house.post.calls:
        assert len(call) <= 3
        assert len({(each.group, each.stop) for each in call}) == 1
    assert len(house.post.calls) == 4 + 2 + 2 + 2
    assert house.post.held == {(f"{n}@example.org", "12345") for n in names[:5]} | {
        (f"{n}@example.org", "12346") for n in names[:4] + others
    }


async def test_stops_are_told_before_goes_however_long_the_goes_have_waited(house: House) -> None:
    await house.stop("ann", "bob", "cat", "dan", "eve")
    one = house.courier()
    await rounds(one)
    await house.go("ann", "bob", "cat", "dan", "eve")
    house.later(QUIET)
    await house.stop("zoe")
    house.post.calls.clear()
    await rounds(one)
    assert house.post.told()[0] == ("zoe", True)
    assert {stop for _, stop in house.post.told()[1:]} == {False}


async def test_a_stop_waits_for_no_more_than_one_request_of_goes(house: House) -> None:
    names = [f"p{n}" for n in range(9)]
    await house.stop(*names)
    one = house.courier()
    await rounds(one)
    await house.go(*names)
    house.later(QUIET)
    house.post.calls.clear()
    await one.round()
    await house.stop("zoe")
    await one.round()
    assert [{stop for _, stop in [(e.address, e.stop) for e in call]} for call in house.post.calls] == [{False}, {True}]
    assert house.post.told()[3] == ("zoe", True)


async def test_what_is_sent_is_what_holds_at_that_moment(house: House) -> None:
    """The batches behind the first ones change their mind while they wait for their turn: the stop they were leased for is never sent."""
    names = [f"p{n}" for n in range(30)]
    await house.stop(*names)
    changed = asyncio.Event()

    async def first(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        mine = {each.address.partition("@")[0] for each in tellings}
        await house.go(*(name for name in names if name not in mine))
        changed.set()
        return await done(post, tellings)

    async def beside(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        await changed.wait()
        return await done(post, tellings)

    house.post.script.extend([first] + [beside] * (courier.AT_ONCE - 1))
    one = house.courier()
    await rounds(one)
    assert not any(not stop for _, stop in house.post.told())  # their goes wait for quiet
    assert len(house.post.told()) <= courier.AT_ONCE * Post.batch
    house.later(QUIET)
    await rounds(one)
    house.later(SETTLE + SECOND)  # whose stop was in the air just then is told go once more
    await rounds(one)
    assert (house.post.held, await house.owed()) == ({(each.address, "12345") for each in house.post.calls[0]}, [])


async def test_a_go_is_never_sent_while_a_stop_is_wanted(house: House) -> None:
    await house.stop("ann")
    one = house.courier()
    await rounds(one)
    await house.go("ann")
    house.later(QUIET)
    await house.conn.execute("update push set stop = false")
    await house.stop("ann")
    await house.conn.execute("update push set stop = false")  # whatever the queue believes: the rule is asked
    house.later(QUIET)
    await rounds(one)
    assert house.post.told() == [("ann", True), ("ann", True)]


async def test_a_change_in_flight_is_told_next(house: House) -> None:
    await house.stop("ann")

    async def undone(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        await house.go("ann")
        return await done(post, tellings)

    house.post.script.append(undone)
    one = house.courier()
    await rounds(one)
    assert await house.proofs() == []  # nobody claims that the account believes what is wanted now
    house.later(QUIET)
    await rounds(one)
    assert house.post.held == set()
    house.later(SETTLE + SECOND)
    await rounds(one)
    assert await house.proofs() == [False]


async def test_two_requests_at_once_never_name_the_same_address(house: House) -> None:
    """Some providers replace all of a contact's topics at once: the two groups of one person are told one after the other."""
    names = [f"p{n}" for n in range(12)]
    for scope in GROUPS:
        await house.stop(*names, scope=scope)
    flying: set[str] = set()
    most = 0

    async def watched(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        nonlocal most
        assert not flying & {each.address for each in tellings}
        flying.update(each.address for each in tellings)
        most = max(most, len(flying) // Post.batch)
        await asyncio.sleep(0.02)
        flying.difference_update(each.address for each in tellings)
        return await done(post, tellings)

    house.post.script.extend([watched] * 8)
    await rounds(house.courier())
    assert len(house.post.held) == 24
    assert most > 1


# Outcomes


async def test_a_stale_go_that_lands_late_does_not_win(house: House) -> None:
    assert await the_late_go(house, SETTLE) == {("ann@example.org", "12345")}
    assert await house.proofs() == [True, True]


async def test_without_settling_the_stale_go_wins(house: House) -> None:
    """The control: this is the harm that settling is for."""
    assert await the_late_go(house, timedelta()) == set()


async def the_late_go(house: House, settle: timedelta) -> set[tuple[str, str]]:
    """Return what the provider holds at last: ann stopped, came back (and nobody answered), stopped again, and the go landed then."""
    house.settle = settle
    one = house.courier()
    await house.stop("ann")
    await rounds(one)
    await house.go("ann")
    house.later(QUIET)
    house.post.script.append(late)
    await one.round()
    house.later(SECOND)
    await house.stop("ann")
    await rounds(one)
    assert house.post.held == {("ann@example.org", "12345")}
    house.post.apply(house.post.landing.pop())
    house.later(SETTLE + SECOND)
    await rounds(one)
    assert await house.owed() == []
    return house.post.held


async def twice(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
    """Answered, and applied once more when the test says so: somebody on the way repeats requests."""
    post.landing.append(tellings)
    return await done(post, tellings)


@pytest.mark.parametrize("settle", [SETTLE, timedelta()], ids=["settling", "control"])
@pytest.mark.parametrize("when", ["settled", "in the air", "unsure"])
async def test_an_answered_go_that_is_repeated_late_does_not_win(house: House, when: str, settle: timedelta) -> None:
    house.settle = settle
    one = house.courier()
    await house.stop("ann")
    await rounds(one)
    house.later(SETTLE)
    await house.go("ann")
    house.later(QUIET)
    if when == "unsure":  # whether an earlier one landed, will be known in a moment
        house.post.script.append(lost)
        await one.round()
        house.later(SETTLE - SECOND)

    async def meanwhile(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        if when == "in the air":
            await house.stop("ann")
        return await twice(post, tellings)

    house.post.script.append(meanwhile)
    await one.round()
    house.later(2 * SECOND)
    if when != "in the air":
        await house.stop("ann")
    await rounds(one)
    house.post.apply(house.post.landing.pop())
    house.later(SETTLE + SECOND)
    await rounds(one)
    assert await house.owed() == []
    assert house.post.held == ({("ann@example.org", "12345")} if settle else set())


@pytest.mark.parametrize(
    "trouble",
    [
        lost,
        raising(Unclear("http_500")),
        raising(TimeoutError()),
        raising(ValueError("a bug")),
        raising(MailprefsError()),
    ],
    ids=["settlement", "unclear", "timeout", "bug", "error"],
)
async def test_every_unknown_outcome_is_asserted_again_after_it_can_have_landed(house: House, trouble: Act) -> None:
    await house.stop("ann")
    one = house.courier()
    house.post.script.append(trouble)
    await one.round()
    house.later(3 * SECOND)
    await rounds(one)
    assert len(house.post.calls) == 2
    assert await house.proofs() == []
    house.later(SETTLE + SECOND)
    await rounds(one)
    assert len(house.post.calls) == 3
    assert await house.proofs() == [True]


async def test_fewer_settlements_than_tellings_settle_nothing(house: House) -> None:
    await house.stop("ann", "bob")

    async def short(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        return (await done(post, tellings))[1:]

    house.post.script.append(short)
    await house.courier().round()
    assert len(await house.owed()) == 2
    assert await house.proofs() == []


async def test_each_of_a_batch_has_its_own_outcome(house: House) -> None:
    await house.stop("ann", "bob", "cat")

    async def mixed(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        by_name = {"ann": Outcome.DONE, "bob": Outcome.UNKNOWN, "cat": Outcome.REFUSED}
        return [Settlement(by_name[each.address[:3]], "code") for each in tellings]

    house.post.script.append(mixed)
    before = alarms("quarantined")
    await house.courier().round()
    bob, cat = await house.owed()
    assert (bob["refused"], cat["refused"]) == (None, "code")
    assert cat["due_at"] == house.clock.now + timedelta(minutes=15)
    assert len(await house.proofs()) == 1
    assert alarms("quarantined") == before + 1


async def test_nothing_is_ever_given_up(house: House) -> None:
    await house.stop("ann")
    one = house.courier()
    for _ in range(60):
        house.post.script.append(lost)
        await rounds(one)
        house.later(15 * MINUTE)
    assert len(house.post.calls) == 60
    await rounds(one)
    house.later(SETTLE + SECOND)
    await rounds(one)
    assert (house.post.held, await house.owed()) == ({("ann@example.org", "12345")}, [])


# What the provider asks for


async def test_a_provider_that_asks_for_patience_gets_it_and_the_rows_are_as_they_were(house: House) -> None:
    await house.stop("ann", "bob", "cat", "dan")
    before = await house.owed()
    house.post.script.extend([raising(Slow(5 * MINUTE))] * 2)
    one = house.courier()
    await one.round()
    house.post.script.clear()
    assert await house.owed() == before
    calls = len(house.post.calls)
    house.later(5 * MINUTE - SECOND)
    assert await one.round() is False
    assert len(house.post.calls) == calls
    house.later(SECOND)
    await rounds(one)
    assert len(await house.proofs()) == 4


async def test_a_wait_stops_what_has_not_begun(house: House) -> None:
    await house.stop(*(f"p{n}" for n in range(60)))
    house.post.script.extend([raising(Slow(MINUTE))] * 20)
    await house.courier().round()
    assert len(house.post.calls) <= courier.AT_ONCE


async def test_a_wait_is_an_hour_at_the_most(house: House) -> None:
    await house.stop("ann")
    house.post.script.append(raising(Slow(timedelta(days=9))))
    one = house.courier()
    await one.round()
    house.later(timedelta(hours=1))
    assert await rounds(one) == 1


async def test_goes_that_were_broken_off_are_asserted_again_stops_are_not(house: House) -> None:
    await house.stop("ann", "bob")
    one = house.courier()
    house.post.script.append(raising(Slow(MINUTE)))
    await one.round()
    house.later(MINUTE)
    await rounds(one)
    assert len(await house.proofs()) == 2  # a stop that landed late would be no harm
    house.later(SETTLE)
    await house.go("ann", "bob")
    house.later(QUIET)
    house.post.script.append(raising(Slow(MINUTE)))
    await one.round()
    house.later(MINUTE)
    await rounds(one)
    assert len(await house.proofs()) == 2
    house.later(SETTLE + SECOND)
    await rounds(one)
    assert await house.proofs() == [True, True, False, False]


async def test_a_refused_credential_is_tried_again_with_one_row_and_recovers_by_itself(house: House) -> None:
    names = [f"p{n}" for n in range(9)]
    await house.stop(*names)
    before, alarmed = await house.owed(), alarms("credential_refused")
    one = house.courier()
    house.post.script.extend([raising(Barred())] * courier.AT_ONCE)
    await one.round()
    assert await house.owed() == before
    assert alarms("credential_refused") > alarmed
    house.post.script.clear()
    house.post.calls.clear()
    assert await one.round() is False
    house.later(courier.RETRIED_AFTER)
    house.post.script.append(raising(Barred()))
    await one.round()
    assert [len(call) for call in house.post.calls] == [1]
    house.later(courier.RETRIED_AFTER)
    await one.round()
    assert [len(call) for call in house.post.calls] == [1, 1]
    await rounds(one)
    assert max(len(call) for call in house.post.calls) == Post.batch
    assert len(await house.proofs()) == 9


async def test_a_group_that_would_do_harm_is_not_told_and_the_others_are(house: House) -> None:
    await house.stop("ann", "bob")
    await house.stop("ann", "bob", scope=OFFERS)

    async def deleted(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        post.script.append(deleted)
        if tellings[0].group == "12345":
            raise Unsafe
        return await done(post, tellings)

    house.post.script.append(deleted)
    alarmed, one = alarms("unsafe_to_tell"), house.courier()
    await rounds(one)
    assert alarms("unsafe_to_tell") == alarmed + 1
    assert house.post.held == {("ann@example.org", "12346"), ("bob@example.org", "12346")}
    assert [(row["scope"], row["attempts"], row["due_at"]) for row in await house.owed()] == [(NEWSLETTER, 0, house.clock.now)] * 2
    house.post.script.clear()
    house.later(courier.SAFE_AFTER)
    await rounds(one)
    assert len(house.post.held) == 4


async def test_a_group_that_would_do_harm_is_not_asked_for_again_and_again(house: House) -> None:
    await house.stop(*(f"p{n:02}" for n in range(60)))
    house.post.script.extend([raising(Unsafe())] * 20)
    await rounds(house.courier())
    assert len(house.post.calls) <= courier.AT_ONCE


async def test_the_one_for_which_a_batch_is_rejected_is_found_by_halving(house: House) -> None:
    class Wide(Post):
        batch: ClassVar[int] = 64

    house.post = Wide()
    names = [f"p{n:02}" for n in range(64)]
    await house.stop(*names)
    house.post.script.append(poisoned("p37"))
    await rounds(house.courier())
    assert len(house.post.calls) <= 2 * 6 + 1
    assert len(house.post.held) == 63
    (row,) = await house.owed()
    assert (row["refused"], row["due_at"]) == ("rejected", house.clock.now + timedelta(minutes=15))


async def test_a_provider_that_rejects_everything_puts_nobody_aside(house: House) -> None:
    names = [f"p{n:02}" for n in range(60)]
    await house.stop(*names)
    house.post.script.append(poisoned("p"))
    alarmed = alarms("everything_rejected")
    await house.courier().round()
    owed = await house.owed()
    assert [row["refused"] for row in owed] == [None] * 60
    assert max(row["due_at"] for row in owed) <= house.clock.now + outbox.CAP_STOP
    assert alarms("everything_rejected") > alarmed


async def test_a_batch_that_nobody_can_be_told_from_is_not_taken_apart_to_the_last(house: House) -> None:
    class Wide(Post):
        batch: ClassVar[int] = 64

    house.post = Wide()
    await house.stop(*(f"p{n:02}" for n in range(64)))
    house.post.script.append(poisoned("p"))
    await house.courier().round()
    assert len(house.post.calls) <= 2 * courier.POISON + 2 * 6
    assert [row["refused"] for row in await house.owed()] == [None] * 64


async def test_many_poisoned_rows_among_good_ones_are_all_found(house: House) -> None:
    names = [f"p{n:02}" for n in range(60)]
    await house.stop(*names)
    bad = [name for name in names if name.endswith(("7", "3"))]
    house.post.script.append(poisoned(*bad))
    await rounds(house.courier())
    assert len(house.post.held) == 60 - len(bad)
    assert sum(row["refused"] == "rejected" for row in await house.owed()) == len(bad)


async def through_an_outage(house: House, names: Sequence[str], minutes: int) -> Courier:
    """Everything is rejected for so long, as if it were the addresses' fault; then the provider is well again."""
    one = house.courier()
    house.post.script.append(poisoned(*names))
    for _ in range(12 * minutes):
        await rounds(one)
        house.later(5 * SECOND)
    house.post.script.clear()
    return one


async def test_minutes_of_lies_put_nobody_off_for_a_day(house: House) -> None:
    class Wide(Post):
        batch: ClassVar[int] = 16

    house.post = Wide()
    names = [f"p{n:02}" for n in range(48)]
    await house.stop(*names)
    one = await through_an_outage(house, ["p"], 4)
    assert [row["refused"] for row in await house.owed()] == [None] * 48
    house.later(outbox.CAP_STOP)
    await rounds(one)
    assert len(house.post.held) == 48


async def test_neither_does_an_outage_that_begins_while_much_is_taken(house: House) -> None:
    """What was taken before it began is no companion of those who were refused after."""
    names = [f"p{n:02}" for n in range(60)]
    await house.stop(*names)

    async def breaking(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        post.script.append(breaking)
        if len(post.calls) > 12:
            raise Rejected
        return await done(post, tellings)

    house.post.script.append(breaking)
    one = house.courier()
    await one.round()
    assert len(house.post.held) == 36
    assert [row["refused"] for row in await house.owed()] == [None] * 24


async def test_neither_does_an_outage_that_begins_while_a_batch_is_taken_apart(house: House) -> None:
    """One of it is bad, half of it was taken; but so many in a row are not bad."""

    class Wide(Post):
        batch: ClassVar[int] = 32

    async def breaking(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        post.script.append(breaking)
        if len(post.calls) == 2:
            return await done(post, tellings)
        raise Rejected

    house.post = Wide(script=deque([breaking]))
    await house.stop(*(f"p{n:02}" for n in range(32)))
    await house.courier().round()
    assert len(house.post.held) == 16
    assert [row["refused"] for row in await house.owed()] == [None] * 16


async def test_who_is_refused_alone_is_put_aside_once_a_companion_was_taken(house: House) -> None:
    await house.stop("bad")
    house.post.script.append(poisoned("bad"))
    one, alarmed = house.courier(), alarms("everything_rejected")
    for _ in range(20):
        await rounds(one)
        (row,) = await house.owed()
        assert row["refused"] is None
        assert row["due_at"] <= house.clock.now + outbox.CAP_STOP
        house.later(outbox.CAP_STOP)
    assert alarms("everything_rejected") >= alarmed + 20
    for name in ("ann", "bob"):
        await house.stop(name, scope=OFFERS)  # in another group: it may be ours alone that is refused
        await rounds(one)
        assert [row["refused"] for row in await house.owed()] == [None]
        house.later(outbox.CAP_STOP)
    await house.stop("ann")
    house.later(outbox.CAP_STOP)
    await rounds(one)
    (row,) = await house.owed()
    assert (row["refused"], row["due_at"]) == ("rejected", house.clock.now + timedelta(minutes=15))


async def test_who_is_in_quarantine_is_tried_again_ever_later_and_needs_no_companion_to_stay(house: House) -> None:
    await house.stop("bad", "ann")
    house.post.script.append(poisoned("bad"))
    one = house.courier()
    await rounds(one)
    for wait in [timedelta(minutes=minutes) for minutes in (15, 60, 6 * 60, 24 * 60, 24 * 60)]:
        (row,) = await house.owed()
        assert (row["refused"], row["due_at"]) == ("rejected", house.clock.now + wait)
        house.later(wait - SECOND)
        assert not await rounds(one)
        house.later(SECOND)
        assert await rounds(one)
    house.post.script.clear()
    house.later(timedelta(days=1))
    await rounds(one)
    assert await house.owed() == []


async def test_those_in_quarantine_do_not_speak_against_the_provider(house: House) -> None:
    """Ten of long ago are refused once more beside one new one, and one who is taken."""
    old = [f"old{n}" for n in range(10)]
    await house.stop(*old, *(f"p{n}" for n in range(40)))
    house.post.script.append(poisoned("old", "new"))
    one = house.courier()
    await rounds(one)
    assert sum(row["refused"] == "rejected" for row in await house.owed()) == 10
    house.later(timedelta(minutes=15))
    await house.stop("new", "zoe")
    await rounds(one)
    assert sum(row["refused"] == "rejected" for row in await house.owed()) == 11
    assert ("zoe@example.org", "12345") in house.post.held


# Time


async def test_no_request_begins_in_the_last_third_of_a_lease(house: House) -> None:
    """Whatever the wall clock says: here it stands."""

    class Single(Post):
        batch: ClassVar[int] = 1

    house.post, house.timing = Single(), replace(house.timing, lease=1.8 * SECOND)
    names = [f"p{n:02}" for n in range(80)]
    await house.stop(*names)

    async def slow(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        await asyncio.sleep(0.1)
        return await done(post, tellings)

    house.post.script.extend([slow] * 80)
    begun = asyncio.get_running_loop().time()
    await house.courier().round()
    assert 8 <= len(house.post.calls) < 80
    assert max(house.post.begun) - begun < 1.2 + 0.4
    owed = await house.owed()
    assert len(owed) == 80 - len(house.post.calls)
    assert {(row["lease"], row["attempts"]) for row in owed} == {(None, 0)}


async def test_no_request_begins_late_because_the_database_was_slow(house: House, database: str) -> None:
    class Single(Post):
        batch: ClassVar[int] = 1

    house.post, house.timing = Single(), replace(house.timing, lease=1.5 * SECOND)
    await house.stop(*(f"p{n:02}" for n in range(40)))
    other = await asyncpg.connect(database)

    async def locking(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        async with other.transaction():
            await other.execute("lock table mapping in access exclusive mode")
            await asyncio.sleep(1.1)
        return await done(post, tellings)

    house.post.script.append(locking)
    begun = asyncio.get_running_loop().time()
    await house.courier().round()
    await other.close()
    assert max(house.post.begun) - begun < 1.1  # whatever begins behind the lock begins later
    assert 0 < len(house.post.calls) < 40


async def test_a_request_that_outlasts_its_lease_is_broken_off_and_its_outcome_unknown(house: House) -> None:
    house.timing = replace(house.timing, lease=1.8 * SECOND)
    await house.stop("ann")

    async def hanging(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        await asyncio.sleep(30)
        return await done(post, tellings)

    house.post.script.append(hanging)
    begun = asyncio.get_running_loop().time()
    await house.courier().round()
    assert asyncio.get_running_loop().time() - begun < 1.8
    (row,) = await house.owed()
    assert row["unsure_until"] == house.clock.now + SETTLE


async def test_nothing_is_sent_faster_than_the_accounts_pace(house: House) -> None:
    class Slowly(Post):
        batch: ClassVar[int] = 1
        pace: ClassVar[float] = 20.0

    house.post = Slowly()
    await house.stop(*(f"p{n:02}" for n in range(32)))
    await rounds(house.courier())
    begun = house.post.begun
    assert len(begun) == 32
    assert begun[-1] - begun[0] >= (32 - 20) / 20 * 0.95  # a second's worth may go at once
    for first, last in zip(begun, begun[25:], strict=False):
        assert last - first >= 0.2


async def test_goes_leave_a_fifth_of_the_pace_to_stops(house: House) -> None:
    class Slowly(Post):
        batch: ClassVar[int] = 1
        pace: ClassVar[float] = 10.0

    house.post = Slowly()
    one = house.courier()
    begun = asyncio.get_running_loop().time()
    for _ in range(16):
        await one.pace(stop=False)
    assert asyncio.get_running_loop().time() - begun >= (16 * 1.25 - 10) / 10 * 0.95


# Owners


async def test_a_round_that_could_send_nothing_says_so(house: House) -> None:
    """Else the worker would go round and round without a pause."""
    await house.stop("ann")
    await house.conn.execute("update push set stop = false")
    house.later(QUIET)
    one = house.courier()
    assert await one.round() is False
    assert (await house.owed())[0]["stop"] is True
    assert await one.round() is True
    assert await one.round() is False


async def test_an_idle_account_is_looked_at_and_nothing_is_written(house: House) -> None:
    """Once a second for each account: by its owner, and by every other worker. After a third of the ownership it is renewed."""
    one, two = house.courier(), house.courier()
    await one.round()
    written = await house.conn.fetchrow("select xmin::text, xmax::text, owned_until from gate")
    for _ in range(39):
        house.later(SECOND)
        assert not await one.round()
        assert not await two.round()
    assert await house.conn.fetchrow("select xmin::text, xmax::text, owned_until from gate") == written
    house.later(SECOND)
    await one.round()
    assert await house.conn.fetchval("select owned_until from gate") == house.clock.now + house.timing.lease


async def test_an_idle_owner_keeps_its_account(house: House) -> None:
    one, two = house.courier(), house.courier()
    for _ in range(30):
        await one.round()
        await two.round()
        house.later(10 * SECOND)
    assert await house.conn.fetchval("select owner from gate") == one.owner


async def test_of_two_couriers_one_sends(house: House) -> None:
    await house.stop(*(f"p{n:02}" for n in range(60)))
    one, two = house.courier(), house.courier()
    assert await one.round() is True
    assert await two.round() is False
    await one.leave()
    await house.stop("zoe")
    assert await two.round() is True
    assert await one.round() is False


async def test_a_courier_that_slept_through_its_lease_sends_nothing_more(house: House) -> None:
    """It was stopped in the middle, by a debugger or a virtual machine that moved: another has its rows when it wakes up."""
    names = [f"p{n:02}" for n in range(60)]
    await house.stop(*names)
    awake, asleep = asyncio.Event(), asyncio.Barrier(courier.AT_ONCE + 1)

    async def sleeping(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        await asleep.wait()
        await awake.wait()
        return await done(post, tellings)

    house.post.script.extend([sleeping] * courier.AT_ONCE)
    slept = asyncio.create_task(house.courier().round())
    await asleep.wait()
    first = len(house.post.calls)
    house.later(house.timing.lease)
    other = house.courier()
    await rounds(other)
    mark = len(house.post.calls)
    awake.set()
    await slept
    assert len(house.post.calls) == mark > first  # it woke up, and sent nothing
    assert await house.proofs() == []  # what it had in the air may land after what the other told
    assert len(await house.owed()) == 60
    house.later(SETTLE + SECOND)
    await rounds(other)
    assert (len(await house.proofs()), await house.owed()) == (60, [])


async def test_stopping_settles_what_is_in_the_air_and_gives_the_rest_back(house: House) -> None:
    await house.stop(*(f"p{n:02}" for n in range(60)))
    one = house.courier()

    async def last(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        one.stopping.set()
        await asyncio.sleep(0.05)
        return await done(post, tellings)

    house.post.script.append(last)
    await one.round()
    told = len(house.post.told())
    assert 0 < told <= Post.batch * courier.AT_ONCE
    owed = await house.owed()
    assert (len(await house.proofs()), len(owed)) == (told, 60 - told)
    assert {(row["lease"], row["attempts"]) for row in owed} == {(None, 0)}


# Trouble of the database, and what is said


async def test_an_answer_is_written_down_though_the_database_was_away_for_a_moment(house: House) -> None:
    await house.stop("ann")

    async def outage(post: Post, tellings: Sequence[Telling]) -> list[Settlement]:
        await house.conn.fetch("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mailprefs test'")
        return await done(post, tellings)

    house.post.script.append(outage)
    await house.courier().round()
    assert (await house.owed(), await house.proofs()) == ([], [True])


async def test_an_account_never_holds_more_than_one_connection(house: House) -> None:
    await house.stop(*(f"p{n:02}" for n in range(60)))
    one = house.courier()
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, house.pool.get_size() - house.pool.get_idle_size())
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await rounds(one)
    watching.cancel()
    assert most == 1


async def test_no_address_is_said_in_logs_or_metrics(house: House) -> None:
    await house.stop("canary1", "canary2", "canary3", "canary4")
    one = house.courier()
    with capture_logs() as logs:
        for error in (ValueError("canary@example.org"), Slow(SECOND), Barred("canary@example.org"), Unsafe("canary"), Unclear("http_500")):
            house.post.script.extend([raising(error)] * 3)
            await one.round()
            house.post.script.clear()
            house.later(timedelta(hours=1))
        house.post.script.append(poisoned("canary"))
        await rounds(one)
    said = [{name: value for name, value in entry.items() if name != "exc_info"} for entry in logs]  # of those, the log keeps the kind
    assert len(said) >= 5
    assert "canary" not in str(said)
    metrics = [(sample.name, sample.labels) for metric in REGISTRY.collect() for sample in metric.samples]
    assert any(name == "mailprefs_tellings_total" for name, _ in metrics)
    assert "canary" not in str(metrics)


def test_a_lease_holds_what_the_pace_carries_in_a_few_seconds() -> None:
    def most(batch: int, pace: float) -> int:
        provider = cast("Post", type("Any", (Post,), {"batch": batch, "pace": pace})())
        return Route("any", 1, provider, Credential("any", {}), GROUPS, CALLED, SETTLE).most

    assert most(1, 2.0) == 20
    assert most(200, 3.0) == courier.LARGEST
    assert most(500, 0.1) == 500


# What cannot be compared

DAY = timedelta(days=1)


def turn_of(house: House, name: str) -> None:
    """Go on to the next moment at which it is the turn of somebody's bucket: within a day."""
    bucket = house.addresses.read(f"{name}@example.org").bucket
    house.later(outbox.TURN * ((bucket - outbox.turn(house.clock.now)) % BUCKETS))
    assert outbox.turn(house.clock.now) % BUCKETS == bucket


async def carried(house: House, each: Courier) -> list[tuple[str, bool]]:
    """Carry whatever is owed at this moment, and return what was told."""
    before = len(house.post.told())
    while await each.round():
        pass
    return house.post.told()[before:]


async def test_a_stop_that_nobody_could_find_on_a_list_is_told_again_before_it_is_forgotten(house: House) -> None:
    each = house.courier()
    await house.stop("ann")
    assert await carried(house, each) == [("ann", True)]
    house.post.held.clear()  # it forgets
    told = []
    for _ in range(4):
        house.later(20 * DAY)
        turn_of(house, "ann")
        told.append(await carried(house, each))
    assert told == [[], [], [("ann", True)], []]  # after 20, 40, 60 and 80 days
    assert house.post.held
    assert await house.proofs() == [True, True]


async def test_whose_list_is_compared_is_told_nothing_again(house: House) -> None:
    each = house.courier()
    await house.stop("ann")
    await house.stop("ann", scope=OFFERS)
    await carried(house, each)
    house.later(60 * DAY)
    turn_of(house, "ann")
    compared = "insert into reconciliation values (1, $1, $2, $2, 1, '{}', $3)"
    await house.conn.execute(compared, NEWSLETTER, house.clock.now - 6 * DAY, True)
    await house.conn.execute(compared, OFFERS, house.clock.now - 8 * DAY, True)  # the control: too long ago
    assert await carried(house, each) == [("ann", True)]
    assert {call[0].group for call in house.post.calls[2:]} == {GROUPS[OFFERS]}


async def test_only_who_is_stopped_now_is_told_again(house: House) -> None:
    each = house.courier()
    await house.stop("ann")
    await carried(house, each)
    await house.go("ann")
    house.later(DAY)
    assert await carried(house, each) == [("ann", False)]
    house.later(60 * DAY)
    turn_of(house, "ann")
    assert await carried(house, each) == []


async def test_who_left_at_the_provider_itself_is_told_to_it_before_it_forgets(house: House) -> None:
    """Nobody ever told it: it told us. A go that comes before it was told again is told all the same."""
    each = house.courier()
    for name in ("ann", "bob"):
        left = Change(
            await house.person(name), NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.PROVIDER, name, house.clock.now, by="sendgrid-main"
        )
        await ledger.record(house.conn, [left], now=house.clock.now)
    assert await carried(house, each) == []
    house.later(60 * DAY)
    turn_of(house, "ann")
    assert await carried(house, each) == [("ann", True)]
    turn_of(house, "bob")
    owed = await outbox.tell_again(house.conn, house.account, called=CALLED, most=9, now=house.clock.now)
    await house.go("bob")
    house.later(DAY)
    assert (owed, await carried(house, each)) == (1, [("bob", False)])


async def test_what_is_told_again_waits_for_everything_else_and_is_no_more_than_a_lease_carries(house: House) -> None:
    each = house.courier()
    await house.stop("ann", "bob")
    await carried(house, each)
    house.later(60 * DAY)
    turn_of(house, "ann")
    await house.stop("zoe")
    assert await each.round()
    assert house.post.told()[2:] == [("zoe", True)]
    assert await outbox.tell_again(house.conn, house.account, called=CALLED, most=0, now=house.clock.now) == 0
    assert await carried(house, each) == [("ann", True)]
    assert await each.round() is False  # once in a turn
