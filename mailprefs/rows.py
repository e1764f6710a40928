"""Files of rows: CSV and NDJSON in, plain or gzipped, one row at a time; and what is rejected, beside them, with its reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from mailprefs.errors import Unreadable

LONGEST = 1 << 20  # characters of a field; a quote that never closes must not swallow a file
ADDRESS = "address"  # the column that every file has


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: its number, from 1 after the header, its fields by name, and why it cannot be read, if so."""

    number: int
    fields: Mapping[str, str]
    wrong: str | None = None


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Lend the text of a file of rows, unpacking ``.gz``; ``-`` is standard input. Raises Unreadable."""
    with ExitStack() as stack:
        try:
            raw: Any = stack.enter_context(_raw(path))
        except OSError as error:
            raise Unreadable(f"{path} cannot be read: {error.strerror}") from None
        yield stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline=""))


def _raw(path: Path) -> Any:
    if str(path) == "-":
        return os.fdopen(os.dup(0), "rb")
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def read(text: TextIO, *, ndjson: bool = False) -> tuple[list[str], Iterator[Row]]:
    """Return the columns and the rows of a file. Raises Unreadable if it has no column ``address``.

    A row that cannot be read is given with its reason; nothing a file holds ends the reading of the rest, but a broken archive.
    """
    if ndjson:
        return [ADDRESS], _objects(text)
    csv.field_size_limit(LONGEST)
    reader = csv.reader(text)
    try:
        columns = next(reader, [])
    except (csv.Error, EOFError, OSError):
        columns = []
    if ADDRESS not in columns or len(set(columns)) < len(columns):
        raise Unreadable("the first line must name the columns, each once, and one of them 'address'")
    return columns, _records(reader, columns)


def _records(reader: Any, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    while True:
        number += 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, {}, f"no CSV: {error}")
            continue
        except (EOFError, OSError, UnicodeError):
            yield Row(number, {}, "the file breaks off here")
            return
        if values:
            yield Row(number, dict(zip(columns, values, strict=False)), _wrong(values, columns))


def _wrong(values: Sequence[str], columns: Sequence[str]) -> str | None:
    if len(values) != len(columns):
        return f"{len(values)} fields where the header names {len(columns)}"
    return "not UTF-8, or with a NUL in it" if any(_odd(value) for value in values) else None


def _objects(text: TextIO) -> Iterator[Row]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            fields = {str(name): value for name, value in found.items() if isinstance(value, str)}
        except (ValueError, AttributeError, RecursionError):
            yield Row(number, {}, "no JSON object")
            continue
        odd = ADDRESS not in fields or any(_odd(value) for value in fields.values())
        yield Row(number, fields, "no text 'address', or not UTF-8" if odd else None)


def _odd(value: str) -> bool:
    return "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value))


class Rejects(AbstractContextManager["Rejects"]):
    """Writes rows that were refused as they came, with ``row`` and ``reason``. The file is made with the first of them."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.count = 0
        self._columns = [*columns, "row", "reason"]
        self._file: TextIO | None = None

    def add(self, row: Row, reason: str) -> None:
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
            self._writer = csv.DictWriter(self._file, self._columns, extrasaction="ignore")
            self._writer.writeheader()
        self._writer.writerow({**row.fields, "row": row.number, "reason": reason})
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
