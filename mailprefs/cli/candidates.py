"""``filter``: of a file of candidates, those who may be sent a topic."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol

import click

from mailprefs import audience, crews, files, packing, shapes, sheets
from mailprefs.candidates import Filter, Verdict
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.saying import counting, many, tell, tell_column
from mailprefs.cli.signals import run
from mailprefs.crews import Crew, Keyed
from mailprefs.errors import Unreadable
from mailprefs.packing import Packing
from mailprefs.sheets import REASONS, Sheet

LARGE = 8 << 20  # bytes of a file that is known to be worth other processes before it is read
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
@click.option("--column", help="The column that holds the address.  [address; else one called email]")
@click.option("-o", "--output", type=_OUT, help="A file.  [stdout]")
def filter_(topic: str, file: Path, denied: Path | None, column: str | None, output: Path | None) -> None:
    """The candidates in FILE (or on stdin) who may be sent TOPIC now: every column as it came, in the order they came.

    CSV with a header, or NDJSON; plain, gzip or Zstandard; or Parquet, by its name and with --output. A file that is written is
    packed as its name says, with .gz or .zst.
    """
    _apart(file, output, denied)
    if _is_parquet(file):
        count = _of_table(topic, file, column, output, denied)
    else:
        with ExitStack() as stack:
            out = stack.enter_context(_written(output)) if output else sys.stdout.buffer
            aside = stack.enter_context(_written(denied)) if denied else None
            source = stack.enter_context(_opened(file))
            count = run(_filtered(topic, source, column, _Sides(out, aside, (output, denied))))
    tell(f"{many(count.rows, 'candidate', 'candidates')}, {count.rows - count.denied:,} may be sent {topic}, {count.denied:,} may not")


def _apart(*paths: Path | None) -> None:
    """Raise UsageError where two of them are one file: the other's rows would be lost."""
    said = [path.resolve() for path in paths if path is not None and str(path) != "-"]
    if len(set(said)) < len(said):
        raise click.UsageError("a file is named twice: what is read, what may be sent and what is denied are three files")


def _is_parquet(file: Path) -> bool:
    if str(file) == "-":
        return False
    with file.open("rb") as begun:
        return begun.read(len(sheets.PARQUET)) == sheets.PARQUET


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """Lend what to write a file with, packed as its name says."""
    wanted = Packing(shapes.named(path)[1])
    with files.whole(path) as out:
        if wanted is Packing.NONE:
            yield out
        else:
            with packing.packed(out, wanted) as packer:
                yield packer


def _called(paths: Iterable[Path | None], format_: str) -> None:
    """Raise UsageError for a file whose name says another format than that of its rows: they come out as they came."""
    for path in paths:
        said, packed = shapes.named(path)
        if said not in (None, format_) or (format_ == shapes.PARQUET and packed != Packing.NONE):
            raise click.UsageError(f"the rows come out as they came, as {format_}; {path} says something else")


def _of_table(topic: str, file: Path, column: str | None, output: Path | None, denied: Path | None) -> _Count:
    """Filter a Parquet file, whose addresses alone are looked at: what is left of it is a Parquet file too."""
    from mailprefs.tables import Table  # brings in DuckDB

    if output is None:
        raise click.UsageError("a Parquet file is answered by one: name it, with --output")
    _called((output, denied), shapes.PARQUET)
    table = Table(file)
    if denied:
        sheets.spare(table, REASONS)
    with ExitStack() as stack:
        outs = [stack.enter_context(files.whole(path)) if path else None for path in (output, denied)]  # both, or neither
        scratch = stack.enter_context(files.scratch(output.parent))
        texts, places, left, others = (scratch / name for name in ("texts", "places", "left", "others"))
        called = table.addresses(column, texts)
        tell_column(called, column)
        with texts.open("rb") as source, places.open("wb") as aside:
            found = _Places(aside, denied is not None)
            count = run(_filtered(topic, source, called, found))
        if found.seen != table.height:
            raise Unreadable("its rows cannot be told apart")  # by their places: one off, and all behind it would be another's
        table.split(places, left, others)
        for part, out in zip((left, others), outs, strict=True):
            if out is not None:
                with part.open("rb") as whole:
                    shutil.copyfileobj(whole, out)
    return count


def _opened(file: Path) -> BufferedReader:
    return os.fdopen(os.dup(0), "rb") if str(file) == "-" else file.open("rb")


class _Side(Protocol):
    """Where the answers go."""

    @property
    def reasons(self) -> bool: ...
    @property
    def out(self) -> BinaryIO: ...
    def begin(self, sheet: Sheet) -> None: ...
    def write(self, verdict: Verdict, keyed: Keyed, sheet: Sheet) -> None: ...


@dataclass
class _Sides:
    """Rows as they came: the allowed to one side, the denied to another with their reasons."""

    out: BinaryIO
    aside: BinaryIO | None
    paths: Sequence[Path | None]

    @property
    def reasons(self) -> bool:
        return self.aside is not None

    def begin(self, sheet: Sheet) -> None:
        _called(self.paths, "csv" if sheet.head() else "ndjson")
        if self.aside:
            sheets.spare(sheet, REASONS)
            self.aside.write(sheet.head(REASONS))
        self.out.write(sheet.head())

    def write(self, verdict: Verdict, keyed: Keyed, sheet: Sheet) -> None:
        self.out.write(b"\n".join([*verdict.allowed(keyed.rows), b""]))
        if self.aside:
            self.aside.write(b"".join(sheet.beside(keyed.rows[n], {REASONS: why}) + b"\n" for n, why in sorted(verdict.denied.items())))


@dataclass
class _Places:
    """The places of the denied alone, from 0, and their reasons."""

    out: BinaryIO
    reasons: bool
    seen: int = 0

    def begin(self, sheet: Sheet) -> None: ...

    def write(self, verdict: Verdict, keyed: Keyed, sheet: Sheet) -> None:
        self.out.writelines(f"{self.seen + n},{reasons}\n".encode() for n, reasons in verdict.denied.items())
        self.seen += len(keyed.rows)


async def _filtered(topic: str, source: BufferedReader, column: str | None, sides: _Side) -> _Count:
    opening = Opening()
    asking = Filter(opening.catalogue, opening.catalogue.topic(topic), reasons=sides.reasons)
    sheet, blocks = sheets.opened(sheets.chunks(source), column)
    tell_column(sheet.column, column)
    sides.begin(sheet)
    count = _Count()
    async with opening.connected() as connection:
        enough = max(FEW, await audience.about(connection) // SHARE)
        with counting("candidates", through=source, out=sides.out) as bar:
            crew = Crew(opening.ring.digest, sheet, large=0 if _is_large(source) else crews.LARGE)
            async for keyed in crew.keyed(blocks):
                if count.rows > enough and asking.sieve is None:
                    await asking.sift(connection, now=now())
                verdict = await asking.judge(connection, keyed, now=now())
                sides.write(verdict, keyed, sheet)
                count.rows, count.denied = count.rows + verdict.rows, count.denied + len(verdict.denied)
                bar(verdict.rows)
    return count


def _is_large(source: BufferedReader) -> bool:
    """True for a file that is; a pipe shows it only while it is read."""
    return os.fstat(source.fileno()).st_size >= LARGE
