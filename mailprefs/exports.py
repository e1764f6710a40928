"""Kept exports: an audience made once, from one snapshot, with a signed manifest; checked offline; and who left since."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID, uuid4

from pydantic import SecretStr

from mailprefs import audience, files, parquet, replicas, seals, shapes, telemetry
from mailprefs.catalogue import Catalogue, Scope
from mailprefs.db import Connection, in_one_order, queries
from mailprefs.decisions import name_of
from mailprefs.errors import Busy, Forged, Misconfigured, NotMade, NotMintable, NotOnACluster, UnknownScope, Unreadable
from mailprefs.links import KeyRing, Links, by_brand
from mailprefs.packing import Packing, Sink
from mailprefs.shapes import Shape
from mailprefs.words import Channel

WAITING = 20  # exports that may wait at once: each takes room on the disk
FOLDER = "exports"  # under MAILPREFS_DATA
_TURN, _ASKING = 0x6578_706F_7274, 0x6578_7061_736B  # advisory locks, "export" and "expask"
_SENTENCE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")
_SLICE = 1 << 20  # bytes of a file that are read at once


@dataclass(frozen=True, slots=True)
class Export:
    """What was asked for, and what became of it."""

    id: UUID
    scope: int
    channel: Channel
    wants: int  # the consent that the topic wanted when it was made; before that, when it was asked for
    shape: Shape
    purpose: str
    requester: str
    asked_at: datetime
    expires_at: datetime
    refused: str | None = None
    as_of: datetime | None = None
    snapshot: str | None = None
    file: str | None = None
    manifest: str | None = None

    def state(self, now: datetime) -> str:
        """Return ``expired``, ``made``, ``refused`` or ``waiting``."""
        if self.expires_at <= now:
            return "expired"
        return "made" if self.manifest else "refused" if self.refused else "waiting"


async def ask(
    connection: Connection,
    topic: Scope,
    channel: Channel,
    shape: Shape,
    *,
    purpose: str,
    requester: str,
    expires_at: datetime,
    now: datetime,
) -> UUID:
    """Ask for an export, which the worker makes, and return its id.

    Raises as ``audience.sound``, NotOnACluster, Busy, and Unreadable for a purpose that is not one line of 200 characters at most.
    """
    audience.sound(topic, shape.columns)
    purpose = _sentence(purpose)
    await in_one_order(connection)
    id = uuid4()
    said = {"scope": topic.number, "channel": channel.value, "wants": topic.wants(channel), "purpose": purpose, "requester": requester}
    async with connection.transaction():
        await queries("exports").take_asking(connection, lock=_ASKING)
        if not await queries("exports").ask(connection, id=id, **said, **_columns(shape), now=now, expires_at=expires_at, most=WAITING):
            raise Busy("as many exports as may are waiting to be made. Try again.")
    return id


def _sentence(purpose: str) -> str:
    if not _SENTENCE.fullmatch(said := purpose.strip()):
        raise Unreadable("a purpose is one line of 200 characters at most: it is signed, and kept for ever")
    return said


def _columns(shape: Shape) -> dict[str, Any]:
    return {"columns": shape.columns, "format": shape.format, "packing": shape.packing.value, "spreadsheet": shape.spreadsheet}


async def find(connection: Connection, id: UUID) -> Export | None:
    """Return an export by its id."""
    row = await queries("exports").find(connection, id=id)
    return _export(row) if row else None


async def every(connection: Connection, *, most: int) -> list[Export]:
    """Return the exports that were asked for last, the latest first."""
    return [_export(row) async for row in queries("exports").every(connection, most=most)]


def _export(row: Mapping[str, Any]) -> Export:
    shape = Shape(tuple(row["columns"]), row["format"], Packing(row["packing"]), row["spreadsheet"])
    said = {name: row[name] for name in ("id", "scope", "wants", "purpose", "requester", "asked_at", "expires_at", "refused")}
    return Export(
        channel=Channel(row["channel"]), shape=shape, **said, **{name: row[name] for name in ("as_of", "snapshot", "file", "manifest")}
    )


@dataclass(frozen=True)
class Maker:
    """Makes what was asked for, one export after the other, as the only one at this database."""

    folder: Path
    catalogue: Catalogue
    ring: KeyRing = field(repr=False)
    clock: Callable[[], datetime]
    standby: SecretStr | None = None  # what is read in the primary's stead, while it is near enough

    @cached_property
    def minters(self) -> dict[int, Links]:
        """What mints the links of each brand."""
        return by_brand(self.catalogue.brand, self.ring)

    async def round(self, connection: Connection) -> bool:
        """Make the export that has waited longest, and return whether there was one, and room for it. What has expired is removed.

        The turn is a lock of the connection's, and the manifest is written over it: a maker that was given up for dead can end nothing.
        """
        if not await queries("exports").take_turn(connection, lock=_TURN):
            return False
        try:
            await self._sweep(connection)
            row = await queries("exports").next(connection, now=self.clock())
            if row is None:
                return False
            # a standby ends statements that hold up what it has to replay: the second time it is not asked
            return await self._made(connection, _export(row), self.standby if row["attempts"] == 1 else None)
        finally:
            await queries("exports").leave_turn(connection, lock=_TURN)

    async def _sweep(self, connection: Connection) -> None:
        """Remove every file that no export owns: of those that expired, and of makers that were killed half way."""
        await queries("exports").expire(connection, now=self.clock())
        kept = {row["file"] async for row in queries("exports").files(connection)}
        if not _cleared(self.folder, kept):
            telemetry.alarm("export_not_removed")

    async def _made(self, connection: Connection, export: Export, standby: SecretStr | None) -> bool:
        topic = self.catalogue.by_number.get(export.scope)
        if topic is None:  # of a newer release, whose worker will make it
            return False
        try:
            audience.sound(topic, export.shape.columns)
            if export.shape.format == shapes.PARQUET:
                parquet.duckdb()
            await in_one_order(connection)
        except (UnknownScope, NotMintable, Misconfigured, NotOnACluster) as error:
            await queries("exports").refuse(connection, id=export.id, why=str(error))
            return True
        try:
            await self._make(connection, export, topic, standby)
        except Misconfigured:  # of the disk: it is tried again, behind the others
            telemetry.alarm("export_not_written")
            return False
        return True

    async def _make(self, connection: Connection, export: Export, topic: Scope, standby: SecretStr | None) -> None:
        name = f"{export.id}-{secrets.token_hex(4)}{export.shape.suffix}"  # of this attempt alone: no other's manifest speaks of it
        with _Draft(self.folder / name) as out:
            async with (
                replicas.reading(connection, standby, self.catalogue, now=self.clock()) as read,
                read.transaction(isolation="repeatable_read", readonly=True),
            ):
                seen = await queries("exports").snapshot(read)
                as_of = self.clock()
                count = await deliver(read, export, topic, self.minters[topic.brand], out, as_of=as_of, scratch=self.folder)
                denied = await _denied(read, export, topic, self.catalogue, as_of)
            await asyncio.to_thread(out.keep)
        source = "standby" if seen["is_standby"] else "primary"
        manifest = seals.sealed(self.ring, self._facts(export, topic, as_of, seen["snapshot"], source, count, denied, out))
        made = {"as_of": as_of, "snapshot": seen["snapshot"], "file": name, "manifest": seals.spelt(manifest).decode()}
        await queries("exports").made(connection, id=export.id, wants=topic.wants(export.channel), **made)

    def _facts(
        self, export: Export, topic: Scope, as_of: datetime, snapshot: str, source: str, count: int, denied: Mapping[str, Any], out: _Draft
    ) -> dict[str, Any]:
        return {
            "version": 1,
            "id": str(export.id),
            "topic": topic.name,
            "channel": export.channel.value,
            **_columns(export.shape),
            "file": f"{topic.name.replace('/', '-')}-{as_of:%Y%m%dT%H%M%SZ}{export.shape.suffix}",
            "sha256": out.digest.hexdigest(),
            "octets": out.octets,
            "count": count,
            "denied": denied,
            "as_of": as_of.isoformat(),
            "ledger_position": snapshot,
            "read_from": source,
            "catalogue": digest_of(self.catalogue),
            "requester": export.requester,
            "purpose": export.purpose,
            "asked_at": export.asked_at.isoformat(),
            "expires_at": export.expires_at.isoformat(),
            "public_key": seals.public(self.ring),
        }


def digest_of(catalogue: Catalogue) -> str:
    """Return the SHA-256 of what a catalogue says, whatever its comments and its spelling."""
    return sha256(catalogue.model_dump_json().encode()).hexdigest()


async def deliver(
    connection: Connection,
    export: Export,
    topic: Scope,
    links: Links,
    sink: Sink,
    *,
    as_of: datetime,
    scratch: Path,
    seen: str | None = None,
) -> int:
    """Send the file of an export to ``sink``, and return how many there are in it. ``seen``: by the ledger alone, as a snapshot saw it."""
    async with shapes.delivered(export.shape, sink, scratch) as rows:
        return await audience.stream(
            connection,
            topic,
            export.channel,
            rows,
            now=as_of,
            columns=export.shape.columns,
            format=export.shape.rows,
            links=links,
            spreadsheet=export.shape.spreadsheet,
            order="recomputed" if seen else "ordered",
            seen=seen,
        )


async def _denied(connection: Connection, export: Export, topic: Scope, catalogue: Catalogue, as_of: datetime) -> dict[str, Any]:
    """Return how many of those whose text is known are not in an export, and how many for each reason; one may have several."""
    asked = {"path": list(topic.path), "wants": topic.wants(export.channel), "channel": export.channel.value}
    rows = [row async for row in queries("exports").denied(connection, **asked, now=as_of)]
    reasons = {
        f"{name_of(catalogue, topic.number if row['scope'] is None else row['scope'])}:{row['cause']}": row["people"]
        for row in rows
        if row["cause"] and row["people"]
    }
    return {"people": next(row["people"] for row in rows if row["cause"] is None), "reasons": reasons}


async def recomputed(connection: Connection, export: Export, catalogue: Catalogue, ring: KeyRing, *, scratch: Path) -> str:
    """Return the SHA-256 of the file as the ledger alone gives it anew, at the position and the time that the manifest states.

    The texts are as they are known now. Raises NotMade, and NotMintable or UnknownScope where the topic is no longer what it was.
    """
    if export.as_of is None or export.snapshot is None:
        raise NotMade(export.refused)
    if (topic := catalogue.by_number.get(export.scope)) is None:
        raise UnknownScope("the catalogue here does not know the topic of the export")
    digest = sha256()

    async def sink(chunk: bytes) -> None:
        digest.update(chunk)

    minter = by_brand(catalogue.brand, ring)[topic.brand]
    await deliver(connection, export, topic, minter, sink, as_of=export.as_of, scratch=scratch, seen=export.snapshot)
    return digest.hexdigest()


def facts_of(export: Export) -> dict[str, Any]:
    """Return what was signed of an export."""
    return dict(json.loads(export.manifest or "{}"))


def verified(file: BinaryIO, manifest: bytes, public: str) -> dict[str, Any]:
    """Return what a manifest says, once its signature holds and the file is the one it speaks of: no byte more, less or other.

    Wants no database and no network. Raises Forged or Unreadable.
    """
    try:
        facts = seals.read(manifest)
        sha, octets = str(facts["sha256"]), int(facts["octets"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise Unreadable("that is no manifest") from None
    seals.check(public, facts)
    digest, read = sha256(), 0
    while chunk := file.read(_SLICE):
        digest.update(chunk)
        read += len(chunk)
    if read != octets or not hmac.compare_digest(digest.hexdigest(), sha):
        raise Forged("the file is not the one that was signed: it was altered, or is not whole")
    return dict(facts)


def _cleared(folder: Path, kept: Collection[str]) -> bool:
    """Remove from a folder whatever is not kept, and return whether all of it is gone: what cannot be removed holds up nothing else."""
    try:
        others = [path for path in folder.iterdir() if path.name not in kept]
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    stuck = [path for path in others if not _removed(path)]
    return not stuck


def _removed(path: Path) -> bool:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


class _Draft:
    """A file on its way, mode 0600, under a name that nobody looks for: there once it is whole and on disk, and gone if it is not kept."""

    def __init__(self, path: Path) -> None:
        self.digest = sha256()
        self.octets = 0
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        with _written():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = files.fresh(self._part)

    async def __call__(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.octets += len(chunk)
        with _written():
            self._file.write(chunk)

    def keep(self) -> None:
        with _written():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._part.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, *_: object) -> None:
        with _written():
            self._part.unlink(missing_ok=True)
            self._file.close()  # which writes once more what a full disk did not take


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # which would be taken for trouble of the database
        raise Misconfigured(f"the file of an export cannot be written: {error.strerror}") from None
