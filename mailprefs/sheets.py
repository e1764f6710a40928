"""Files of candidates, cut into rows that stay byte for byte as they came: CSV with any columns, NDJSON. A block at a time."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, Protocol

from mailprefs.columns import Plain
from mailprefs.errors import Unreadable
from mailprefs.rows import ADDRESS, BROKEN, LONGEST, TALLEST, WIDEST, Row, address_of, addressed, beside, quoted, unpacked, why

PARQUET = b"PAR1"  # what such a file begins with
REASONS = "reasons"  # the column that stands behind the others of those who are denied
_BOM = b"\xef\xbb\xbf"
CHUNK = 1 << 20  # bytes that are read at once
WIDE = 1000  # columns: what lacks some is filled up when it is given back with its reasons
_ANOTHER = ". --column, or over HTTP ?column=, names another"
PLAIN = 64  # octets of an address that is read in bulk; a longer one is read by itself

# What `addresses.email` gives back as it is, once it is lower case: nothing else is read in bulk (a test).
# Only single characters are repeated possessively: Python 3.11.0 to 3.11.4 misread groups that are.
_ATOM = rb"[a-z0-9!#$%&'*+/=?^_`{|}~-]++"
_LABEL = rb"[a-z0-9]++(?:-[a-z0-9]++)*"
_HOST = rb"%b(?:\.%b)*@(?:%b\.)+" % (_ATOM, _ATOM, _LABEL)
_SPECIAL = rb"(?:arpa|invalid|local|localhost|onion|test)"
_EMAIL = rb"%b(?!%b(?![a-z]))[a-z]++" % (_HOST, _SPECIAL)
_OTHER = rb"^[^\n]*$"
_ALONE = re.compile(rb"^(%b)$|%b" % (_EMAIL, _OTHER), re.MULTILINE)
# A CR within a row ends it for other readers, so that what stands behind it would be another row's: such a row is read strictly.
_BARE, _QUOTED = rb'[^,"\r\n]*+', rb'(?:"[^"\r\n]*+"|[^,"\r\n]*+)'


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole rows without their line ends, and beside each its address in lower case, b"" where that wants a closer look."""

    rows: Sequence[bytes]
    plain: Sequence[bytes]


class Columns(Protocol):
    """What has columns."""

    def has(self, name: str) -> bool:
        """True where a further column of this name would be the second one, to whoever passes over case."""


class Sheet(Columns, Protocol):
    """One file of candidates, of a known kind."""

    @property
    def column(self) -> str:
        """Return what the column of the addresses is called."""

    def head(self, *more: str) -> bytes:
        """Return what stands above the rows, with further columns."""

    def cut(self, buffer: bytes, *, last: bool) -> tuple[list[bytes], bytes]:
        """Return the whole rows at the beginning of a buffer, and the rest of it. Raises Unreadable where a row never ends."""

    @property
    def plain(self) -> Plain | None:
        """Return which rows can be read a column at a time, None where none can."""

    def block(self, rows: list[bytes]) -> Block:
        """Return rows with the addresses that can be read in bulk."""

    def text(self, row: bytes) -> str:
        """Return the address of one row as it is spelled. Raises Unreadable where it has none that stands out."""

    def beside(self, row: bytes, more: Mapping[str, str | int]) -> bytes:
        """Return a row with further columns, each of one line, such as its reasons."""


