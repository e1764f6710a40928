"""A verified delivery's Events become Changes, in one transaction with the pushes that are now owed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from mailprefs import ledger, links, softbounces, telemetry
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue
from mailprefs.db import Connection, queries
from mailprefs.errors import Forged
from mailprefs.links import KeyRing, Token
from mailprefs.providers.base import MOST_KEPT, Heard, Kept, Once
from mailprefs.softbounces import Policy, SoftBounce
from mailprefs.words import MARKETING, ROOT, Address, Cause, Change, Channel, Door, Effect, Event, Kind

_PLAIN_ID = re.compile(r"[!-~]{1,100}\Z")

_BY_TEXT: Mapping[Kind, Effect] = {  # a person's own words to a number: STOP, and START, which lifts that number's own STOP
    Kind.UNSUBSCRIBED: Effect.STOP,
    Kind.RESUBSCRIBED: Effect.GO,
}
_EFFECTS: Mapping[Kind, tuple[Cause, Effect]] = {
    Kind.BOUNCED_HARD: (Cause.BOUNCE, Effect.STOP),
    Kind.COMPLAINED: (Cause.COMPLAINT, Effect.STOP),
    Kind.COMPLAINT_RETRACTED: (Cause.COMPLAINT, Effect.NOTE),
    Kind.UNSUBSCRIBED: (Cause.CHOICE, Effect.STOP),
    Kind.RESUBSCRIBED: (Cause.CHOICE, Effect.NOTE),  # lifts nothing: no provider does
}


AT_ONCE = 5_000  # Changes in one statement: 90,000 in one took longer than the ten seconds that it may
KEPT = timedelta(days=30)  # what was set aside, and the proofs that count once


async def forget(connection: Connection, catalogue: Catalogue, *, now: datetime) -> None:
    """Drop what has been kept long enough: what nobody placed, proofs that nobody sends again, soft bounces out of every window."""
    await queries("inbox").forget(connection, before=now - KEPT)
    await softbounces.forget(connection, _policy(catalogue), now=now)


async def kept(connection: Connection, account: str | None) -> list[dict[str, Any]]:
    """Return what was set aside, of one account or of all: id, when, why and how large, the newest first."""
    return [dict(row) async for row in queries("inbox").kept(connection, account=account)]


async def kept_raw(connection: Connection, account: str, id: str) -> bytes | None:
    """Return the bytes of one delivery (or part of one) that was set aside, by its id or the beginning of it."""
    raw: bytes | None = await queries("inbox").kept_raw(connection, account=account, id=id)
    return raw


def _policy(catalogue: Catalogue) -> Policy:
    wanted = catalogue.soft_bounces
    return Policy(wanted.threshold, wanted.window, wanted.hold)


def few(kept: list[Kept]) -> list[Kept]:
    """Return what is kept aside, in one piece if it is more than a person looks through: a row for each would be an attacker's to make."""
    return kept if len(kept) <= MOST_KEPT else [Kept("too_many", b"\n".join(one.raw for one in kept))]


@dataclass(slots=True)
class Placed:
    """What one delivery asks, of whom and where; nothing of it is said or recorded yet."""

    once: Once | None
    kept: list[Kept]
    changes: list[Change] = field(default_factory=list)
    bounces: list[SoftBounce] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)  # how many of each were told
    alarms: Counter[str] = field(default_factory=Counter)
    foreign_tokens: int = 0

    @property
    def in_one(self) -> bool:
        """True if one statement records all of it, which is a commit of its own: nothing is remembered, looked up or kept beside."""
        many = len(self.changes) > AT_ONCE
        return not (many or self.once or self.kept or self.bounces or any(change.effect is Effect.GO for change in self.changes))


