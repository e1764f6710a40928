"""The real ledger and the real rule, spoken to in the oracle's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

import asyncpg

from mailprefs import decisions, ledger
from mailprefs.catalogue import Catalogue
from mailprefs.decisions import Question
from mailprefs.words import Address, Cause, Channel, Decision, Door, Effect
from mailprefs.words import Change as RealChange

from .kinds import TELLER
from .oracle import (
    GO,
    NOTE,
    SMALL,
    STOP,
    Account,
    Change,
    Reason,
    Row,
    Summary,
    Tree,
    allowed,
    answer,
    believes,
    forever,
    reasons,
    record,
    summary,
)

ACCOUNTS = (Account(TELLER, (272, 273)), Account("sendgrid-second", (272,)))  # as tests/catalogue.toml maps them
BATCH = 1000  # changes per call
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


def address(name: object, channel: Channel = Channel.EMAIL) -> Address:
    """An address known by its key, the same for the same name."""
    return Address(UUID(bytes=sha256(f"{channel}\0{name}".encode()).digest()[:16]), channel)


def instant(microseconds: int) -> datetime:
    return _1970 + timedelta(microseconds=microseconds)


def microseconds(moment: datetime) -> int:
    return (moment - _1970) // timedelta(microseconds=1)


def real(of: Address, change: Change) -> RealChange:
    """The oracle's Change as the ledger takes it."""
    until = None if change.until is None else instant(change.until)
    words = Cause(change.cause), Effect(change.effect), Door(change.door)
    return RealChange(of, change.scope, *words, change.id, instant(change.happened_at), until, change.by)


Call = tuple[int, tuple[Change, ...]]  # now, and the Changes of one address that are recorded together


@dataclass(slots=True)
class Pair:
    """One address in both worlds: its ledger as the oracle keeps it, and the calls that were made of it."""

    address: Address
    rows: tuple[Row, ...] = ()
    calls: list[Call] = field(default_factory=list)
    added: list[bool] = field(default_factory=list)  # what the oracle said
    outbox: dict[tuple[str, int], bool] = field(default_factory=dict)  # (account, scope) → stop: what is owed and not yet told
    doubted: set[tuple[str, int]] = field(default_factory=set)  # of these it may believe the stop already

    def call(self, changes: Sequence[Change], now: int) -> None:
        before = self.rows
        self.rows, added = record(before, changes, now)
        told = [change for change, fresh in zip(changes, added, strict=True) if fresh]
        accounts = ACCOUNTS if self.address.channel is Channel.EMAIL else ()  # both carry e-mail alone
        for account, scope in ((each, scope) for each in accounts if told for scope in each.mapped):
            self._owe(account, scope, before, told, now)
        self.calls.append((now, tuple(changes)))
        self.added += added

    def _owe(self, account: Account, scope: int, before: tuple[Row, ...], told: Sequence[Change], now: int) -> None:
        """What an account does not believe; the end of a pause; and no going back on a stop that it was never told."""
        at, stop = (account.name, scope), answer(scope, self.rows, now, account.share_bounces)
        said = any(change.by == account.name and change.scope == scope and change.effect in (STOP, GO, NOTE) for change in told)
        if believes(account, scope, before, told, now) is stop:
            if stop and not forever(scope, self.rows, account):
                self.outbox.setdefault(at, False)
            return
        if self.outbox.get(at) and not stop and at not in self.doubted and not said:
            del self.outbox[at]
            return
        if said or (stop and self.outbox.get(at) is False):
            self.doubted.add(at)
        self.outbox[at] = stop

    def __str__(self) -> str:
        """What happened, for a person who must find the difference: times in seconds since the first call."""
        lines, added, start = [""], iter(self.added), self.calls[0][0]
        for now, changes in self.calls:
            for one in changes:
                dated, until = (one.happened_at - now) / 1e6, "" if one.until is None else f" until {(one.until - start) / 1e6:g}"
                row = "" if next(added) else ", no row"
                lines.append(
                    f"  {(now - start) / 1e6:>6g} s ({dated:+g}): {one.effect} {one.cause} on {one.scope}{until}, {one.evidence}{row}"
                )
        return "\n".join((*lines, f"  {summary(self.rows)}"))


async def replay(conn: asyncpg.Connection, pairs: Sequence[Pair]) -> list[list[bool]]:
    """Make every call of every pair of the real ledger: many addresses a call, each address's calls in their order.

    Returns what the ledger answered, by pair.
    """
    answered: list[list[bool]] = [[] for _ in pairs]
    for step in range(max(len(pair.calls) for pair in pairs)):
        turns: dict[int, list[tuple[int, RealChange]]] = {}
        for n, pair in enumerate(pairs):
            if step < len(pair.calls):
                now, changes = pair.calls[step]
                turns.setdefault(now, []).extend((n, real(pair.address, change)) for change in changes)
        for now, turn in turns.items():
            for batch in _whole(turn):
                added = await ledger.record(conn, [change for _, change in batch], now=instant(now))
                for (n, _), one in zip(batch, added, strict=True):
                    answered[n].append(one)
    return answered


def _whole(turn: Sequence[tuple[int, RealChange]]) -> Iterable[list[tuple[int, RealChange]]]:
    """Batches that keep the Changes of one address together."""
    batch: list[tuple[int, RealChange]] = []
    for item in turn:
        if len(batch) >= BATCH and batch[-1][0] != item[0]:
            yield batch
            batch = []
        batch.append(item)
    yield batch