class Csv:
    """Rows under a header. A row may span lines where a quote does."""

    def __init__(self, header: bytes, column: str = ADDRESS) -> None:
        self._header = header.rstrip(b"\r")
        columns = _fields(self._header.removeprefix(_BOM))
        if columns is None or columns.count(column) != 1:
            raise Unreadable(_why(self._header, columns or (), column))
        if len(columns) > WIDE:
            raise Unreadable(f"the first line names more than {WIDE:,} columns")
        self.column = column
        self._wide, self._at = len(columns), columns.index(column)
        self._names = frozenset(name.strip().casefold() for name in columns)
        self._bare = self._pattern(_BARE, b"(%b)" % _EMAIL)
        self._quoted = self._pattern(_QUOTED, b'("?)(%b)\\1' % _EMAIL)

    @property
    def plain(self) -> Plain:
        """The engine that matches columns knows neither possessives, which it does not need, nor looks ahead."""
        like = (_HOST + b"[a-z]+").replace(b"++", b"+").decode()
        return Plain(like, rf"\.{_SPECIAL.decode()}", PLAIN, self._at, self._wide)

    def _pattern(self, field: bytes, address: bytes) -> re.Pattern[bytes]:
        behind = self._wide - self._at - 1
        return re.compile(rb"^(?:%b,){%d}%b(?:,%b){%d}\r?$|%b" % (field, self._at, address, field, behind, _OTHER), re.MULTILINE)

    def head(self, *more: str) -> bytes:
        return b",".join([self._header, *(name.encode() for name in more)]) + b"\n"

    def has(self, name: str) -> bool:
        return name.casefold() in self._names

    def cut(self, buffer: bytes, *, last: bool) -> tuple[list[bytes], bytes]:
        if b'"' not in buffer:
            return _lines(buffer, last)
        lines, rest = _lines(buffer, last)
        rows, open_ = _closed(lines)
        if open_ and (last or len(open_) > TALLEST or sum(map(len, open_)) > WIDEST):
            return [*rows, *open_], rest  # a quote that never closes costs its own line alone
        return rows, b"\n".join([*open_, rest])

    def block(self, rows: list[bytes]) -> Block:
        low = b"\n".join(rows).lower()
        if low.count(b"\n") >= len(rows):  # a row spans lines
            rows = [line for row in rows for line in self._apart(row)]
            low = b"\n".join(b"" if b"\n" in row else row for row in rows).lower()
        return Block(rows, _short([found for _, found in self._quoted.findall(low)] if b'"' in low else self._bare.findall(low)))

    def _apart(self, row: bytes) -> list[bytes]:
        """Return a row of several lines as it is if it is one, else each of its lines: some field held a quote that means nothing."""
        fields = _fields(row)
        return [row] if b"\n" not in row or (fields is not None and len(fields) == self._wide) else row.split(b"\n")

    def text(self, row: bytes) -> str:
        fields = _fields(row)
        if fields is None:
            raise Unreadable("no CSV: its quotes do not match, or a field is too long")
        if len(fields) != self._wide:
            raise Unreadable(f"{len(fields)} fields where the header names {self._wide}")
        return _address(fields[self._at])

    def beside(self, row: bytes, more: Mapping[str, str | int]) -> bytes:
        fields = _fields(row)
        if fields is not None and len(fields) == self._wide:
            return b",".join([row.rstrip(b"\r"), *(quoted(str(value)) for value in more.values())])
        came = [row.decode("utf-8", "surrogateescape")] if fields is None else fields
        missing = [""] * (self._wide - len(came))
        return _spelled([*came[: self._wide], *missing, *more.values(), *came[self._wide :]])


class Ndjson:
    """A JSON object a line, with an address in it."""

    def __init__(self, column: str = ADDRESS) -> None:
        self.column = column
        self._key = json.dumps(column, ensure_ascii=False).encode("utf-8", "surrogatepass")

    @property
    def plain(self) -> None:
        return None

    def head(self, *more: str) -> bytes:
        return b""

    def has(self, name: str) -> bool:
        return False  # it would take the other's place

    def cut(self, buffer: bytes, *, last: bool) -> tuple[list[bytes], bytes]:
        return _lines(buffer, last)

    def block(self, rows: list[bytes]) -> Block:
        texts = ((text_of(self, row) or "").strip() for row in rows)
        together = "\n".join("" if "\n" in text else text for text in texts).encode("utf-8", "surrogatepass")
        return Block(rows, _short(_ALONE.findall(together.lower())))

    def text(self, row: bytes) -> str:
        try:
            came = self._read(row)
        except (ValueError, RecursionError):
            raise Unreadable("no JSON object, or a key twice in it") from None
        if not isinstance(came, dict) or not isinstance(said := came.get(self.column), str):
            raise Unreadable("no address under its key")
        return _address(said)

    def _read(self, row: bytes) -> Any:
        """Return what a row says. Raises ValueError where another reader could find another address in it."""
        if b"\r" in row.rstrip(b"\r") or b"\0" in row:  # a NUL: UTF-16, whose keys would not be counted
            raise ValueError
        return json.loads(row, object_pairs_hook=_once if b"\\" in row or row.count(self._key) > 1 else None)

    def beside(self, row: bytes, more: Mapping[str, str | int]) -> bytes:
        try:
            came = self._read(row)
            if isinstance(came, dict):
                return beside(row.decode("utf-8-sig", "surrogatepass"), came, more).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            pass
        return json.dumps({"line": row.decode("utf-8", "replace"), **more}).encode()


def chunks(source: BufferedReader) -> Iterator[bytes]:
    """Give what a file holds, unpacked, some at a time. Raises Unreadable where it breaks off, or is Parquet."""
    try:
        if source.peek(4).startswith(PARQUET):
            raise Unreadable("that is a Parquet file; give its name, and the name of a file for the answer")
        file = unpacked(source)
        while chunk := file.read(CHUNK):
            yield chunk
    except BROKEN:
        raise Unreadable("the file cannot be unpacked, or breaks off") from None


def opened(chunks: Iterator[bytes], column: str | None = ADDRESS) -> tuple[Sheet, Iterator[list[bytes]]]:
    """Return the sheet that comes in chunks, and its rows, some at a time. Raises Unreadable, between rows too."""
    cutter = Cutter(column)
    ahead = next((rows for chunk in chunks if (rows := cutter.take(chunk)) is not None), None)
    first = cutter.finish() if ahead is None else ahead
    return cutter.sheet, _rows(cutter, first, chunks if ahead is not None else iter(()))


def _rows(cutter: Cutter, first: list[bytes], chunks: Iterator[bytes]) -> Iterator[list[bytes]]:
    yield first
    for chunk in chunks:
        if rows := cutter.take(chunk):
            yield rows
    yield cutter.finish()


