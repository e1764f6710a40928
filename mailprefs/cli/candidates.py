"""``filter``: of a file of candidates, those who may be sent a topic."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import click

from mailprefs import audience, files, sheets
from mailprefs.candidates import Filter, Verdict
from mailprefs.cli.opening import Opening, now, run
from mailprefs.cli.saying import counting, tell
from mailprefs.crews import Crew, Keyed
from mailprefs.errors import Unreadable
from mailprefs.rows import ADDRESS, BROKEN
from mailprefs.sheets import Sheet

CHUNK = 1 << 19  # bytes that are read at once
FEW = 50_000  # rows that are asked about one by one, however many addresses there are
SHARE = 20  # of all addresses, one in so many: to ask about more than that takes longer than to read them all
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)
_OUT = click.Path(path_type=Path, dir_okay=False)


@dataclass
class _Count:
    rows: int = 0
    denied: int = 0


@click.command("filter")
@click.argument("topic")
@click.argument("file", type=_FILE, default="-")
@click.option("--denied", type=_OUT, help="Where the others go, with their reasons.")
@click.option("--column", default=ADDRESS, show_default=True, help="The column that holds the address.")
@click.option("-o", "--output", type=_OUT, help="A file.  [stdout]")
def filter_(topic: str, file: Path, denied: Path | None, column: str, output: Path | None) -> None:
    """The candidates in FILE (or on stdin) who may be sent TOPIC now: every column as it came, in the order they came.

    CSV with a header, or NDJSON; plain, gzip or Zstandard. Parquet by name: FILE and --output.
    """
    with ExitStack() as stack:
        out = stack.enter_context(files.whole(output)) if output else sys.stdout.buffer
        aside = stack.enter_context(files.whole(denied)) if denied else None
        source = stack.enter_context(_opened(file))
        count = run(_filtered(topic, source, column, out, aside))
    tell(f"{count.rows:,} candidates, {count.rows - count.denied:,} may be sent {topic}, {count.denied:,} may not")


def _opened(file: Path) -> BufferedReader:
    return os.fdopen(os.dup(0), "rb") if str(file) == "-" else file.open("rb")


async def _filtered(topic: str, source: BufferedReader, column: str, out: BinaryIO, aside: BinaryIO | None) -> _Count:
    opening = Opening()
    asking = Filter(opening.catalogue, opening.catalogue.topic(topic), reasons=aside is not None)
    sheet, blocks = sheets.opened(_chunks(source), column)
    out.write(sheet.head())
    if aside:
        aside.write(sheet.head("reasons"))
    count = _Count()
    async with opening.connected() as connection:
        enough = max(FEW, await audience.about(connection) // SHARE)
        with counting("candidates") as bar:
            async for keyed in Crew(opening.ring.digest, sheet).keyed(blocks):
                if count.rows > enough and asking.sieve is None:
                    await asking.sift(connection, now=now())
                verdict = await asking.judge(connection, keyed, now=now())
                _write(verdict, keyed, sheet, out, aside)
                count.rows, count.denied = count.rows + verdict.rows, count.denied + len(verdict.denied)
                bar(verdict.rows)
    return count


def _chunks(source: BufferedReader) -> Iterator[bytes]:
    try:
        file = sheets.unpacked(source)
        while chunk := file.read(CHUNK):
            yield chunk
    except BROKEN:
        raise Unreadable("the file cannot be unpacked, or breaks off") from None


def _write(verdict: Verdict, keyed: Keyed, sheet: Sheet, out: BinaryIO, aside: BinaryIO | None) -> None:
    out.write(b"\n".join([*verdict.allowed(keyed.rows), b""]))
    if aside:
        aside.writelines(sheet.beside(keyed.rows[n], reasons) + b"\n" for n, reasons in sorted(verdict.denied.items()))