async def summaries(conn: asyncpg.Connection, addresses: Sequence[Address]) -> list[Summary]:
    """The columns beside each address, as they stand."""
    rows = await conn.fetch(
        "select key, stops, goes, grants, claims, pauses from address where key = any($1::uuid[])", [one.key for one in addresses]
    )
    found = {row["key"]: row for row in rows}
    return [_summary(found.get(one.key)) for one in addresses]


def _summary(row: asyncpg.Record | None) -> Summary:
    """A row as it is: neither sorted nor tidied, so that an empty array or a second order would be seen."""
    if row is None:
        return Summary()
    told = {name: None if row[name] is None else tuple(row[name]) for name in ("stops", "goes", "grants", "claims")}
    pauses = None if row["pauses"] is None else tuple((pause["scope"], microseconds(pause["until"])) for pause in row["pauses"])
    return Summary(**told, pauses=pauses)


async def ledgers(conn: asyncpg.Connection, addresses: Sequence[Address]) -> list[tuple[Row, ...]]:
    """Each address's rows as the ledger keeps them, in the oracle's words."""
    found: Mapping[UUID, list[Row]] = {one.key: [] for one in addresses}
    for row in await conn.fetch(
        "select key, evidence, scope, cause, effect, door, at, received_at, nullif(until, 'infinity') until from consent"
        " where key = any($1::uuid[])",
        list(found),
    ):
        until = None if row["until"] is None else microseconds(row["until"])
        at, received_at = microseconds(row["at"]), microseconds(row["received_at"])
        one = Row(row["evidence"], row["scope"], row["cause"], row["effect"], row["door"], at, received_at, until)
        found[row["key"]].append(one)
    return [tuple(found[one.key]) for one in addresses]


async def pushes(conn: asyncpg.Connection, addresses: Sequence[Address]) -> list[dict[tuple[str, int], bool]]:
    """For each address what each account must still be told: (account, scope) → stop."""
    found: Mapping[UUID, dict[tuple[str, int], bool]] = {one.key: {} for one in addresses}
    for row in await conn.fetch(
        "select key, name, scope, stop from push join account using (account) where key = any($1::uuid[])", list(found)
    ):
        found[row["key"]][row["name"], row["scope"]] = row["stop"]
    return [found[one.key] for one in addresses]


async def decide(
    conn: asyncpg.Connection, catalogue: Catalogue, addresses: Sequence[Address], topics: Sequence[int], now: int
) -> list[list[Decision]]:
    """What the real rule says: for each address, each topic in order."""
    names = [catalogue.by_number[topic].name for topic in topics]
    asked = [Question(one, "", name) for one in addresses for name in names]
    answers = await decisions.decide(conn, asked, catalogue, now=instant(now))
    return [answers[start : start + len(names)] for start in range(0, len(answers), len(names))]


def why(decision: Decision, catalogue: Catalogue) -> set[Reason]:
    """A Decision's reasons in the oracle's words; ``since`` to a millisecond, because own acts differ in the last microseconds."""
    numbers = {scope.name: number for number, scope in catalogue.by_number.items()}
    return {
        Reason(
            numbers[reason.scope],
            reason.cause,
            None if reason.since is None else microseconds(reason.since) // 1000,
            None if reason.until is None else microseconds(reason.until),
        )
        for reason in decision.reasons
    }


def expected_why(topic: int, rows: Sequence[Row], now: int, channel: Channel, tree: Tree = SMALL) -> set[Reason]:
    """The oracle's reasons, ``since`` to a millisecond."""
    found = reasons(topic, rows, now, tree.asks(topic, channel), tree)
    return {Reason(one.scope, one.cause, None if one.since is None else one.since // 1000, one.until) for one in found}


@dataclass(slots=True)
class Worlds:
    """The oracle and the real system side by side: what is told to one is told to both, and every answer must be the same in both."""

    conn: asyncpg.Connection
    catalogue: Catalogue
    tree: Tree = SMALL
    of: dict[Channel, tuple[Row, ...]] = field(default_factory=dict)

    async def tell(self, *changes: Change, now: int, channel: Channel = Channel.EMAIL) -> tuple[bool, ...]:
        """Record these together, in both."""
        self.of[channel], added = record(self.of.get(channel, ()), changes, now)
        real_changes = [real(address("someone", channel), change) for change in changes]
        assert tuple(await ledger.record(self.conn, real_changes, now=instant(now))) == added
        assert await summaries(self.conn, [address("someone", channel)]) == [summary(self.of[channel], self.tree)]
        return added

    async def may(self, topic: int, *, now: int, channel: Channel = Channel.EMAIL) -> bool:
        """True if this topic may be sent; the reasons against it must be the same in both worlds, too."""
        rows = self.of.get(channel, ())
        ((decision,),) = await decide(self.conn, self.catalogue, [address("someone", channel)], [topic], now)
        by_model = allowed(topic, rows, now, self.tree.asks(topic, channel), self.tree)
        assert decision.allowed is by_model
        assert why(decision, self.catalogue) == expected_why(topic, rows, now, channel, self.tree)
        return by_model