class Cutter:
    """Cuts what comes in chunks into rows. What it is, CSV or NDJSON, its first character says: a header begins with no brace.

    The column of the addresses is ``column``; None: the one that the header, or the first object, obviously means.
    """

    def __init__(self, column: str | None = ADDRESS) -> None:
        self._column = column
        self._sheet: Sheet | None = None
        self._rest = b""

    @property
    def sheet(self) -> Sheet:
        """What it is. Raises Unreadable while nothing has come."""
        if self._sheet is None:
            raise Unreadable(why("", ()))
        return self._sheet

    @property
    def held(self) -> int:
        """How many bytes it holds back: of a row that is not whole yet."""
        return len(self._rest)

    def take(self, chunk: bytes) -> list[bytes] | None:
        """Return the rows that are whole now; None while not even the first line is. Raises Unreadable for no header with the column."""
        self._rest += chunk
        if self._sheet is None and not self._begun(last=False):
            return None
        rows, self._rest = self.sheet.cut(self._rest, last=False)
        return rows

    def finish(self) -> list[bytes]:
        """Return what rows are left at the end."""
        if self._sheet is None and not self._begun(last=True):
            return []
        rows, self._rest = self.sheet.cut(self._rest, last=True)
        return rows

    def _begun(self, *, last: bool) -> bool:
        line, end, rest = self._rest.partition(b"\n")
        if not end and not (last and line):
            if len(line) > WIDEST:
                raise Unreadable("the first line never ends")
            return False
        head = line.removeprefix(_BOM).strip()
        if head.startswith(b"{"):
            self._sheet, self._rest = Ndjson(self._column or _meant(_keys(head))), self._rest.removeprefix(_BOM)
        else:
            self._sheet, self._rest = Csv(line, self._column or addressed(_fields(head) or ())), rest
        return True


def _lines(buffer: bytes, last: bool) -> tuple[list[bytes], bytes]:
    whole, end, rest = buffer.rpartition(b"\n")
    if last:
        whole, end, rest = buffer.removesuffix(b"\n"), buffer[:1], b""
    if len(rest) > WIDEST:
        raise Unreadable("a row never ends")
    return (whole.split(b"\n") if end else []), rest


def _closed(lines: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return rows whose quotes are closed, and the lines of one that is not yet (RFC 4180 §2: a row has an even number of them)."""
    rows: list[bytes] = []
    waiting: list[bytes] = []
    for line in lines:
        if line.count(b'"') % 2 == bool(waiting):
            rows.append(b"\n".join([*waiting, line]))
            waiting.clear()
        else:
            waiting.append(line)
    return rows, waiting


def _fields(row: bytes) -> list[str] | None:
    """Return the fields of one CSV row, None where it is not exactly one."""
    csv.field_size_limit(LONGEST)
    try:
        found: Iterator[list[str]] = csv.reader(io.StringIO(row.decode("utf-8", "surrogateescape"), newline=""), strict=True)
        fields = list(found)
    except csv.Error:
        return None
    return fields[0] if len(fields) == 1 else None


def _meant(keys: Sequence[str]) -> str:
    """Return the key of the address. Raises Unreadable where none obviously is: every row would be denied."""
    found = addressed(keys)
    if keys and found not in keys:
        raise Unreadable("the first object has no key 'address', nor one alone 'email'" + _ANOTHER)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError
    return found


def _why(header: bytes, columns: Sequence[str], column: str) -> str:
    """Return why no column can be taken for that of the addresses. No name of a column is repeated: it may be somebody's address."""
    if column in columns:
        return f"the first line names a column twice: {column!r}"
    named = "" if column == ADDRESS else f"no column is called {column!r}, in these very letters. "
    return named + why(header.decode("utf-8", "replace"), columns, _ANOTHER)


def spare(sheet: Columns, *names: str) -> None:
    """Raise Unreadable where a further column of one of these names would be the second one: whoever reads the file may take either."""
    if taken := [name for name in names if sheet.has(name)]:
        raise Unreadable(f"a column is called '{taken[0]}' already, and could be taken for ours: call it otherwise")


def _keys(line: bytes) -> list[str]:
    try:
        return list(json.loads(line))
    except (ValueError, RecursionError):
        return []


def text_of(sheet: Sheet, row: bytes) -> str | None:
    """Return the address of one row as it is spelled, None where it has none that stands out."""
    try:
        return sheet.text(row)
    except Unreadable:
        return None


def _address(text: str) -> str:
    """Return the address in a field, out of ``Name <a@b>`` where it is written so. Raises Unreadable where it could be another's."""
    if not text.strip():
        raise Unreadable("the column of the address is empty")
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise Unreadable("not UTF-8, or with a NUL in it")
    return address_of(Row(0, {ADDRESS: text}))


def _short(found: list[bytes]) -> list[bytes]:
    return found if max(map(len, found), default=0) <= PLAIN else [each if len(each) <= PLAIN else b"" for each in found]


def _spelled(values: Sequence[str | int]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue().encode("utf-8", "surrogateescape")
