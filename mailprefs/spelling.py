"""Rows of an audience as they come from PostgreSQL, each with its key, spelt as a file has them: with links, or safe for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import concat
from typing import cast
from uuid import UUID

from mailprefs.links import Links, Mintable, Minted
from mailprefs.rows import quoted

COLUMNS = ("address", "locale", "region", "party")  # what is kept of an address, and what a record from PostgreSQL has fields for
MINTED = ("url", "list_unsubscribe", "list_unsubscribe_post", "list_id")
BOM = b"\xef\xbb\xbf"  # without it, spreadsheets take UTF-8 for something else
_NOBODY = UUID(int=0)
_KEY = 36  # characters of a key; a comma follows
_ACTIVE = tuple("=+-@＝＋－＠")  # with which a spreadsheet takes a text for a formula, wide ones too (CWE-1236)


@dataclass
class Speller:
    """Spells rows, chunk by chunk: what is cut off in the middle of a row is kept until the next."""

    columns: Sequence[str]  # that PostgreSQL gives, in their order; empty: it gives JSON
    minted: Sequence[str] = ()  # of MINTED, which follow
    minter: Links | None = None
    topic: Mintable | None = None
    spreadsheet: bool = False
    _rest: bytes = field(default=b"", repr=False)

    def header(self) -> bytes:
        """Return the first line of a CSV."""
        return (BOM if self.spreadsheet else b"") + ",".join([*self.columns, *self.minted]).encode() + b"\n" if self.columns else b""

    def spell(self, chunk: bytes) -> bytes:
        """Return the rows that are whole now, as they stand in the file."""
        records = self._whole(chunk)
        spelt = self._bodies(records)
        if self.minter is not None and self.topic is not None:
            keys = [UUID(record[:_KEY].decode()) for record in records]
            tails = (token.encode().join(self._around) for token in self.minter.stream(keys, self.topic))
            spelt = map(_appended if self.columns else _followed, spelt, tails)
        lines = b"\n".join(spelt)
        return lines + b"\n" if records else b""

    def _whole(self, chunk: bytes) -> list[bytes]:
        """Return the records that end in here. A line break inside quotes ends none: a record is whole when its quotes are even."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if not any(b'"' in each for each in (chunk, *lines[:1])):  # the first line may have begun in a former chunk
            return lines
        records: list[bytes] = []
        begun: list[bytes] = []
        inside = False  # quotes that do not close on their line
        for line in lines:
            begun.append(line)
            inside ^= line.count(b'"') % 2 == 1
            if not inside:
                records.append(b"\n".join(begun))
                begun = []
        if begun:
            self._rest = b"\n".join([*begun, self._rest])
        return records

    def _bodies(self, records: Sequence[bytes]) -> Iterator[bytes]:
        if not self.columns:
            return map(_json, records)
        unused = len(COLUMNS) - len(self.columns)  # each an empty field behind the others, and its comma
        bodies = (record[_KEY + 1 : len(record) - unused] for record in records)
        return map(_inert, bodies) if self.spreadsheet else bodies

    @cached_property
    def _around(self) -> list[bytes]:
        """What stands around the token in the columns that are minted: cut out of one that the minter made, so that none can differ."""
        if self.minter is None or self.topic is None:
            return []
        return self._tail(self.minter.mint(_NOBODY, self.topic)).split(self.minter.token(_NOBODY, self.topic).encode())

    def _tail(self, minted: Minted) -> bytes:
        values = [getattr(minted, name) for name in self.minted]
        if not self.columns:
            return json.dumps(dict(zip(self.minted, values, strict=True)), separators=(",", ":"))[1:].encode()
        return b"".join(b"," + quoted(value) for value in values)


def _json(record: bytes) -> bytes:
    """Return the object that is the first field of a record, and its only one; COPY quotes what holds quotes."""
    body = record[_KEY + 1 : len(record) - len(COLUMNS) + 1]
    return body[1:-1].replace(b'""', b'"') if body.startswith(b'"') else body


_appended = cast("Callable[[bytes, bytes], bytes]", concat)  # twice as fast as adding is, spelt as a method


def _followed(body: bytes, tail: bytes) -> bytes:
    return body[:-1] + (b"," if len(body) > 2 else b"") + tail


def _inert(record: bytes) -> bytes:
    """Return a record no field of which a spreadsheet would compute."""
    fields = next(csv.reader(io.StringIO(record.decode(), newline="")), [""])
    line = io.StringIO()  # the usual end of a line, so that fields with either kind of line break are quoted
    csv.writer(line).writerow([f"'{text}" if text.lstrip().startswith(_ACTIVE) else text for text in fields])
    return line.getvalue().removesuffix("\r\n").encode()
