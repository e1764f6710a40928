"""Lays a provider's own list beside what we hold, and heals towards more suppression alone.

The list is streamed into the database and compared there, so that memory stays flat however long it is. A stop that only they hold
becomes ours, through the door ``reconcile``; a stop that only we hold is owed to them again, and is an incident, since they had confirmed
it. Nobody is ever let go because of a difference.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from aiohttp import ClientSession
from itsdangerous import BadData

from mailprefs import ledger, telemetry
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue
from mailprefs.db import Connection, queries
from mailprefs.errors import Busy, Forged, MailprefsError, Misconfigured, Unreadable
from mailprefs.links import KeyRing
from mailprefs.providers.base import Barred, Credential, Ear, Listed, Provider, Slow, Unclear, Unlisted, Unsafe
from mailprefs.words import MARKETING, ROOT, Address, Cause, Change, Door, Effect, Kind

PAGE = 1000  # people healed in one transaction
ROWS = 5000  # entries of a listing written at once
SHRUNK = 0.9  # of what was listed the last time: fewer is a listing that was cut off
FEW = 20  # entries below which a list may shrink as it likes
UNASKED, SHARE = 1000, 0.1  # people, or of what is listed, whichever is more: as many are stopped here without a person who says so
TROUBLE = (Slow, Barred, Unsafe, Unclear)  # for which a listing does not come whole
_LOCK = 0x7265636F  # advisory, "reco"
_PROOF = "reconciliation"

_CAUSES = {Kind.COMPLAINED: Cause.COMPLAINT, Kind.BOUNCED_HARD: Cause.BOUNCE}  # every other entry is a choice
Row = tuple[int, int, int, UUID, str, datetime | None]

KINDS = ("theirs", "stranger", "ours", "stale", "unsettled")


class Shrunk(MailprefsError):
    """The provider lists far fewer than the last time: a truncated listing must not look like everyone having come back."""

    def __init__(self, listed: int, before: int) -> None:
        super().__init__(f"the provider lists {listed:,} where it listed {before:,} before. If that is right, say so: --shrunk")


@dataclass(frozen=True, slots=True)
class Report:
    """What one comparison found: ``found`` says how many people by kind of drift."""

    account: str
    scope: str
    began_at: datetime
    ended_at: datetime
    listed: int
    twice: int  # entries that name somebody again
    found: Mapping[str, int]
    healed: bool
    wants_a_person: bool = False  # more than is healed unasked: what they hold was left as it is

    @property
    def drifted(self) -> bool:
        """True if the two differ about somebody about whom something can be said."""
        return any(people for kind, people in self.found.items() if kind != "unsettled")


def books(
    catalogue: Catalogue,
    account: Account,
    provider: Ear,
    credential: Credential,
    number: int,
    connection: Connection,
    http: ClientSession,
    addresses: Addresses,
    clock: Callable[[], datetime],
) -> Books:
    """Return what is compared of an account, each scope that it maps. Raises Misconfigured where it is told nothing."""
    groups = catalogue.mapped(account)
    if not isinstance(provider, Provider) or not groups:
        raise Misconfigured(
            f"account '{account.name}' is told nothing, so there is no list of its to compare: map scopes to what the provider calls them"
        )
    names = {scope: catalogue.by_number[scope].name for scope in groups}
    return Books(account.name, number, provider, credential, groups, names, connection, http, addresses, clock, account.settle)


async def due(connection: Connection, account: int, scopes: Iterable[int], *, before: datetime) -> list[int]:
    """Return the scopes whose list was last compared, and healed, before a time, or never."""
    return [row["scope"] async for row in queries("reconcile").due(connection, account=account, scopes=list(scopes), before=before)]


def why(error: Exception) -> str:
    """Return in words for a person why nothing was compared; ``error`` is one of ``TROUBLE``."""
    match error:
        case Unlisted():
            return f"there is no list to compare: {error}"
        case Slow():
            what = f"the provider asks us to wait for {error.wait.total_seconds():.0f} s"
        case Barred():
            what = "the provider does not accept the account's key"
        case Unclear():
            what = error.detail
        case _:
            what = str(error)
    return f"the list did not come whole ({what}). Nothing was concluded from it; try again."


def signed(ring: KeyRing, reports: Sequence[Report]) -> dict[str, Any]:
    """Return reports for a program to read, with a signed copy of them as proof."""
    told = json.loads(json.dumps([asdict(report) for report in reports], default=lambda at: at.isoformat()))
    return {"reports": told, "proof": ring.timed(_PROOF).dumps(told)}


def proven(ring: KeyRing, told: object) -> tuple[list[dict[str, Any]], datetime]:
    """Return the reports that were ``signed``, and when. Raises Forged unless they are as they were, and Unreadable for anything else."""
    if not isinstance(told, dict) or not isinstance(told.get("proof"), str) or "reports" not in told:
        raise Unreadable("that is no report of a comparison, with 'reports' and their 'proof'")
    try:
        reports, at = ring.timed(_PROOF).loads(told["proof"], return_timestamp=True)  # without max_age: it proves for ever
    except BadData:
        raise Forged("the proof was not signed with a key of this ring, or was altered") from None
    if reports != told["reports"]:
        raise Forged("the reports are not those that the proof was signed for")
    return reports, at


@dataclass(frozen=True)
class Books:
    """One account's list and ours, to be compared over a connection of their own."""

    account: str
    number: int
    provider: Provider
    credential: Credential
    groups: Mapping[int, str]  # scope → the provider's id
    names: Mapping[int, str]  # scope → its name
    connection: Connection
    http: ClientSession
    addresses: Addresses = field(repr=False)
    clock: Callable[[], datetime]
    settle: timedelta = timedelta(minutes=15)  # how late the provider may still apply what we asked

    async def compare(self, *, heal: bool, shrunk: bool = False, unasked: bool = False) -> list[Report]:
        """Compare every mapped scope. Raises Busy if somebody else does, Shrunk, and what ``pull`` raises; what was healed stays.

        ``unasked``, nobody looks on: then no more people are stopped here at once than is usual.
        """
        async with self._alone():
            return [await self._scope(scope, heal=heal, shrunk=shrunk, unasked=unasked) for scope in self.groups]

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        if not await queries("reconcile").claim(self.connection, lock=_LOCK, account=self.number):
            raise Busy("this account is being compared already")
        try:
            yield
        finally:
            await queries("reconcile").release(self.connection, lock=_LOCK, account=self.number)

    async def _scope(self, scope: int, *, heal: bool, shrunk: bool, unasked: bool) -> Report:
        here = {"account": self.number, "scope": scope}
        began = self.clock()
        await queries("reconcile").clear(self.connection, **here)
        await self._list(scope)
        row = await queries("reconcile").listed(self.connection, **here)
        before = await queries("reconcile").last_listed(self.connection, **here)
        whole = before is None or before < FEW or row["listed"] >= SHRUNK * before
        if not whole and not shrunk:
            raise Shrunk(row["listed"], before)
        await queries("reconcile").measure(self.connection)
        await queries("reconcile").compare(self.connection, **here, began=began, settle=self.settle, now=self.clock())
        found = dict.fromkeys(KINDS, 0) | {one["kind"]: one["people"] async for one in queries("reconcile").found(self.connection, **here)}
        too_many = heal and unasked and found["theirs"] + found["stranger"] > max(UNASKED, SHARE * row["listed"])
        if heal and not too_many:
            await self._stop_theirs(scope)
        if heal:
            await queries("reconcile").owe(self.connection, **here, now=self.clock())
        healed = heal and not too_many
        report = Report(self.account, self.names[scope], began, self.clock(), row["listed"], row["twice"], found, healed, too_many)
        await self._remember(scope, report, whole)
        return report

    async def _list(self, scope: int) -> None:
        """Write down whom the provider lists, as keys: what it calls people is forgotten at once."""
        rows: list[Row] = []
        async for entry in self.provider.pull(self.http, self.credential, self.groups[scope]):
            rows.append(self._row(scope, entry))
            if len(rows) >= ROWS:
                await self._write(rows)
        await self._write(rows)

    def _row(self, scope: int, entry: Listed) -> Row:
        who = self.addresses.heard(entry.address, self.provider.channel)
        return self.number, scope, who.bucket, who.key, _CAUSES.get(entry.kind, Cause.CHOICE), entry.stopped_at

    async def _write(self, rows: list[Row]) -> None:
        columns = ("account", "scope", "bucket", "key", "cause", "stopped_at")
        await self.connection.copy_records_to_table("listing", columns=columns, records=rows)
        rows.clear()

    async def _stop_theirs(self, scope: int) -> None:
        here = {"account": self.number, "scope": scope}
        bucket, key = -1, UUID(int=0)
        while page := [
            row async for row in queries("reconcile").stops_of_theirs(self.connection, **here, bucket=bucket, key=key, most=PAGE)
        ]:
            await ledger.record(
                self.connection, [self._stop(scope, row["key"], Cause(row["cause"]), row["at"]) for row in page], now=self.clock()
            )
            bucket, key = page[-1]["bucket"], page[-1]["key"]

    def _stop(self, scope: int, key: UUID, cause: Cause, at: datetime) -> Change:
        """A stop that they hold, named by when: the same entry in the next listing is the same fact."""
        node = {Cause.BOUNCE: ROOT, Cause.COMPLAINT: scope >> 8 << 8 | MARKETING}.get(cause, scope)
        id = f"{self.account}/{cause}/{scope}/{at.isoformat()}"
        return Change(Address(key, self.provider.channel), node, cause, Effect.STOP, Door.RECONCILE, id, at, by=self.account)

    async def _remember(self, scope: int, report: Report, whole: bool) -> None:
        for kind, people in report.found.items():
            telemetry.gauge("drift", people, account=self.account, scope=str(scope), kind=kind)
        if report.found["ours"]:  # they had confirmed it, or told us so themselves
            telemetry.alarm("provider_lost_stops", account=self.account)
        if report.wants_a_person:
            telemetry.alarm("much_to_heal", account=self.account)
        await queries("reconcile").remember(
            self.connection,
            account=self.number,
            scope=scope,
            began=report.began_at,
            now=report.ended_at,
            listed=report.listed,
            found=json.dumps(dict(report.found)),
            healed=report.healed,
            whole=whole,
        )
