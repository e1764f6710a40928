"""What each account must still be told: leased, read anew, settled. Nothing is ever given up. No HTTP here.

A push is state, not history: "this account must hear about this address and scope". What it hears is read from the rule at the
moment of sending, so changes in flight coalesce, and a lease or a settlement that comes too late changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from mailprefs import clock
from mailprefs.db import Connection, queries
from mailprefs.words import ADS, BUCKETS, MARKETING, Channel

CAP_STOP, CAP_GO = timedelta(minutes=15), timedelta(hours=6)  # the longest wait between two attempts, which never cease
PATIENCE = timedelta(hours=72)  # with a go of which nothing is known: then once a day, and counted with the dead
LONGEST_WAIT = timedelta(hours=1)  # that a provider can ask of us
AGAIN = timedelta(days=45)  # after which a stop is told again that nobody could find on the provider's own list: before it is forgotten
UNCOMPARED = timedelta(days=7)  # after which a list counts as one that cannot be compared
TURN = timedelta(seconds=83)  # one bucket after the other: all in less than a day, each at another hour than the day before
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Fate(StrEnum):
    """What became of one push in one attempt."""

    DONE = "done"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    CUT = "cut"  # its request was broken off, and a part of it may still land
    UNSENT = "unsent"


class Verdict(StrEnum):
    """What a settlement came to."""

    SETTLED = "settled"  # the account believes it, and ``told`` holds the proof
    UNSURE = "unsure"  # confirmed, but an earlier request may still land: asserted again after that
    MOVED = "moved"  # the wish changed meanwhile: due at once
    POSTPONED = "postponed"
    QUARANTINED = "quarantined"  # tried again after a while, then once a day
    RELEASED = "released"  # as if it had not been leased


@dataclass(frozen=True, slots=True)
class Push:
    """One (address, scope) that an account must be told about."""

    bucket: int
    key: UUID
    scope: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Pushes of one account and one direction that nobody else may send until the lease ends."""

    account: int
    token: UUID
    stop: bool
    pushes: tuple[Push, ...]
    called: Mapping[int, str]  # scope → the id that whoever leased it tells it by


@dataclass(frozen=True, slots=True)
class Ready:
    """A push as it must be sent at this moment."""

    push: Push
    want: int  # the generation that this state belongs to
    stop: bool
    text: str | None  # None: the address cannot be told
    refused: bool = False  # the provider has refused this very one, and not taken it since


@dataclass(frozen=True, slots=True)
class End:
    """How one push came out of one attempt."""

    push: Push
    fate: Fate
    want: int = 0
    detail: str = ""  # a code, never an address


@dataclass(frozen=True, slots=True)
class Gate:
    """What stands before an account that we own."""

    shut: bool  # nothing may be sent now
    barred: bool  # its credential was refused the last time


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a look at an account shows, which writes nothing."""

    taken: bool  # another worker owns it
    lapsing: bool  # it is not ours, or not for much longer
    gate: Gate


@dataclass(frozen=True, slots=True)
class Figures:
    """What one account has still to hear."""

    account: str
    waiting: int  # can be told: leased, backing off and dead included
    no_address: int  # waits for a text that we do not know
    oldest_at: datetime | None  # since when the oldest of ``waiting`` is owed
    dead: int  # of ``waiting``: in quarantine
    next_deadline_at: datetime | None = None  # of the stops in ``waiting``, the earliest
    warned_at: datetime | None = None  # when half of the time until then is gone
    late: int = 0  # of ``waiting``: stops past their deadline

    @property
    def shown(self) -> dict[str, object]:
        """What ``sync --json`` and ``/v1/sync`` say, times as ISO 8601."""
        values = {name: value for name, value in asdict(self).items() if name != "warned_at"}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


async def accounts(connection: Connection) -> Mapping[str, int]:
    """Return the number of each account by its name."""
    return {row["name"]: row["account"] async for row in queries("outbox").accounts(connection)}


async def look(connection: Connection, account: int, owner: UUID, *, lapsing: datetime, now: datetime) -> Outlook:
    """Return how we stand to the account, without writing anything. Ours is lapsing if we own it no longer than until then."""
    row = await queries("outbox").look(connection, account=account, owner=owner, lapsing=lapsing, now=now)
    return Outlook(row["taken"], row["lapsing"], Gate(row["shut"], row["barred"]))


async def own(connection: Connection, account: int, owner: UUID, *, until: datetime, now: datetime) -> Gate | None:
    """Own the account until then, alone. None: another worker does."""
    row = await queries("outbox").own(connection, account=account, owner=owner, until=until, now=now)
    return Gate(row["shut"], row["barred"]) if row else None


async def disown(connection: Connection, account: int, owner: UUID) -> None:
    """Let go of the account, if it is ours, so that another worker need not wait."""
    await queries("outbox").disown(connection, account=account, owner=owner)


async def wait(connection: Connection, account: int, *, until: datetime, now: datetime, barred: bool = False) -> None:
    """Send nothing for the account until then, at the most for an hour from now. ``barred``: its credential was refused."""
    await queries("outbox").wait(connection, account=account, until=min(until, now + LONGEST_WAIT), barred=barred)


async def admitted(connection: Connection, account: int) -> None:
    """Note that the account's credential was accepted."""
    await queries("outbox").admitted(connection, account=account)


