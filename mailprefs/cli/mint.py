"""``link``, ``links`` and ``check``: what goes into a message, without database or network."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

import click

from mailprefs import sheets
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Scope
from mailprefs.cli.opening import Opening, contents
from mailprefs.cli.saying import many, show, tell, tell_column
from mailprefs.errors import Unreadable
from mailprefs.links import LONGEST_WORD, Links, mintable
from mailprefs.rows import Rejects
from mailprefs.sheets import Sheet
from mailprefs.spelling import BOM, MINTED


@click.command("link")
@click.argument("address")
@click.argument("topic")
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def link_(address: str, topic: str, as_json: bool) -> None:
    """Mint the body link and the three headers for one recipient of TOPIC."""
    opening = Opening()
    scope = opening.catalogue.topic(topic)
    links = opening.links(scope)
    minted = links.mint(opening.addresses.read(address).key, scope)
    warn_if_long(links)
    if as_json:
        click.echo(json.dumps({"url": minted.url, "headers": minted.headers}))
        return
    click.echo(minted.url)
    for name, value in minted.headers.items():
        show(f"{name}: {value}")


@click.command("links")
@click.argument("topic")
@click.option("--column", help="The column that holds the address.  [address; else one called email]")
@click.option("--rejects", type=click.Path(path_type=Path), help="Where rows that cannot be read go.  [links.rejects.csv or .ndjson]")
def links_(topic: str, column: str | None, rejects: Path | None) -> int:
    """Mint for every row on stdin; the same rows with four columns more go to stdout.

    CSV with a header, or NDJSON; plain, gzip or Zstandard.
    """
    opening = Opening()
    scope = opening.catalogue.topic(topic)
    links = opening.links(scope)
    mintable(scope)
    warn_if_long(links)
    with os.fdopen(os.dup(0), "rb") as source:
        sheet, blocks = sheets.opened(sheets.chunks(source), column)
        tell_column(sheet.column, column)
        sheets.spare(sheet, *MINTED)
        with Rejects(rejects or Path(f"links.rejects.{'csv' if sheet.head() else 'ndjson'}"), _head(sheet, "row", "reason")) as refused:
            sys.stdout.buffer.write(_head(sheet, *MINTED))
            for found in _keyed(opening.addresses, sheet, blocks, refused):
                sys.stdout.buffer.write(_minted(links, scope, sheet, found))
    if refused.count:
        tell(f"{many(refused.count, 'row', 'rows')} could not be read and are in {refused.path}, each with its reason")
    return 1 if refused.count else 0


def _head(sheet: Sheet, *more: str) -> bytes:
    """Return what stands above rows, for others to read: without a mark for spreadsheets."""
    return sheet.head(*more).removeprefix(BOM)


def _keyed(addresses: Addresses, sheet: Sheet, blocks: Iterator[list[bytes]], refused: Rejects) -> Iterator[list[tuple[bytes, UUID]]]:
    """Give the rows of each block with the keys of their addresses. Those that have none that we accept are refused."""
    before = 0
    for block in (sheet.block(rows) for rows in blocks if rows):
        odd = {n: row for n, (row, plain) in enumerate(zip(block.rows, block.plain, strict=True)) if not plain and row.strip()}
        keys: dict[int, UUID] = {n: UUID(bytes=key) for n, key in enumerate(addresses.keys(block.plain)) if key}
        for n, row in odd.items():
            try:
                keys[n] = addresses.read(sheet.text(row)).key
            except Unreadable as error:
                refused.add(sheet.beside(row, {"row": before + n + 1, "reason": str(error)}) + b"\n")
        before += len(block.rows)
        yield [(block.rows[n], keys[n]) for n in sorted(keys)]


def _minted(links: Links, scope: Scope, sheet: Sheet, found: Sequence[tuple[bytes, UUID]]) -> bytes:
    minted = links.minted_stream([key for _, key in found], scope)
    lines = (sheet.beside(row, {name: getattr(each, name) for name in MINTED}) for (row, _), each in zip(found, minted, strict=True))
    return b"".join(line + b"\n" for line in lines)


@click.command("check")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def check_(file: Path, as_json: bool) -> int:
    """Check a message (FILE.eml, or - for stdin), rule by rule. Exit 0 only if none fails."""
    from mailprefs import checkup  # brings in DKIM and DNS, which minting can do without

    opening = Opening()
    findings = checkup.check(contents(file), ring=opening.ring, catalogue=opening.catalogue)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    for finding in () if as_json else findings:
        show(f"{finding.verdict:<4}  {finding.rule:<24} {finding.sentence} ({finding.source})")
    return 0 if checkup.passed(findings) else 1


def warn_if_long(links: Links) -> None:
    """Say once that a host is too long for its headers to be safe everywhere."""
    if links.longest > LONGEST_WORD:
        tell(
            f"warning: with the host {links.host} a header word has {links.longest} octets; over {LONGEST_WORD}, some mail libraries "
            "encode it and mailbox providers then show no unsubscribe button. Use a host of 18 characters or fewer."
        )
