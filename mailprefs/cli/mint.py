"""``link``, ``links`` and ``check``: what goes into a message, without database or network."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TextIO
from uuid import UUID

import click

from mailprefs import rows
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Scope
from mailprefs.cli.opening import Opening
from mailprefs.cli.saying import show, tell
from mailprefs.errors import Unreadable
from mailprefs.links import LONGEST_WORD, Links, mintable
from mailprefs.rows import Rejects, Row

MINTED = ("url", "list_unsubscribe", "list_unsubscribe_post", "list_id")


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
@click.option("--rejects", default="links.rejects.csv", type=click.Path(path_type=Path), help="Where rows that cannot be read go.")
def links_(topic: str, rejects: Path) -> int:
    """Mint for every row of the CSV on stdin; the same rows with four columns more go to stdout."""
    opening = Opening()
    scope = opening.catalogue.topic(topic)
    links = opening.links(scope)
    mintable(scope)
    warn_if_long(links)
    with rows.opened(Path("-")) as text:
        count = _minted(text, opening.addresses, links, scope, rejects)
    if count:
        tell(f"{count} rows could not be read and are in {rejects}, each with its reason")
    return 1 if count else 0


def _minted(text: TextIO, addresses: Addresses, links: Links, scope: Scope, rejects: Path) -> int:
    """Write every row with its four columns more, and return how many could not be read."""
    columns, found = rows.read(text)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([*columns, *MINTED])
    with Rejects(rejects, columns) as refused:
        for batch in _batches(_readable(addresses, found, refused)):
            minted = links.minted_stream([key for _, key in batch], scope)
            for (row, _), each in zip(batch, minted, strict=True):
                out.writerow([*row.fields.values(), each.url, *each.headers.values()])
        return refused.count


def _readable(addresses: Addresses, found: Iterator[Row], refused: Rejects) -> Iterator[tuple[Row, UUID]]:
    for row in found:
        try:
            if row.wrong:
                raise Unreadable(row.wrong)
            yield row, addresses.read(rows.address_of(row)).key
        except Unreadable as error:
            refused.add(row, str(error))


def _batches(pairs: Iterator[tuple[Row, UUID]]) -> Iterator[list[tuple[Row, UUID]]]:
    while batch := list(islice(pairs, 1000)):
        yield batch


@click.command("check")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def check_(file: Path, as_json: bool) -> int:
    """Check a message (FILE.eml, or - for stdin), rule by rule. Exit 0 only if none fails."""
    from mailprefs import checkup  # brings in DKIM and DNS, which minting can do without

    opening = Opening()
    findings = checkup.check(_bytes(file), ring=opening.ring, catalogue=opening.catalogue)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    for finding in () if as_json else findings:
        show(f"{finding.verdict:<4}  {finding.rule:<24} {finding.sentence} ({finding.source})")
    return 0 if checkup.passed(findings) else 1


def _bytes(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise Unreadable(f"{file} cannot be read: {error.strerror}") from None


def warn_if_long(links: Links) -> None:
    """Say once that a host is too long for its headers to be safe everywhere."""
    if links.longest > LONGEST_WORD:
        tell(
            f"warning: with the host {links.host} a header word has {links.longest} octets; over {LONGEST_WORD}, some mail libraries "
            "encode it and mailbox providers then show no unsubscribe button. Use a host of 18 characters or fewer."
        )
