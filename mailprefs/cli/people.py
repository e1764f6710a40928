"""``import``, ``why``, ``stop`` and ``lift``: whose mail, and what may be sent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from getpass import getuser
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from mailprefs import bulk, decisions, foreign, ledger, rows
from mailprefs.bulk import Import, Tally
from mailprefs.catalogue import Catalogue
from mailprefs.cli.invite import invited
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.saying import counting, many, show, tell, tell_column
from mailprefs.cli.signals import run
from mailprefs.errors import Unreadable
from mailprefs.foreign import Reading
from mailprefs.rows import Rejects, Row
from mailprefs.words import MARKETING, Cause, Change, Decision, Door, Effect

_CAUSES = [cause.value for cause in Cause if not cause.ends]
_EVIDENCE = "Where the reason is written down, such as a ticket's number. Kept for ever: nothing about the person."
_STRANGE = ", and is no provider's that is known"
EVIDENT = 80  # characters of evidence
FEW = 20  # columns that are warned about
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)


@click.command("import")
@click.argument("what", type=click.Choice(["addresses", "suppressions", "consents"]))
@click.argument("file", type=_FILE)
@click.option(
    "--rejects", type=click.Path(path_type=Path), help="Where refused rows go, with their reasons.  [FILE.rejects.csv or .ndjson]"
)
@click.option("--scope", help="Of a provider's own file of suppressions: what its unsubscribes stop.  [all marketing of the only brand]")
@click.option("--dry-run", is_flag=True, help="Do everything, then take it back.")
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def import_(what: str, file: Path, rejects: Path | None, scope: str | None, dry_run: bool, as_json: bool) -> int:
    """Import addresses, suppressions or consents from FILE: CSV with a header or NDJSON, plain, gzip or Zstandard. Never lifts a stop.

    A file of suppressions may be a provider's own export.
    """
    if rejects and file.exists() and rejects.exists() and rejects.samefile(file):
        raise click.BadParameter("the rejects would be written over the file that is read")
    rejects = rejects or Path(f"{'stdin' if str(file) == '-' else file.name}.rejects.{'ndjson' if _is_ndjson(file) else 'csv'}")
    tally = run(_imported(what, file, rejects, scope, dry_run))
    if as_json:
        click.echo(json.dumps(asdict(tally)))
    else:
        ending = " (dry run: nothing was kept)" if dry_run else ""
        tell(f"{many(tally.read, 'row', 'rows')} read, {tally.accepted:,} accepted, {tally.added:,} of them new{ending}")
    if tally.rejected:
        refused = many(tally.rejected, "row was refused and is", "rows were refused and are")
        tell(f"{refused} in {rejects}, each with its reason")
    return 1 if tally.rejected else 0


async def _imported(what: str, file: Path, rejects: Path, scope: str | None, dry_run: bool) -> Tally:
    opening = Opening()
    importer = Import(opening.addresses, opening.catalogue, now())
    readers: dict[str, tuple[Callable[[rows.Row], Any], Any]] = {
        "addresses": (importer.address, bulk.entries),
        "suppressions": (importer.suppression, bulk.changes),
        "consents": (importer.consent, bulk.claims),
    }
    reader, writer = readers[what]
    unread: set[str] = set()
    with rows.opened(file) as stream:
        known = foreign.recognised if what == "suppressions" else lambda _columns: None
        columns, found = rows.read(stream, ndjson=_is_ndjson(file), known=known)
        _judged(what, columns)
        reading = _reading(opening.catalogue, scope) if what == "suppressions" and _is_foreign(columns, file) else None
        if reading and reading.scope and foreign.recognised(columns):
            tell(f"an unsubscribe in it stops {reading.scope}{'' if scope else '; --scope names another'}")
        ours = reading.rows(found) if reading else found
        noted = _noted(ours, frozenset(bulk.COLUMNS[what]), unread)
        with Rejects(rejects, rows.refused_head(columns)) as refused:

            def reject(row: Row, reason: str) -> None:
                refused.add(rows.refused(row, reason, columns))

            async with opening.connected(make=True) as connection:
                with counting("rows", through=stream) as bar, _counted(dry_run) as tally:
                    await bulk.run(
                        connection, noted, reader, writer, now=importer.now, reject=reject, progress=bar, dry=dry_run, tally=tally
                    )  # fmt: skip
    if unread:
        tell(f"warning: not read: {', '.join(sorted(unread))}; what is read: {', '.join(bulk.COLUMNS[what])}")
    return tally


@contextmanager
def _counted(dry: bool) -> Iterator[Tally]:
    """Lend a tally. If what is counted is broken off, say how far it came, and how to go on."""
    tally = Tally()
    try:
        yield tally
    except BaseException:
        kept = "nothing of them was kept" if dry else "what was accepted of them is recorded"
        tell(
            f"ended early: {many(tally.read, 'row was read', 'rows were read')}, and {kept}. Run it again with the same file: "
            "nothing is done twice, and all that is refused is written at its end"
        )
        raise


def _judged(what: str, columns: Sequence[str]) -> None:
    """Say how a header is read, where it does not say it itself. Raises Unreadable for one of another kind: each row would be refused."""
    origin, called = foreign.recognised(columns), rows.addressed(columns)
    if origin and what != "suppressions":
        raise Unreadable(
            f"these are the columns of a provider's suppressions ({origin.name}): `import suppressions` reads them. "
            "If nobody in it has left, call the column of the addresses 'address'"
        )
    if origin:
        tell(f"read as {origin.name}")
    elif columns and (missing := [name for name in bulk.MUST[what][1:] if name not in columns]):
        raise Unreadable(
            f"the first line names no column {' and none '.join(map(repr, missing))}{_STRANGE if what == 'suppressions' else ''}: "
            f"`import {what}` wants {', '.join(bulk.MUST[what])} (docs/imports.md)"
        )
    elif columns:
        tell_column(called)


def _is_foreign(columns: Sequence[str], file: Path) -> bool:
    """True where rows of providers may come: what an object is, each says for itself."""
    return _is_ndjson(file) or foreign.recognised(columns) is not None


def _reading(catalogue: Catalogue, named: str | None) -> Reading:
    """Return how providers' rows are read. Raises UnknownScope where it must be said what they stop."""
    brands = {scope.brand for scope in catalogue.scopes if scope.brand}
    if named is None and len(brands) > 1:
        return Reading("", "")  # each of their rows is refused for want of a scope
    scope = catalogue.scope(named) if named else catalogue.by_number[brands.pop() << 8 | MARKETING]
    return Reading(scope.name, catalogue.by_number[scope.brand << 8 | MARKETING].name)


