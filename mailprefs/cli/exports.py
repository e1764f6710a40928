"""``export``: audiences that are made once and kept, what was signed of them, and whether a file is still that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from mailprefs import exports, files, seals, shapes
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.people import operator
from mailprefs.cli.saying import Whole, many, show, tell
from mailprefs.cli.signals import run
from mailprefs.cli.suppressions import suppressions_
from mailprefs.errors import Expired, Forged, NotMade, UnknownExport, Unreadable
from mailprefs.exports import Export
from mailprefs.packing import Packing
from mailprefs.spelling import COLUMNS
from mailprefs.words import Channel

SHOWN = 50  # exports in a list
_BESIDE = ".manifest.json"  # behind the file's name


@click.group("export", cls=Whole)
def export_() -> None:
    """Audiences that are made once and kept, with a signed manifest."""


export_.add_command(suppressions_)


@export_.command("new")
@click.argument("topic")
@click.option("--purpose", required=True, help="What it is for, in one line. Signed, and kept for ever: nothing about a person.")
@click.option("--channel", type=click.Choice([each.value for each in Channel]), default="email", show_default=True)
@click.option("--format", "format_", type=click.Choice(shapes.FORMATS), default="csv", show_default=True)
@click.option("--columns", default="address", show_default=True, help=f"Some of {', '.join(COLUMNS)}, with commas.")
@click.option("--links", is_flag=True, help="The link and the three headers of each row as well.")
@click.option("--compress", type=click.Choice([each.value for each in Packing]), default="none", show_default=True)
@click.option("--spreadsheet", is_flag=True, help="CSV that no spreadsheet computes. Lossy: not for a program to read.")
@click.option("--days", type=click.IntRange(1, 30), default=7, show_default=True, help="After which the file is removed.")
def new(
    topic: str, purpose: str, channel: str, format_: str, columns: str, links: bool, compress: str, spreadsheet: bool, days: int
) -> None:
    """Ask for an export of TOPIC, which the worker makes, and print its id."""
    shape = shapes.read(columns, format_, compress, links=links, spreadsheet=spreadsheet)

    async def asked() -> UUID:
        opening, at = Opening(), now()
        scope = opening.catalogue.topic(topic)
        async with opening.connected() as connection:
            said = {"purpose": purpose, "requester": f"operator {operator()}"}
            return await exports.ask(connection, scope, Channel(channel), shape, **said, expires_at=at + timedelta(days=days), now=at)

    click.echo(run(asked()))


@export_.command("list")
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def every(as_json: bool) -> None:
    """The exports that were asked for last."""

    async def found() -> list[Export]:
        async with Opening().connected() as connection:
            return await exports.every(connection, most=SHOWN)

    catalogue, at = Opening().catalogue, now()
    rows = [_row(each, catalogue.by_number[each.scope].name, at) for each in run(found()) if each.scope in catalogue.by_number]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        tell("no export was asked for yet: `mailprefs export new` asks for one")
    for row in rows:
        count = "" if row["count"] is None else many(row["count"], "address", "addresses")
        whose = f"{row['purpose']} ({row['requester']}){': ' + row['why'] if row['why'] else ''}"
        show(f"{row['id']}  {row['state']:<8} {row['asked_at'][:16]}Z  {row['topic']:<28} {count:<22} {whose}")


def _row(export: Export, topic: str, at: datetime) -> dict[str, Any]:
    said = {"id": str(export.id), "state": export.state(at), "topic": topic, "count": exports.facts_of(export).get("count")}
    return said | {
        "asked_at": export.asked_at.isoformat(), "expires_at": export.expires_at.isoformat(), "purpose": export.purpose,
        "requester": export.requester, "why": export.refused,
    }  # fmt: skip


@export_.command("fetch")
@click.argument("id", type=click.UUID)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def fetch(id: UUID, file: Path) -> None:
    """Copy an export out of MAILPREFS_DATA to FILE, and its manifest to FILE.manifest.json."""
    export = run(_found(id))
    if export.state(now()) == "expired":
        raise Expired
    if export.file is None or export.manifest is None:
        raise NotMade(export.refused)
    kept = Opening().settings.home.absolute() / exports.FOLDER / export.file
    if not kept.is_file():
        raise UnknownExport("its file is not in MAILPREFS_DATA here: the worker that made it has another one")
    with files.whole(file) as out, kept.open("rb") as whole:
        shutil.copyfileobj(whole, out)
    with files.whole(_manifest(file)) as out:
        out.write(export.manifest.encode())
    tell(many(exports.facts_of(export)["count"], "address", "addresses"))


async def _found(id: UUID) -> Export:
    async with Opening().connected() as connection:
        export = await exports.find(connection, id)
    if export is None:
        raise UnknownExport
    return export


@export_.command("verify")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--manifest", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="[FILE.manifest.json]")
@click.option("--key", help="The public key that signed it, as `export key` prints it.  [of the key ring here]")
@click.option("--json", "as_json", is_flag=True, help="What the manifest says, for a program to read.")
def verify(file: Path, manifest: Path | None, key: str | None, as_json: bool) -> None:
    """Prove that FILE is the export that its manifest speaks of, to the last byte. Wants no database. Exit 1 if it is not."""
    signed = _read(manifest or _manifest(file))
    public = seals.public(Opening().ring) if key is None else key
    with file.open("rb") as whole:
        facts = exports.verified(whole, signed, public)
    click.echo(json.dumps(facts) if as_json else _told(facts))
    if datetime.fromisoformat(facts["expires_at"]) <= now():
        tell("warning: it has expired. Whoever left since is in it; make a new one")


def _told(facts: Mapping[str, Any]) -> str:
    count, denied = many(facts["count"], "address", "addresses"), facts["denied"]
    return (
        f"{facts['topic']} by {facts['channel']}: {count} as of {facts['as_of']}, {denied['people']:,} denied\n"
        f"for {facts['purpose']!r}, asked for by {facts['requester']}, until {facts['expires_at']}"
    )


def _manifest(file: Path) -> Path:
    return file.with_name(file.name + _BESIDE)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}. --manifest names another place") from None


@export_.command("key")
def key() -> None:
    """Print the public key with which others verify exports of this key ring."""
    click.echo(seals.public(Opening().ring))


@export_.command("recompute")
@click.argument("id", type=click.UUID)
def recompute(id: UUID) -> None:
    """Compute an export anew, by the ledger alone and as it was at the stated position. Exit 1 unless it comes to the same bytes.

    Whoever was added, erased or described anew since then makes a difference that is none of the ledger's.
    """

    async def again(export: Export) -> str:
        opening = Opening()
        async with opening.connected() as connection:
            return await exports.recomputed(connection, export, opening.catalogue, opening.ring, scratch=Path.cwd())

    export = run(_found(id))
    if run(again(export)) != exports.facts_of(export).get("sha256"):
        raise Forged(
            "it comes to other bytes: an address was added, erased or described anew since, or a row of the ledger is not what it was"
        )
    tell("the same bytes")
