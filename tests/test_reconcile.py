"""A provider's list beside ours: every kind of drift found, none invented, and healed towards more suppression alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import cast
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession

from mailprefs import db, ledger, outbox, reconcile
from mailprefs.addresses import Addresses
from mailprefs.errors import Busy, Forged, Unreadable
from mailprefs.links import KeyRing
from mailprefs.outbox import End, Fate
from mailprefs.providers.base import Barred, Credential, Listed, Provider, Slow, Unclear, Unlisted, Unsafe
from mailprefs.reconcile import Books, Report, Shrunk
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect, Kind

pytestmark = pytest.mark.spread

MAIN, NEWSLETTER, OFFERS = 1, 272, 273
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
SETTLE = timedelta(minutes=15)


@dataclass
class Lister:
    """A provider that lists what a test says, and nothing else."""

    entries: list[Listed] = field(default_factory=list)
    cut_after: int | None = None
    meanwhile: list[Change] = field(default_factory=list)
    channel = Channel.EMAIL

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        for n, entry in enumerate(each for each in self.entries if each.group == group):
            if n == self.cut_after:
                raise Unclear("truncated")
            yield entry


@dataclass
class Case:
    """One account, its lister, and people in every relation to it."""

    conn: asyncpg.Connection
    addresses: Addresses
    now: datetime
    lister: Lister = field(default_factory=Lister)

    def books(self, now: datetime | None = None) -> Books:
        return Books(
            "sendgrid-main",
            MAIN,
            cast(Provider, self.lister),
            Credential("sendgrid-main", {}),
            {NEWSLETTER: "12345"},
            {NEWSLETTER: "connective/newsletter"},
            self.conn,
            cast(ClientSession, None),
            self.addresses,
            lambda: now or self.now,
        )

    async def compare(self, *, heal: bool = False, shrunk: bool = False, now: datetime | None = None) -> Report:
        (report,) = await self.books(now).compare(heal=heal, shrunk=shrunk)
        return report

    async def known(self, name: str) -> Address:
        who = self.addresses.read(f"{name}@example.org")
        row = (who.bucket, who.key, who.text)
        await self.conn.execute(
            "insert into address (bucket, key, channel, plaintext) values ($1, $2, 'email', $3) on conflict do nothing", *row
        )
        return who

    async def change(self, who: Address, effect: Effect, at: datetime) -> None:
        door = Door.LINK if effect is Effect.STOP else Door.MANAGE
        await ledger.record(self.conn, [Change(who, NEWSLETTER, Cause.CHOICE, effect, door, uuid4().hex, at)], now=at)

    async def told(self, at: datetime, *, stop: bool = True) -> None:
        """The account confirms everything that it is owed in one direction."""
        held = await outbox.lease(
            self.conn,
            MAIN,
            called={NEWSLETTER: "sendgrid/12345"},
            stop=stop,
            most=1000,
            until=at + MINUTE,
            settle=SETTLE,
            quiet=timedelta(),
            now=at,
        )
        assert held is not None
        ready = await outbox.read(self.conn, held, held.pushes, margin=timedelta(), now=at)
        await outbox.settle(self.conn, held, [End(each.push, Fate.DONE, each.want) for each in ready], sent_at=at, settle=SETTLE, now=at)

    def lists(self, who: Address, at: datetime | None = None, kind: Kind = Kind.UNSUBSCRIBED) -> None:
        self.lister.entries.append(Listed(who.text or "", "12345", at, kind))

    async def stopped(self, who: Address) -> bool:
        return bool(await self.conn.fetchval("select stops @> array[272] from address where key = $1", who.key))


@pytest.fixture
def case(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> Case:
    return Case(conn, addresses, now)


async def agreeing(case: Case, people: int) -> None:
    """People who are stopped here and there, long since."""
    for n in range(people):
        who = await case.known(f"agreed{n}")
        await case.change(who, Effect.STOP, case.now - 9 * DAY)
        case.lists(who)
    await case.told(case.now - 8 * DAY)


@pytest.mark.parametrize("each", [1, 7])
async def test_every_kind_of_drift_is_found_and_none_is_invented(case: Case, each: int) -> None:
    await agreeing(case, 40)
    for n in range(each):
        case.lists(await case.known(f"theirs{n}"), case.now - DAY)
        case.lists(case.addresses.read(f"stranger{n}@example.org"))
        await case.change(await case.known(f"ours{n}"), Effect.STOP, case.now - 9 * DAY)
        stale = await case.known(f"stale{n}")
        await case.change(stale, Effect.STOP, case.now - 9 * DAY)
        case.lists(stale)
    await case.told(case.now - 8 * DAY)
    for n in range(each):
        await case.change(case.addresses.read(f"stale{n}@example.org"), Effect.GO, case.now - 7 * DAY)
    await case.told(case.now - 6 * DAY, stop=False)
    for n in range(each):
        await case.change(await case.known(f"unsettled{n}"), Effect.STOP, case.now - MINUTE)
        case.lists(case.addresses.read(f"AGREED{n}@Example.org"))
    report = await case.compare()
    assert report.found == dict.fromkeys(("theirs", "stranger", "ours", "stale", "unsettled"), each)
    assert (report.listed, report.twice) == (40 + 4 * each, each)
    assert report.drifted


async def test_where_both_hold_the_same_there_is_no_drift(case: Case) -> None:
    await agreeing(case, 40)
    await case.known("allowed")
    report = await case.compare()
    assert not report.drifted
    assert set(report.found.values()) == {0}


async def test_nothing_is_healed_unless_it_is_asked_for(case: Case) -> None:
    case.lists(who := await case.known("theirs"))
    await case.compare()
    assert not await case.stopped(who)


async def test_a_stop_that_only_they_hold_becomes_ours_and_is_not_told_back(case: Case) -> None:
    case.lists(dated := await case.known("dated"), case.now - DAY)
    case.lists(undated := await case.known("undated"))
    case.lists(stranger := case.addresses.read("stranger@example.org"))
    await case.compare(heal=True)
    assert [await case.stopped(who) for who in (dated, undated, stranger)] == [True, True, True]
    assert {row["door"] for row in await case.conn.fetch("select door from consent")} == {"reconcile"}
    assert await case.conn.fetchval("select plaintext from address where key = $1", stranger.key) is None
    assert await case.conn.fetchval("select count(*) from push where account = $1", MAIN) == 0
    assert await case.conn.fetchval("select count(distinct account) from push") == 1  # the other account is owed it
    assert not (await case.compare()).drifted
    await case.compare(heal=True)
    assert await case.conn.fetchval("select count(*) from consent") == 3


async def test_a_bounce_and_a_complaint_on_their_list_are_no_choices(case: Case) -> None:
    """Staff who correct a bounce must find nothing else in the way."""
    case.lists(bounced := await case.known("bounced"), case.now - DAY, Kind.BOUNCED_HARD)
    case.lists(complained := await case.known("complained"), case.now - DAY, Kind.COMPLAINED)
    case.lists(await case.known("undated"), kind=Kind.BOUNCED_HARD)  # may have been corrected long ago
    assert (await case.compare(heal=True)).found["theirs"] == 2
    rows = await case.conn.fetch("select key, scope, cause from consent")
    assert {tuple(row) for row in rows} == {(bounced.key, 0, "bounce"), (complained.key, 257, "complaint")}
    assert not (await case.compare()).drifted
    lifted = Change(bounced, 0, Cause.BOUNCE, Effect.GO, Door.STAFF, "corrected", case.now)
    await ledger.record(case.conn, [lifted], now=case.now)
    assert await case.conn.fetchval("select stops from address where key = $1", bounced.key) is None
    await case.compare(heal=True)
    assert await case.conn.fetchval("select stops from address where key = $1", bounced.key) is None


async def owed(case: Case, who: Address) -> tuple[object, ...] | None:
    """What the account is owed about one person: the direction, and since when."""
    row = await case.conn.fetchrow("select stop, since from push where account = $1 and key = $2", MAIN, who.key)
    return tuple(row) if row else None


async def test_a_stop_that_they_lost_is_told_again_and_its_clock_has_run_all_along(case: Case) -> None:
    await case.change(who := await case.known("ours"), Effect.STOP, case.now - 9 * DAY)
    await case.told(case.now - 8 * DAY)
    for look in range(2):  # and once more, when that is lost as well
        assert (await case.compare(heal=True, now=case.now + look * DAY)).found["ours"] == 1
        assert await owed(case, who) == (True, case.now - 9 * DAY)
        late = {each.account: each.late for each in await outbox.sync(case.conn, now=case.now)}
        assert late["sendgrid-main"] == 1
        await case.told(case.now + (look + 1) * DAY - MINUTE)


async def test_the_clock_of_a_stop_that_they_lost_begins_after_they_last_let_go(case: Case) -> None:
    who = await case.known("ours")
    for days, effect in ((9, Effect.STOP), (7, Effect.GO), (5, Effect.STOP)):
        await case.change(who, effect, case.now - days * DAY)
        await case.told(case.now - (days - 1) * DAY, stop=effect is Effect.STOP)
    assert (await case.compare(heal=True)).found["ours"] == 1
    assert await owed(case, who) == (True, case.now - 5 * DAY)


@pytest.mark.parametrize("lost", [True, False])
async def test_a_go_is_told_to_who_was_found_to_have_lost_the_stop_that_they_told_us_of(case: Case, lost: bool) -> None:
    """Which of the two it believes, nobody knows. The control: who never held a stop is told of none, and of no go."""
    who = await case.known("heard")
    door, by = (Door.PROVIDER, "sendgrid-main") if lost else (Door.LINK, None)
    left = Change(who, NEWSLETTER, Cause.CHOICE, Effect.STOP, door, "sendgrid-main/e1", case.now - DAY, by=by)
    await ledger.record(case.conn, [left], now=case.now - DAY)
    assert (await case.compare(heal=True)).found["ours" if lost else "unsettled"] == 1
    assert await owed(case, who) == (True, case.now if lost else case.now - DAY)
    await case.change(who, Effect.GO, case.now + MINUTE)
    assert await owed(case, who) == ((False, case.now) if lost else None)


@pytest.mark.parametrize("text_known", [True, False])
async def test_a_stop_that_they_lost_of_an_address_known_by_key_alone_is_no_drift(case: Case, text_known: bool) -> None:
    """They told us of it themselves, and nothing can be told them of somebody whose text we do not know."""
    who = await case.known("heard") if text_known else case.addresses.read("heard@example.org")
    left = Change(who, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.PROVIDER, "sendgrid-main/e1", case.now - 9 * DAY, by="sendgrid-main")
    await ledger.record(case.conn, [left], now=case.now - 9 * DAY)
    report = await case.compare(heal=True)
    expected = {"ours": 1} if text_known else {}  # the control: of whom it is known, they are told again
    assert {kind: people for kind, people in report.found.items() if people} == expected
    assert await case.conn.fetchval("select count(*) from push where account = $1", MAIN) == len(expected)


async def test_a_pause_that_they_lost_is_found_although_its_end_waits_to_be_told(case: Case) -> None:
    who = await case.known("paused")
    end = case.now + DAY
    paused = Change(who, NEWSLETTER, Cause.PAUSE, Effect.STOP, Door.PAGE, "p", case.now - 9 * DAY, end)
    await ledger.record(case.conn, [paused], now=case.now - 9 * DAY)
    await case.told(case.now - 8 * DAY)
    assert await case.conn.fetchval("select since from push where account = $1", MAIN) == end
    report = await case.compare()
    assert {kind: people for kind, people in report.found.items() if people} == {"ours": 1}


@pytest.mark.parametrize("dated", [None, -8 * DAY])
async def test_whoever_was_let_go_is_not_stopped_again_by_our_own_echo(case: Case, dated: timedelta | None) -> None:
    await case.change(who := await case.known("stale"), Effect.STOP, case.now - 9 * DAY)
    await case.told(case.now - 8 * DAY)
    await case.change(who, Effect.GO, case.now - 7 * DAY)
    await case.told(case.now - 6 * DAY, stop=False)
    case.lists(who, case.now + dated if dated else None)
    assert (await case.compare(heal=True)).found["stale"] == 1
    assert not await case.stopped(who)


async def test_whoever_left_there_after_they_were_let_go_is_stopped(case: Case) -> None:
    """The control: the same person, with a date since."""
    await case.change(who := await case.known("again"), Effect.STOP, case.now - 9 * DAY)
    await case.told(case.now - 8 * DAY)
    await case.change(who, Effect.GO, case.now - 7 * DAY)
    await case.told(case.now - 6 * DAY, stop=False)
    case.lists(who, case.now - DAY)
    assert (await case.compare(heal=True)).found["theirs"] == 1
    assert await case.stopped(who)


async def test_what_was_told_while_the_list_was_read_is_left_alone(case: Case) -> None:
    """Nobody can say whether the listing was made before it or after."""
    gone = await case.known("gone")
    await case.change(gone, Effect.STOP, case.now)
    await case.told(case.now + MINUTE)
    back = await case.known("back")
    case.lists(back)
    await case.change(back, Effect.STOP, case.now - 2 * DAY)
    await case.told(case.now - DAY)
    await case.change(back, Effect.GO, case.now)
    report = await case.compare(heal=True)
    assert {kind: people for kind, people in report.found.items() if people} == {"unsettled": 2}
    assert not await case.stopped(back)
    assert await case.conn.fetchval("select count(*) from push where account = $1 and stop", MAIN) == 0


async def test_a_listing_that_was_cut_off_is_refused(case: Case) -> None:
    await agreeing(case, 40)
    await case.compare(heal=True)
    del case.lister.entries[30:]
    with pytest.raises(Shrunk, match="lists 30 where it listed 40"):
        await case.compare(heal=True)
    assert await case.conn.fetchval("select count(*) from push where account = $1", MAIN) == 0
    assert (await case.compare(shrunk=True)).found["ours"] == 10  # who says that it is right is believed


async def test_a_listing_is_measured_by_the_newest_before_it_and_not_by_the_first(case: Case) -> None:
    await agreeing(case, 80)
    everybody = case.lister.entries[:]
    del case.lister.entries[40:]
    await case.compare(now=case.now - 2 * DAY)
    case.lister.entries = everybody
    await case.compare(now=case.now - DAY)
    case.lister.entries = everybody[:50]
    with pytest.raises(Shrunk, match="lists 50 where it listed 80"):
        await case.compare()
    await case.compare(shrunk=True)
    assert (await case.compare(now=case.now + DAY)).listed == 50  # and who was believed once need not say it again


async def test_a_listing_that_breaks_off_heals_nothing(case: Case) -> None:
    for n in range(5):
        case.lists(await case.known(f"theirs{n}"))
    case.lister.cut_after = 3
    with pytest.raises(Unclear):
        await case.compare(heal=True)
    assert await case.conn.fetchval("select count(*) from consent") == 0


async def test_two_do_not_compare_one_account_at_once(case: Case, database: str) -> None:
    other = await asyncpg.connect(database)
    async with replace(case.books(), connection=other)._alone():
        with pytest.raises(Busy):
            await case.compare()
        another_account = replace(case.books(), number=2, groups={})
        assert await another_account.compare(heal=False) == []
    await other.close()
    await case.compare()


async def test_a_comparison_that_is_over_keeps_nobody_out_who_has_another_session_of_its_pool(case: Case, database: str) -> None:
    pool = await db.pool(database, size=2, command_timeout=20, purpose="test")
    async with pool.acquire() as one, pool.acquire() as two:
        for connection in (one, two):
            (report,) = await replace(case.books(), connection=connection).compare(heal=False)
            assert not report.drifted
        case.lists(await case.known("theirs"))
        case.lister.cut_after = 0
        with pytest.raises(Unclear):
            await replace(case.books(), connection=one).compare(heal=False)
        case.lister.cut_after = None
        (report,) = await replace(case.books(), connection=two).compare(heal=False)
        assert report.drifted, "not even one that broke off"
    pool.terminate()


async def let_go(case: Case, name: str, *, at: datetime) -> Address:
    """Somebody who was stopped and told, then chose to be written to again, and the account confirmed that."""
    await case.change(who := await case.known(name), Effect.STOP, at - 2 * DAY)
    await case.told(at - 2 * DAY + MINUTE)
    await case.change(who, Effect.GO, at - DAY)
    await case.told(at, stop=False)
    return who


def found(report: Report) -> dict[str, int]:
    return {kind: people for kind, people in report.found.items() if people}


async def test_whoever_left_there_again_is_stopped_although_the_list_gives_no_dates(case: Case) -> None:
    """They were off a whole listing after they were let go, and are on a later one: no echo of ours."""
    who = await let_go(case, "again", at=case.now - 5 * DAY)
    assert found(await case.compare(now=case.now - DAY)) == {}
    case.lists(who)
    assert found(await case.compare()) == {"theirs": 1}
    assert (await case.compare(heal=True, now=case.now + MINUTE)).found["theirs"] == 1, "and only looking at it forgets nothing"
    assert await case.stopped(who)
    assert found(await case.compare(heal=True, now=case.now + 2 * MINUTE)) == {}


async def test_whoever_was_never_off_their_list_is_not_stopped_again_however_often_it_is_read(case: Case) -> None:
    who = await let_go(case, "echo", at=case.now - 5 * DAY)
    case.lists(who)
    for days in range(4, -1, -1):
        assert found(await case.compare(heal=True, now=case.now - days * DAY)) == {"stale": 1}
    assert not await case.stopped(who)


async def test_a_listing_in_which_they_could_not_be_seen_yet_proves_nothing(case: Case) -> None:
    """A request of before the go may still have landed after it."""
    who = await let_go(case, "again", at=case.now - 5 * DAY)
    await case.compare(now=case.now - 5 * DAY + SETTLE)
    case.lists(who)
    assert found(await case.compare(heal=True)) == {"stale": 1}
    assert not await case.stopped(who)


async def test_a_listing_that_was_believed_although_it_had_shrunk_proves_nobodys_absence(case: Case) -> None:
    await agreeing(case, 40)
    who = await let_go(case, "echo", at=case.now - 5 * DAY)
    everybody = case.lister.entries[:]
    await case.compare(now=case.now - 6 * DAY)
    del case.lister.entries[20:]
    await case.compare(shrunk=True, now=case.now - DAY)
    case.lister.entries = everybody
    case.lists(who)
    assert found(await case.compare(heal=True)) == {"stale": 1}
    assert not await case.stopped(who)


async def test_a_comparison_of_an_older_release_proves_nobodys_absence(case: Case) -> None:
    """It did not write down whom it saw."""
    who = await let_go(case, "echo", at=case.now - 5 * DAY)
    case.lists(who)
    await case.conn.execute(
        "insert into reconciliation (account, scope, began_at, ended_at, listed, found, healed) values ($1, $2, $3, $3, 1, '{}', true)",
        MAIN, NEWSLETTER, case.now - DAY,
    )  # fmt: skip
    assert found(await case.compare(heal=True)) == {"stale": 1}


@pytest.mark.parametrize("spoken", [False, True])
async def test_whoever_chose_again_since_they_were_off_the_list_is_not_stopped(case: Case, spoken: bool) -> None:
    who = await let_go(case, "again", at=case.now - 5 * DAY)
    await case.compare(now=case.now - DAY)
    case.lists(who)
    if spoken:
        await case.change(who, Effect.GO, case.now - MINUTE)
    assert found(await case.compare(heal=True)) == ({"stale": 1} if spoken else {"theirs": 1})
    assert await case.stopped(who) is not spoken


async def test_whoever_is_let_go_after_they_left_there_again_begins_anew(case: Case) -> None:
    who = await let_go(case, "again", at=case.now - 9 * DAY)
    await case.compare(now=case.now - 8 * DAY)
    case.lists(who)
    await case.compare(heal=True, now=case.now - 7 * DAY)
    await case.change(who, Effect.GO, case.now - 6 * DAY)
    await case.told(case.now - 5 * DAY, stop=False)
    for days in (4, 3):
        assert found(await case.compare(heal=True, now=case.now - days * DAY)) == {"stale": 1}
    assert not await case.stopped(who)


async def test_unasked_no_more_people_are_stopped_than_is_usual_and_what_they_lost_is_told_again_all_the_same(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "UNASKED", 3)
    await agreeing(case, 20)
    await case.change(await case.known("ours"), Effect.STOP, case.now - 9 * DAY)
    await case.told(case.now - 8 * DAY)
    for n in range(4):
        case.lists(await case.known(f"theirs{n}") if n % 2 else case.addresses.read(f"stranger{n}@example.org"))
    (report,) = await case.books().compare(heal=True, unasked=True)
    assert (report.healed, report.wants_a_person, report.found["theirs"] + report.found["stranger"]) == (False, True, 4)
    assert not await case.stopped(case.addresses.read("theirs1@example.org"))
    assert await case.conn.fetchval("select count(*) from push where account = $1", MAIN) == 1
    monkeypatch.setattr(reconcile, "SHARE", 0.2)  # of 24: the control
    (report,) = await case.books(case.now + MINUTE).compare(heal=True, unasked=True)
    assert (report.healed, report.wants_a_person) == (True, False)
    assert await case.stopped(case.addresses.read("theirs1@example.org"))


async def test_who_asks_for_healing_has_all_of_it_healed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "UNASKED", 0)
    case.lists(who := await case.known("theirs"))
    assert (await case.compare(heal=True)).healed
    assert await case.stopped(who)


async def test_a_report_is_proven_by_its_signature_and_by_nothing_else(case: Case, ring: KeyRing) -> None:
    case.lists(await case.known("theirs"))
    told = json.loads(json.dumps(reconcile.signed(ring, [await case.compare()])))
    reports, _ = reconcile.proven(ring, told)
    assert reports[0]["found"]["theirs"] == 1
    for altered in (
        told | {"reports": [reports[0] | {"listed": 2}]},
        told | {"proof": told["proof"][:-20] + told["proof"][-20:].swapcase()},
        told | {"proof": ring.timed("undo").dumps(reports)},
    ):
        with pytest.raises(Forged):
            reconcile.proven(ring, altered)
    nothings: tuple[object, ...] = ({}, [], "x", {"reports": reports}, {"proof": told["proof"]}, None)
    for nothing in nothings:
        with pytest.raises(Unreadable):
            reconcile.proven(ring, nothing)


def test_why_nothing_was_compared_is_said_in_words_and_to_try_again_only_where_that_helps() -> None:
    troubles = (Slow(MINUTE), Barred(), Unclear("http_500"), Unsafe("the group is gone"), Unlisted("it shows none"))
    said = [reconcile.why(each) for each in troubles]
    assert [("try again" in each) for each in said] == [True, True, True, True, False]
    assert [word in each for word, each in zip(("60 s", "key", "http_500", "is gone", "shows none"), said, strict=True)] == [True] * 5