def _is_ndjson(file: Path) -> bool:
    return ".ndjson" in file.suffixes or ".jsonl" in file.suffixes


def _noted(found: Iterator[Row], heeded: frozenset[str], unread: set[str]) -> Iterator[Row]:
    """Give the rows on, and note which of their columns mean nothing here: a few, whatever an object calls its own.

    Not those of a row that is refused already: a provider's, which never became one of ours, still has its own.
    """
    for row in found:
        if len(unread) < FEW and not row.wrong and not row.fields.keys() <= heeded:
            unread.update(sorted(row.fields.keys() - heeded)[:FEW])
        yield row


@click.command("why")
@click.argument("address")
@click.argument("topic", required=False)
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def why_(address: str, topic: str | None, as_json: bool) -> int:
    """Whether ADDRESS may be sent TOPIC (or each topic), the reasons, the history, and who was told. Exit 1 if one is denied."""
    whole = run(_why(address, topic))
    if as_json:
        click.echo(json.dumps(whole, default=_plain))
    else:
        _told(whole)
    return 0 if all(decision.allowed for decision in whole["decisions"]) else 1


async def _why(address: str, topic: str | None) -> dict[str, Any]:
    opening = Opening()
    topics = [opening.catalogue.topic(topic)] if topic else opening.catalogue.topics
    asked = opening.addresses.heard(address)
    async with opening.connected() as connection:
        unreadable = not opening.addresses.readable(address)
        return await decisions.why(connection, asked, address, topics, opening.catalogue, now=now(), unreadable=unreadable)