@dataclass(frozen=True)
class Inbox:
    """Places what one account tells: whose it is, and which scope of ours it means."""

    account: Account
    catalogue: Catalogue
    addresses: Addresses = field(repr=False)
    ring: KeyRing = field(repr=False)
    channel: Channel
    door: Door = Door.PROVIDER  # through which it tells; what plain mail reports comes through its own

    async def keep(self, connection: Connection, heard: Heard, *, now: datetime) -> int:
        """Record a delivery in the caller's transaction and return how many rows the ledger gained, as ``record`` does."""
        return await self.record(connection, self.placed(heard), now=now)

    def placed(self, heard: Heard) -> Placed:
        """Return what a delivery asks, of whom and where. Nothing is said or waited for: a thread may do it."""
        found = Placed(once=heard.once, kept=list(heard.kept))
        for event in heard.events:
            if event.kind is Kind.BOUNCED_SOFT:
                token = self._token(event, found)
                bounces = (SoftBounce(each, self._id(event, ROOT), event.happened_at) for each in self._whose(event, token, found))
                found.bounces.extend(bounces)
            elif event.kind in _EFFECTS:
                found.changes.extend(self._changes(event, found))
        found.kinds.update(heard.counted)
        found.kinds.update(str(event.kind) for event in heard.events)
        found.kept = few(found.kept)
        return found

    async def record(self, connection: Connection, placed: Placed, *, now: datetime) -> int:
        """Record what was placed in the caller's transaction and return how many rows the ledger gained.

        What could not be placed is kept aside and alarmed; nothing else of the delivery is lost by it. Raises Forged for a proof that
        came before with another body.
        """
        await self._first_use(connection, placed.once, now)
        self._say(placed)
        changes = await self._lifting(connection, placed.changes)
        if placed.bounces:
            policy = _policy(self.catalogue)
            changes += await softbounces.count(connection, placed.bounces, policy, door=self.door, by=self.account.name, now=now)
        await self._aside(connection, placed.kept, now)
        return await self._recorded(connection, changes, placed.kinds, now)

    def _changes(self, event: Event, found: Placed) -> list[Change]:
        """Return what an event asks, of each whom it names and on each node that it may mean."""
        token = self._token(event, found)
        whose = self._whose(event, token, found)
        cause, effect = _EFFECTS[event.kind]
        door = self.door
        if self.channel is Channel.SMS and event.kind in _BY_TEXT:
            door, effect = Door.SMS, _BY_TEXT[event.kind]
        if effect is Effect.GO and len(whose) > 1:
            effect = Effect.NOTE  # nothing opens in doubt
        if not whose:
            found.kept.append(Kept("no_recipient", f"{event.kind} {event.id}".encode("utf-8", "replace")))
        return [
            Change(address, scope, cause, effect, door, self._id(event, scope), event.happened_at, by=self.account.name)
            for scope in self._scopes(event, cause, token, found)
            for address in whose
        ]

    def _token(self, event: Event, found: Placed) -> Token | None:
        try:
            return links.read(self.ring, event.token) if event.token else None
        except Forged:
            found.foreign_tokens += 1
            return None

    def _whose(self, event: Event, token: Token | None, found: Placed) -> list[Address]:
        """Return whom an event is about: who our own token says, and who the provider's field says. Where they disagree, in doubt both."""
        said = self.addresses.heard(event.address, self.channel) if event.address and event.address.strip() else None
        sent = Address(token.address, self.channel) if token else None
        if sent and said and sent.key != said.key:
            found.alarms["token_and_address_disagree"] += 1
            return [sent, said]
        return [address for address in (sent or said,) if address]

    def _scopes(self, event: Event, cause: Cause, token: Token | None, found: Placed) -> tuple[int, ...]:
        if cause is Cause.BOUNCE:
            return (ROOT,)
        if cause is Cause.CHOICE and self.channel is Channel.SMS:  # one number carries what its account names, and STOP stops just that
            return (self.catalogue.stopped_by(self.account),)
        if cause is not Cause.COMPLAINT and event.group is not None:
            scope = self.catalogue.heard(self.account).get(event.group)
            if scope is not None:
                return (scope,)
            found.alarms["unmapped_group"] += 1  # stopping too much is the safe reading of a group nobody mapped
        return self._marketing(token)

    def _marketing(self, token: Token | None) -> tuple[int, ...]:
        """Return all marketing of the account's brand; and of the brand that the message was sent for, where its token says another."""
        left = self.catalogue.left_by(token.scope) if token else ()
        return tuple({self.catalogue.marketing_of(self.account): 0} | {scope >> 8 << 8 | MARKETING: 0 for scope in left})

    def _id(self, event: Event, scope: int) -> str:
        """Name the fact at its door: whatever a provider calls an event, it fits in an index and holds nothing odd.

        Its kind and scope are in it, since a provider may give a resubscribe and the unsubscribe after it one id: neither hides the other.
        """
        own = event.id if _PLAIN_ID.match(event.id) else sha256(event.id.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self.account.name}/{own}/{event.kind}/{scope}"

    async def _lifting(self, connection: Connection, changes: list[Change]) -> list[Change]:
        """Return the Changes; a START that lifts no STOP from its own number is a note: YES may have answered another question."""
        starts = [n for n, change in enumerate(changes) if change.effect is Effect.GO]
        if not starts:
            return changes
        await queries("inbox").hold_still(connection, bucket=[c.address.bucket for c in changes], key=[c.address.key for c in changes])
        told = queries("inbox").lifting(
            connection,
            account=self.account.name,
            bucket=[changes[n].address.bucket for n in starts],
            key=[changes[n].address.key for n in starts],
            scope=[changes[n].scope for n in starts],
        )
        lifting = {starts[row["n"] - 1] async for row in told}
        notes = set(starts) - lifting
        return [replace(change, effect=Effect.NOTE) if n in notes else change for n, change in enumerate(changes)]

    async def _first_use(self, connection: Connection, once: Once | None, now: datetime) -> None:
        if once is None:
            return
        proof = {"account": self.account.name, "nonce": once.nonce, "digest": once.digest}
        if not await queries("inbox").first_use(connection, **proof, now=now):
            telemetry.alarm("proof_used_again", account=self.account.name)
            raise Forged

    def _say(self, placed: Placed) -> None:
        """Alarm each trouble once, with how often it came: a delivery may hold it a hundred thousand times."""
        for name, times in placed.alarms.items():
            telemetry.alarm(name, times, account=self.account.name)
        for reason, times in Counter(one.reason for one in placed.kept).items():
            telemetry.alarm("kept_aside", times, account=self.account.name, reason=reason)
        if placed.foreign_tokens:
            telemetry.count("foreign_tokens", placed.foreign_tokens, account=self.account.name)

    async def _aside(self, connection: Connection, kept: list[Kept], now: datetime) -> None:
        if kept:
            await queries("inbox").set_aside(
                connection,
                account=self.account.name,
                id=[sha256(one.raw).hexdigest() for one in kept],
                reason=[one.reason for one in kept],
                raw=[one.raw for one in kept],
                now=now,
            )

    async def _recorded(self, connection: Connection, changes: list[Change], kinds: Counter[str], now: datetime) -> int:
        """Record Changes and count what was said, few in one statement and many in several; return how many rows the ledger gained."""
        for kind, events in kinds.items():
            telemetry.count("events", events, account=self.account.name, kind=kind)
        if not changes and kinds:
            await queries("inbox").tally(connection, now=now, account=self.account.name, kinds=list(kinds), events=list(kinds.values()))
        *before, last = _parts(changes)
        added = [await ledger.record(connection, part, now=now) for part in before]
        added.append(await ledger.record(connection, last, now=now, tally=ledger.Tally(self.account.name, kinds)))
        return sum(map(sum, added))


def _parts(changes: list[Change]) -> list[list[Change]]:
    """Return Changes as they are recorded, so many at once that a statement keeps well within its time; one part at least.

    Across all of them the addresses come in the order in which the ledger locks them, each with its own Changes in their order: two
    deliveries wait for one another, and never in a circle.
    """
    if len(changes) <= AT_ONCE:
        return [changes]
    ordered = sorted(changes, key=lambda change: (change.address.bucket, change.address.key))
    return [ordered[start : start + AT_ONCE] for start in range(0, len(ordered), AT_ONCE)]