async def close(connection: Connection, account: int, scope: int, *, until: datetime) -> None:
    """Send nothing about one scope until then: it would do harm. The account's other scopes go on."""
    await queries("outbox").close_group(connection, account=account, scope=scope, until=until)


async def reopen(connection: Connection, account: int) -> None:
    """Forget what was found unsafe or barred, so that what was mended is tried at once."""
    await queries("outbox").reopen_groups(connection, account=account)
    await queries("outbox").reopen_gate(connection, account=account)


async def lease(
    connection: Connection,
    account: int,
    *,
    called: Mapping[int, str],
    stop: bool,
    most: int,
    until: datetime,
    settle: timedelta,
    quiet: timedelta,
    now: datetime,
) -> Lease | None:
    """Lease what is due in one direction, the longest due first; None if nothing is. The caller commits before it sends anything.

    ``called`` says by which provider's id each scope will be told. Where the database knows another one, because a release has mapped it
    anew, the row is left to a worker that knows it too.
    """
    token = uuid4()
    rows = queries("outbox").lease(
        connection,
        account=account,
        scopes=list(called),
        called=list(called.values()),
        stop=stop,
        most=most,
        lease=token,
        until=until,
        settle=settle,
        quiet=quiet,
        now=now,
    )
    pushes = tuple([Push(row["bucket"], row["key"], row["scope"]) async for row in rows])
    return Lease(account, token, stop, pushes, called) if pushes else None


async def read(connection: Connection, lease: Lease, pushes: Sequence[Push], *, margin: timedelta, now: datetime) -> list[Ready]:
    """Return what must be sent at this moment for those of the pushes whose lease still holds for longer than the margin."""
    called = [lease.called[push.scope] for push in pushes]
    rows = queries("outbox").read(
        connection, account=lease.account, lease=lease.token, until=now + margin, now=now, called=called, **_columns(pushes)
    )
    return [Ready(Push(r["bucket"], r["key"], r["scope"]), r["want"], r["stop"], r["text"], r["refused"]) async for r in rows]


async def settle(
    connection: Connection, lease: Lease, ends: Sequence[End], *, sent_at: datetime, settle: timedelta, now: datetime
) -> Counter[Verdict]:
    """Settle what was sent together at ``sent_at``, as a go or a stop like the lease; return how many came to which verdict.

    Changes nothing where the lease is no longer ours, so it may be repeated when its own outcome is in doubt.
    """
    async with connection.transaction():
        rows = queries("outbox").settle(
            connection,
            account=lease.account,
            lease=lease.token,
            stop=lease.stop,
            want=[end.want for end in ends],
            outcome=[end.fate for end in ends],
            detail=[end.detail for end in ends],
            sent=sent_at,
            settle=settle,
            cap=CAP_STOP if lease.stop else CAP_GO,
            patience=PATIENCE,
            now=now,
            **_columns([end.push for end in ends]),
        )
        return Counter([Verdict(row["verdict"]) async for row in rows])


async def release(connection: Connection, lease: Lease, pushes: Sequence[Push], *, now: datetime) -> None:
    """Give back what was not sent, as it was; the direction it waits in is read anew."""
    ends = [End(push, Fate.UNSENT) for push in pushes]
    await settle(connection, lease, ends, sent_at=now, settle=timedelta(), now=now)


async def tell_again(connection: Connection, account: int, *, called: Mapping[int, str], most: int, now: datetime) -> int:
    """Owe anew what the account heard ``AGAIN`` ago, of the bucket whose turn it is; return how much. Only where no list is compared."""
    rows = queries("outbox").tell_again(
        connection,
        account=account,
        scopes=list(called),
        called=list(called.values()),
        bucket=turn(now) % BUCKETS,
        compared=now - UNCOMPARED,
        before=now - AGAIN,
        most=most,
        now=now,
    )
    return len([row async for row in rows])


def turn(now: datetime) -> int:
    """Return the number of the turn that a moment is in: of buckets, one after the other."""
    return (now - _EPOCH) // TURN


async def sync(connection: Connection, *, now: datetime) -> list[Figures]:
    """Return what each account has still to hear, counting everything but what begins later (the end of a pause)."""
    overdue = clock.overdue(now)
    rows = queries("outbox").sync(connection, now=now, mail=overdue.mail, texts=overdue.text, ads=overdue.ads)
    return [_figures(row) async for row in rows]


def _figures(row: Mapping[str, Any]) -> Figures:
    asked = [(at, scope) for at, scope in ((row["oldest_stop"], MARKETING), (row["oldest_ads"], ADS)) if at]
    ends = [(at, clock.deadline(at, Channel(row["channel"]), scope)) for at, scope in asked]
    due_at = min((due for _, due in ends), default=None)
    warned_at = min((clock.warned(at, due) for at, due in ends), default=None)  # of whichever kind, be it the one that is due later
    counts = row["account"], row["waiting"], row["no_address"], row["oldest_at"], row["dead"]
    return Figures(*counts, due_at, warned_at, row["late"])


def _columns(pushes: Sequence[Push]) -> dict[str, list[int] | list[UUID]]:
    return {"bucket": [p.bucket for p in pushes], "key": [p.key for p in pushes], "scope": [p.scope for p in pushes]}
