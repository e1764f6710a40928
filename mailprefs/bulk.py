"""Imports: addresses, suppressions, consents. One way in for a dry run and the real one; what is refused is said, row by row.

No import ever lifts a stop. A suppression is kept whatever its address looks like; a consent is evidence, and lifts nothing.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain, islice
from typing import TypeVar

from mailprefs import directory, ledger, proof
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue, Scope
from mailprefs.db import Connection
from mailprefs.directory import Entry
from mailprefs.errors import MailprefsError, NotEntitled, Unreadable
from mailprefs.proof import Proof
from mailprefs.rows import Row, address_of
from mailprefs.words import ADS, Address, Cause, Change, Channel, Door, Effect, Stream

BATCH = 1000  # rows in one transaction
COLUMNS = {  # what is read of each kind of file; all else is passed over
    "addresses": ("address", "channel", "locale", "region", "party"),
    "suppressions": ("address", "scope", "cause", "at", "evidence"),
    "consents": ("address", "scope", "at", "source", "notice"),
}
_LINES = frozenset({"notice"})  # that may have several lines
_ONE_LINE = frozenset(chain(*COLUMNS.values())) - _LINES
MUST = {"addresses": ("address",), "suppressions": ("address", "scope", "cause"), "consents": ("address", "scope", "at", "source")}
SOURCE, NOTICE = 200, 2000  # characters that a consent's source and notice may have
_BREAK = re.compile(r"\n|\r(?!\s*\Z)")
_MAILBOX = re.compile(r"[^\s@]@[^\s@]")


@dataclass(frozen=True, slots=True)
class Claim:
    """An imported consent, and what proves it."""

    change: Change
    proof: Proof

    @property
    def address(self) -> Address:
        return self.change.address

    @property
    def evidence(self) -> str:
        return self.change.evidence


Item = TypeVar("Item", Entry, Change, Claim)
Writer = Callable[[Connection, Sequence[Item], datetime], Awaitable[int]]


@dataclass
class Tally:
    """What an import did."""

    read: int = 0
    accepted: int = 0
    added: int = 0  # new addresses, or new rows of the ledger; the rest was known
    rejected: int = 0


@dataclass(frozen=True)
class Import:
    """Reads rows of one kind of file into the database."""

    addresses: Addresses = field(repr=False)
    catalogue: Catalogue
    now: datetime

    def address(self, row: Row) -> Entry:
        """Read a row of ``import addresses``. Raises Unreadable."""
        address = self.addresses.read(address_of(row))
        wanted = _said(row, "channel") or address.channel
        if wanted != address.channel:
            raise Unreadable(f"that is no address for the channel {wanted}" if wanted in list(Channel) else "no such channel")
        return Entry(address, *(_said(row, name) or None for name in ("locale", "region", "party")))

    def suppression(self, row: Row) -> Change:
        """Read a row of ``import suppressions``. Raises Unreadable, UnknownScope or NotEntitled."""
        scope, cause, at = self._scope(row), _cause(row), _time(row)
        _wanted(row, "address")
        address = self.addresses.heard(address_of(row))
        if cause is Cause.CHOICE and address.channel is Channel.EMAIL and not _open_to_choice(scope):
            raise NotEntitled("a choice by e-mail sits on marketing, one of its topics, or ads")
        # one evidence, such as the list that was moved, may stand behind many stops of one address
        id = _digest(scope.number, cause, at, _said(row, "evidence"))
        change = Change(address, scope.number, cause, Effect.STOP, Door.IMPORT, id, at or self.now)
        ledger.entitled(change)
        return change

    def consent(self, row: Row) -> Claim:
        """Read a row of ``import consents``: evidence for one topic, with its proof. Raises Unreadable or UnknownScope."""
        topic = self._scope(row)
        if not topic.is_topic:
            raise Unreadable("a consent is for one topic")
        proof, at = _proof(row), _time(row)
        if at is None:
            raise Unreadable("the column 'at' is empty or missing")
        id = f"{proof.digest}-{_digest('consent', topic.number, at)[:16]}"
        address = self.addresses.read(address_of(row))
        return Claim(Change(address, topic.number, Cause.CHOICE, Effect.GRANT, Door.IMPORT, id, at), proof)

    def _scope(self, row: Row) -> Scope:
        return self.catalogue.scope(_wanted(row, "scope"))


async def entries(connection: Connection, batch: Sequence[Entry], now: datetime) -> int:
    return await directory.know(connection, batch, now=now)


async def changes(connection: Connection, batch: Sequence[Change], now: datetime) -> int:
    return sum(await ledger.record(connection, batch, now=now))


async def claims(connection: Connection, batch: Sequence[Claim], now: datetime) -> int:
    await proof.keep(connection, {claim.proof for claim in batch})
    return await changes(connection, [claim.change for claim in batch], now)


async def run(
    connection: Connection,
    rows: Iterable[Row],
    reader: Callable[[Row], Item],
    writer: Writer[Item],
    *,
    now: datetime,
    reject: Callable[[Row, str], None],
    progress: Callable[[int], None],
    dry: bool = False,
    tally: Tally | None = None,
) -> Tally:
    """Import all rows, a transaction for each thousand, and return what became of them. A dry run does the same and takes it back.

    ``tally`` is counted on with each thousand: to whoever is broken off, it says how far that came.
    """
    tally = tally or Tally()
    with closing(_Seen()) as seen:
        for batch in _batches(rows):
            items = [item for row in batch if (item := _read(row, reader, reject)) is not None]
            # what a dry run took back would be new again the next time the file says it
            fresh = [item for item in items if seen.adds(item)] if dry else items
            added = await _write(connection, fresh, writer, now, dry) if fresh else 0
            tally.read, tally.accepted = tally.read + len(batch), tally.accepted + len(items)
            tally.added, tally.rejected = tally.added + added, tally.read - tally.accepted
            progress(len(batch))
    return tally


async def _write(connection: Connection, items: Sequence[Item], writer: Writer[Item], now: datetime, dry: bool) -> int:
    transaction = connection.transaction()
    await transaction.start()
    try:
        added = await writer(connection, items, now)
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.rollback() if dry else transaction.commit())
    return added


class _Seen:
    """What a file has said, by a number for each: on disk, in a file that has no name, so that memory stays flat."""

    def __init__(self) -> None:
        self._numbers = sqlite3.connect("")
        self._numbers.execute("create table seen (number integer primary key)")

    def close(self) -> None:
        """Let go of the file."""
        self._numbers.close()

    def adds(self, item: Entry | Change | Claim) -> bool:
        """Return whether an address, or a fact about it, comes for the first time, and remember it."""
        number = hash((item.address.key, "" if isinstance(item, Entry) else item.evidence))
        return self._numbers.execute("insert or ignore into seen values (?)", (number,)).rowcount == 1


def _read(row: Row, reader: Callable[[Row], Item], reject: Callable[[Row, str], None]) -> Item | None:
    try:
        if row.wrong:
            raise Unreadable(row.wrong)
        if any(_BREAK.search(row.fields.get(name, "")) for name in _ONE_LINE):  # a quote that a later row closed swallowed those between
            raise Unreadable("a line break in a field")
        return reader(row)
    except MailprefsError as error:
        reject(row, str(error))
        return None


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    each = iter(rows)
    while batch := list(islice(each, BATCH)):
        yield batch


def _open_to_choice(scope: Scope) -> bool:
    return scope.stream is Stream.MARKETING or scope.number & 255 == ADS


def _said(row: Row, name: str) -> str:
    return row.fields.get(name, "").strip()


def _wanted(row: Row, name: str) -> str:
    if not (value := _said(row, name)):
        raise Unreadable(f"the column '{name}' is empty or missing")
    return value


def _proof(row: Row) -> Proof:
    """Return what proves a consent. It is kept for ever and shown, so it may be about a form and not about a person."""
    source, notice = _wanted(row, "source"), _said(row, "notice")
    if len(source) > SOURCE or len(notice) > NOTICE:
        raise Unreadable(f"'source' has room for {SOURCE} characters and 'notice' for {NOTICE:,}; name a version of the text instead")
    if _MAILBOX.search(source) or address_of(row).casefold() in f"{source}\n{notice}".casefold():
        raise Unreadable("'source' and 'notice' are kept for ever and may name nobody: there is an address in them")
    return Proof(source, notice)


def _cause(row: Row) -> Cause:
    try:
        cause = Cause(_wanted(row, "cause"))
    except ValueError:
        raise Unreadable(f"no such cause; there are: {', '.join(c for c in Cause if not c.ends)}") from None
    if cause.ends:
        raise Unreadable("a hold that ends by itself is not imported")
    return cause


def _time(row: Row) -> datetime | None:
    """Return when it happened, None if the file does not say. A time without a zone is refused: an hour can decide what counts."""
    if not (text := _said(row, "at")):
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise Unreadable("'at' has no time zone")
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Unreadable("'at' is no ISO 8601 time") from None


def _digest(*evidence: object) -> str:
    """Name a row by what it says: the same row again is the same fact. What it says may be personal, so it is not kept as it is."""
    return sha256("\0".join(map(str, evidence)).encode()).hexdigest()[:32]