def _told(whole: dict[str, Any]) -> None:
    show(whole["address"])
    if not whole["met"]:
        show("  never met here: nobody imported it, and nothing was heard of it. What is said is said of every stranger")
    for decision in whole["decisions"]:
        show(f"  {'yes' if decision.allowed else 'no ':<4} {decision.topic:<32} {_because(decision)}".rstrip())
    _head("history", whole["history"])
    for row in whole["history"]:
        show(f"  {row['at']:%Y-%m-%d %H:%M:%S}Z  {row['effect']:<9} {row['cause']:<10} {row['scope']:<28} {row['evidence']}")
        if "source" in row:
            shown = f", with the words {row['notice']!r}" if row["notice"] else ""
            show(f"  {'':<22} given at {row['source']!r}{shown}")
    _head("told", whole["told"])
    for row in whole["told"]:
        state = f"confirmed {row['confirmed_at']:%Y-%m-%d %H:%M:%S}Z" if row["confirmed_at"] else "waiting"
        show(f"  {row['account']:<20} {row['scope']:<28} asked {row['asked_at']:%Y-%m-%d %H:%M:%S}Z, {state}")


def _head(title: str, rows: Sequence[object]) -> None:
    if rows:
        click.echo(f"\n{title}")


def _because(decision: Decision) -> str:
    return "; ".join(
        f"{reason.cause} at {reason.scope}"
        + (f" since {reason.since:%Y-%m-%d %H:%M}Z" if reason.since else "")
        + (f" until {reason.until:%Y-%m-%d %H:%M}Z" if reason.until else "")
        for reason in decision.reasons
    )


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _evident(_context: click.Context, _option: click.Parameter, said: str) -> str:
    """Return evidence as it was said. Raises BadParameter: what is kept for ever says something, names nobody, and is not cut."""
    if not said.strip() or "@" in said or len(said) > EVIDENT:
        raise click.BadParameter(f"it is kept for ever and names nobody: some words, {EVIDENT} characters at most, and no @ in them")
    return said


@click.command("stop")
@click.argument("address")
@click.argument("scope")
@click.option("--cause", type=click.Choice(_CAUSES), required=True)
@click.option("--evidence", required=True, callback=_evident, help=_EVIDENCE)
def stop_(address: str, scope: str, cause: str, evidence: str) -> int:
    """Stop SCOPE for ADDRESS, by staff, with evidence."""
    return _by_staff(address, scope, Cause(cause), Effect.STOP, evidence)


@click.command("lift")
@click.argument("address")
@click.argument("scope")
@click.option("--cause", type=click.Choice(_CAUSES), required=True)
@click.option("--evidence", required=True, callback=_evident, help=_EVIDENCE)
def lift_(address: str, scope: str, cause: str, evidence: str) -> int:
    """Lift what staff may lift (staff, minor, and a bounce that was corrected).

    A person's own choice, and a complaint, are theirs alone: for these, a link to their choices is mailed to ADDRESS.
    """
    if Cause(cause) in (Cause.CHOICE, Cause.COMPLAINT):
        granted = run(invited(address, scope, Cause(cause), _named(evidence), operator()))
        tell(
            f"only the recipient can lift a {cause}; "
            + ("a link for that is mailed to them" if granted else "three links were asked for within the hour")
        )
        return 0 if granted else 1
    return _by_staff(address, scope, Cause(cause), Effect.GO, evidence)


def _by_staff(address: str, scope: str, cause: Cause, effect: Effect, evidence: str) -> int:
    async def recorded() -> bool:
        opening = Opening()
        whom, node = opening.addresses.read(address), opening.catalogue.scope(scope)
        change = Change(whom, node.number, cause, effect, Door.STAFF, _named(evidence), now(), by=operator())
        ledger.entitled(change)
        async with opening.connected() as connection, connection.transaction():
            return (await ledger.record(connection, [change], now=now()))[0]

    added = run(recorded())
    tell("recorded" if added else "known already")
    return 0


def _named(evidence: str) -> str:
    """Return what a Change by staff goes by, with a number of its own: the same ticket may stop, lift and stop again."""
    return f"{evidence.encode('utf-8', 'replace').decode()} {uuid4().hex[:12]}"


def operator() -> str:
    """Return the name of whoever gave the command, or their number where the system knows no name, as in many containers."""
    try:
        return getuser()
    except (KeyError, OSError):
        return str(os.getuid())
