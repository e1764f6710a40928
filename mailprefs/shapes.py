"""What an audience is delivered as: its columns, its format, how it is packed, and the file that becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mailprefs import files, parquet
from mailprefs.audience import Format
from mailprefs.errors import Unreadable
from mailprefs.packing import Packer, Packing, Sink
from mailprefs.spelling import MINTED

PARQUET = "parquet"
FORMATS = (*(each.value for each in Format), PARQUET)
_MEDIA = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson", PARQUET: "application/vnd.apache.parquet"}
_PACKED = {Packing.GZIP: "application/gzip", Packing.ZSTD: "application/zstd"}
_SLICE = 1 << 18  # bytes of a file that are read at once
_PROGRAMS = (".xls", ".xlsx", ".ods", ".numbers")  # what spreadsheet programs write, and we do not
_LOSSY = "a spreadsheet variant is CSV: it changes what it holds, and a program would take the change for the address"


@dataclass(frozen=True, slots=True)
class Shape:
    """How an audience is written down."""

    columns: tuple[str, ...] = ("address",)
    format: str = "csv"
    packing: Packing = Packing.NONE
    spreadsheet: bool = False

    @property
    def rows(self) -> Format:
        """What PostgreSQL writes: Parquet is made of CSV."""
        return Format.NDJSON if self.format == "ndjson" else Format.CSV

    @property
    def suffix(self) -> str:
        """The end of the name of such a file."""
        return f"{'.lossy' if self.spreadsheet else ''}.{self.format}{self.packing.suffix}"

    @property
    def media(self) -> str:
        """The media type of such a file."""
        return _PACKED.get(self.packing, _MEDIA[self.format])


def read(columns: str, format: str, packing: str, *, links: bool = False, spreadsheet: bool = False) -> Shape:
    """Return the shape that is asked for in words. Raises Unreadable for a format and a packing that there are not, or not together.

    ``links`` puts the link and the three headers behind the columns. The columns themselves are looked at by ``audience.sound``.
    """
    if format not in FORMATS:
        raise Unreadable(f"the formats are: {', '.join(FORMATS)}")
    if packing not in list(Packing):
        raise Unreadable(f"a file is packed as one of: {', '.join(Packing)}")
    if spreadsheet and format != "csv":
        raise Unreadable(_LOSSY)
    if format == PARQUET and packing != Packing.NONE:
        raise Unreadable("Parquet is packed in itself")
    names = tuple(columns.split(","))
    more = tuple(name for name in MINTED if name not in names) if links else ()
    return Shape((*names, *more), format, Packing(packing), spreadsheet)


def named(path: Path | None) -> tuple[str | None, str]:
    """Return the format and the packing that a file's name says: none for no format's name. Raises Unreadable for a spreadsheet's."""
    suffixes = path.suffixes if path else []
    packing = {".gz": "gzip", ".zst": "zstd"}.get(suffixes[-1] if suffixes else "", "none")
    last = suffixes[:-1][-1:] if packing != "none" else suffixes[-1:]
    if last and last[0].lower() in _PROGRAMS:
        raise Unreadable(f"a file called {last[0]} would be no such file: name it .csv, which that program opens")
    return {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": PARQUET}.get(last[0] if last else ""), packing


@asynccontextmanager
async def delivered(shape: Shape, sink: Sink, scratch: Path | None = None) -> AsyncIterator[Sink]:
    """Lend the sink for the rows, which reach ``sink`` as the file that they become: whole when the block has ended well, never before.

    Parquet, whose end says what is in it, is made in a file of ``scratch`` first. Raises Misconfigured where it cannot be made.
    """
    if shape.format == PARQUET:
        async with _parquet(shape.columns, sink, scratch) as rows:
            yield rows
        return
    packer = Packer(sink, shape.packing)
    yield packer
    await packer.finish()


@asynccontextmanager
async def _parquet(columns: Sequence[str], sink: Sink, scratch: Path | None) -> AsyncIterator[Sink]:
    with files.scratch(scratch) as folder:
        path = folder / "rows.parquet"
        async with parquet.written(path, columns) as rows:
            yield _headless(rows)
        with path.open("rb") as file:
            while chunk := file.read(_SLICE):
                await sink(chunk)


def _headless(rows: Sink) -> Sink:
    """Return a sink that passes over the header, which comes alone and first."""
    first = True

    async def sink(chunk: bytes) -> None:
        nonlocal first
        if not first:
            await rows(chunk)
        first = False

    return sink
