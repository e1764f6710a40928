"""Imports: addresses, suppressions, consents. One way in for a dry run and the real one; what is refused is said, row by row.

No import ever lifts a stop. A suppression is kept whatever its address looks like; a consent is evidence, and lifts nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import TypeVar

from mailprefs import directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue, Scope
from mailprefs.db import Connection
from mailprefs.directory import Entry
from mailprefs.errors import MailprefsError, NotEntitled, Unreadable
from mailprefs.rows import Row
from mailprefs.words import Cause, Change, Channel, Door, Effect, Stream

BATCH = 1000  # rows in one transaction
Item = TypeVar("Item")
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
        address = self.addresses.read(row.fields["address"])
        wanted = row.fields.get("channel") or address.channel
        if wanted != address.channel:
            raise Unreadable(f"that is no address for the channel {wanted}" if wanted in list(Channel) else "no such channel")
        return Entry(address, *(row.fields.get(name) or None for name in ("locale", "region", "party")))

    def suppression(self, row: Row) -> Change:
        """Read a row of ``import suppressions``. Raises Unreadable, UnknownScope or NotEntitled."""
        scope, cause, at = self._scope(row), _cause(row), _time(row, self.now)
        address = self.addresses.heard(_wanted(row, "address"))
        if cause is Cause.CHOICE and address.channel is Channel.EMAIL and scope.stream is not Stream.MARKETING:
            raise NotEntitled("a choice by e-mail sits on marketing or one of its topics")
        evidence = row.fields.get("evidence") or f"{row.fields['scope']} {cause} {row.fields.get('at', '')}"
        change = Change(address, scope.number, cause, Effect.STOP, Door.IMPORT, _digest(evidence), at)
        ledger.entitled(change)
        return change

    def consent(self, row: Row) -> Change:
        """Read a row of ``import consents``: evidence for one topic, with its source. Raises Unreadable or UnknownScope."""
        topic = self._scope(row)
        if not topic.is_topic:
            raise Unreadable("a consent is for one topic")
        evidence = f"consent {topic.name} {_wanted(row, 'source')} {_wanted(row, 'at')} {row.fields.get('notice', '')}"
        address = self.addresses.read(row.fields["address"])
        return Change(address, topic.number, Cause.CHOICE, Effect.GRANT, Door.IMPORT, _digest(evidence), _time(row, self.now))

    def _scope(self, row: Row) -> Scope:
        return self.catalogue.scope(_wanted(row, "scope"))


async def entries(connection: Connection, batch: Sequence[Entry], now: datetime) -> int:
    return await directory.know(connection, batch, now=now)


async def changes(connection: Connection, batch: Sequence[Change], now: datetime) -> int:
    return sum(await ledger.record(connection, batch, now=now))


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
) -> Tally:
    """Import all rows, a transaction for each thousand, and return what became of them. A dry run does the same and takes it back."""
    tally = Tally()
    for batch in _batches(rows):
        items = [item for row in batch if (item := _read(row, reader, reject)) is not None]
        added = await _write(connection, items, writer, now, dry) if items else 0
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


def _read(row: Row, reader: Callable[[Row], Item], reject: Callable[[Row, str], None]) -> Item | None:
    try:
        if row.wrong:
            raise Unreadable(row.wrong)
        return reader(row)
    except MailprefsError as error:
        reject(row, str(error))
        return None


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    each = iter(rows)
    while batch := list(islice(each, BATCH)):
        yield batch


def _wanted(row: Row, name: str) -> str:
    if not (value := (row.fields.get(name) or "").strip()):
        raise Unreadable(f"the column '{name}' is empty or missing")
    return value


def _cause(row: Row) -> Cause:
    try:
        cause = Cause(_wanted(row, "cause"))
    except ValueError:
        raise Unreadable(f"no such cause; there are: {', '.join(c for c in Cause if not c.ends)}") from None
    if cause.ends:
        raise Unreadable("a hold that ends by itself is not imported")
    return cause


def _time(row: Row, now: datetime) -> datetime:
    """Return when it happened, now if the file does not say. A time without a zone is refused: an hour can decide what counts."""
    if not (text := (row.fields.get("at") or "").strip()):
        return now
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Unreadable("'at' is no ISO 8601 time") from None
    if at.tzinfo is None:
        raise Unreadable("'at' has no time zone")
    return at


def _digest(evidence: str) -> str:
    """Name a row by what it says: the same row again is the same fact. What it says may be personal, so it is not kept as it is."""
    return sha256(evidence.encode()).hexdigest()[:32]
