"""Files of rows: CSV and NDJSON in, plain or packed, one row at a time; and what is rejected, beside them, with its reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO, cast

from backports import zstd

from mailprefs import files
from mailprefs.errors import Unreadable

LONGEST = 1 << 20  # characters of a field
TALLEST = 1000  # lines of a row; a quote that never closes must not swallow a file
WIDEST = 4 * LONGEST  # characters, or octets, of a row, or of what a quote that never closes may hold up
BEGINNING = 1000  # characters of a row that is longer: enough to find it again
ADDRESS = "address"  # the column that every file has
_MAIL = frozenset({"email", "emailaddress"})  # what others call it, once blanks, hyphens and underscores are out
_ANGLED = frozenset("<>")
_NAMED = re.compile(r"([^<>]*)<\s*([^<>]*?)\s*>")  # RFC 5322 §3.4: display-name, angle-addr
_ENDS = ("\n", "\r")
_DECODER = json.JSONDecoder()
_SAYING = re.compile(r"[^ \t\r\n:,]")  # in JSON: what is neither blank nor stands between two things
_BEYOND = re.compile(r"[^\x00-\x7f]+")
_BETWEEN = re.compile(r"[,;\s]")  # what stands between addresses where there are several
BROKEN = (EOFError, OSError, UnicodeError, zlib.error, zstd.ZstdError)  # what a damaged archive can raise
_UTF16 = "it is UTF-16, as spreadsheets write it: save it as CSV in UTF-8"
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # what archives begin with
_UNPACKING: Mapping[str, Callable[..., Any]] = {"gzip": gzip.open, "zstd": zstd.open}
_OTHERS = {  # how files begin that are no CSV
    b"PK\x03\x04": "it is a spreadsheet or another zip archive, and no CSV: save the sheet as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "it is an old spreadsheet, and no CSV: save the sheet as CSV in UTF-8",
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    **dict.fromkeys(PACKED, "it is packed twice: unpack it once"),
    b"PAR1": "it is Parquet, and no CSV",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: its number, from 1 after the header, its fields by name, and why it cannot be read, if so."""

    number: int
    fields: Mapping[str, str]
    wrong: str | None = None
    came: Sequence[str] = ()  # every field in its order; the whole line where it is no row, or an object


def addressed(columns: Collection[str]) -> str:
    """Return which column holds the addresses: ``address``, else the only one that is called e-mail, however that is spelled."""
    found = [column for column in columns if re.sub(r"[\s_-]", "", column).casefold() in _MAIL]
    return found[0] if len(found) == 1 and ADDRESS not in columns else ADDRESS


def address_of(row: Row) -> str:
    """Return the address of a row, out of ``Name <a@b>`` where it is written so. Raises Unreadable where it could be another's."""
    text = row.fields[ADDRESS].strip()
    if text.count("@") < 2 and not _ANGLED.intersection(text):
        return text
    name, address = found.groups() if (found := _NAMED.fullmatch(text)) else ("", text)
    if not address or _ANGLED.intersection(address) or (address.count("@") > 1 and _BETWEEN.search(address)):
        raise Unreadable("more than one address in the field, or none that stands out")
    if "@" in name and name.strip(" \"'").casefold() != address.casefold():
        raise Unreadable("the name beside the address is another address")
    return str(address)


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Lend the text of a file of rows, unpacked; ``-`` is standard input. Raises Unreadable."""
    with ExitStack() as stack:
        try:
            raw: Any = stack.enter_context(unpacked(stack.enter_context(_raw(path))))
        except OSError as error:
            raise Unreadable(f"{path} cannot be read: {error.strerror}") from None
        yield stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline=""))


def _raw(path: Path) -> BufferedReader:
    return os.fdopen(os.dup(0), "rb") if str(path) == "-" else path.open("rb")


def unpacked(file: BufferedReader) -> BinaryIO:
    """Return what a file holds, unpacked where its first bytes say that it is packed, whatever its name says."""
    begins = file.peek(4)
    return next((cast(BinaryIO, _UNPACKING[name](file, "rb")) for magic, name in PACKED.items() if begins.startswith(magic)), file)


def read(
    text: TextIO, *, ndjson: bool = False, known: Callable[[Collection[str]], object] = lambda _columns: None
) -> tuple[list[str], Iterator[Row]]:
    """Return the columns, none for NDJSON, and the rows of a file. Raises Unreadable for a CSV that has no column for the address.

    Each row has its address as ``address``, whatever the column is called. Columns that are ``known`` for something else stay as
    they are, and may come twice.
    A row that cannot be read is given with its reason; nothing a file holds ends the reading of the rest, but a broken archive.
    """
    if ndjson:
        return [], _objects(text, known)
    csv.field_size_limit(LONGEST)
    lines = _Lines(text)
    try:
        columns = next(csv.reader(lines, strict=True), [])
    except csv.Error:
        columns = []
    except BROKEN:
        raise Unreadable("the file cannot be unpacked, or breaks off in its first line") from None
    if known(columns):
        return columns, _records(lines, columns)
    called = addressed(columns)
    if called not in columns or len(set(columns)) < len(columns):
        raise Unreadable(why("".join(lines.taken), columns))
    return columns, _records(lines, [ADDRESS if column == called else column for column in columns])


def why(head: str, columns: Sequence[str], otherwise: str = "") -> str:
    """Return why a file is no CSV with a column ``address``, from how it begins, and what to do; ``otherwise`` is behind what it lacks."""
    begins = head[:4].encode("utf-8", "surrogateescape")
    for magic, what in _OTHERS.items():
        if begins.startswith(magic):
            return what
    if head.count("\0") * 3 > len(head) > 3:  # without its mark
        return _UTF16
    if not head:
        return "the file is empty: its first line must name the columns, one of them 'address'"
    for mark, name in {";": "semicolons", "\t": "tabs", "|": "upright lines"}.items():
        if ADDRESS in (text.strip().strip('"').casefold() for text in head.split(mark)) and mark in head:
            return f"its columns are separated by {name}: save it with commas"
    if twice := [n for n, column in enumerate(columns, 1) if columns.index(column) < n - 1]:  # its name may be an address
        return f"the first line names a column twice: the column {twice[0]} is called as one before it"
    if near := [column for column in columns if column.strip().casefold() == ADDRESS]:
        return f"the first line says {near[0]!r}: write 'address', in small letters and without spaces{otherwise}"
    return f"the first line must name the columns, each once, and one of them 'address', or one alone 'email'{otherwise}"


class _Lines:
    """The lines of a text, and which of them the row under way has taken: what a quote swallows can be read again."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self.taken: list[str] = []
        self._held = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if not (line := _cut(self._text)):
            raise StopIteration
        self.taken.append(line)
        self._held += len(line)
        if len(self.taken) > TALLEST or self._held >= WIDEST:
            raise csv.Error("too much")
        return line

    def begin(self) -> None:
        """Forget what the row before has taken."""
        self.taken.clear()
        self._held = 0


def _cut(text: TextIO) -> str:
    """Return the next line, "" at the end. Of one that is too long it is the beginning, and the rest is passed over: memory stays flat."""
    line = more = text.readline(WIDEST)
    while len(more) == WIDEST and not more.endswith(_ENDS):
        more = text.readline(WIDEST)
    return line


def _records(lines: _Lines, columns: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    number = 0
    while True:
        number += 1
        lines.begin()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error:
            for each in tuple(lines.taken):  # each line for itself: the rows below a quote that never closes are rows
                yield _line(number, each, columns)
                number += 1
            number -= 1
        except BROKEN:
            yield Row(number, {}, "the file breaks off here", ["".join(lines.taken)])
            return
        else:
            if values:
                yield _row(number, values, columns)


def _line(number: int, line: str, columns: Sequence[str]) -> Row:
    if len(line) >= WIDEST:
        return _too_wide(number, line)
    try:
        return _row(number, next(csv.reader([line], strict=True)), columns)
    except csv.Error:
        wrong = "a field is too long" if len(line) > LONGEST else "no CSV: its quotes do not match"
        return Row(number, {}, wrong, [line.rstrip("\r\n")])


def _too_wide(number: int, line: str) -> Row:
    return Row(number, {}, f"longer than a row may be ({WIDEST:,} characters): this is how it begins", [line[:BEGINNING]])


def _row(number: int, values: list[str], columns: Sequence[str]) -> Row:
    return Row(number, dict(zip(columns, values, strict=False)), _wrong(values, columns), values)


def _wrong(values: Sequence[str], columns: Sequence[str]) -> str | None:
    if len(values) != len(columns):
        return f"{len(values)} fields where the header names {len(columns)}"
    return "not UTF-8, or with a NUL in it" if any(_odd(value) for value in values) else None


def _objects(text: TextIO, known: Callable[[Collection[str]], object]) -> Iterator[Row]:
    number = 0
    while True:
        number += 1
        try:
            line = _cut(text)
        except BROKEN:
            yield Row(number, {}, "the file breaks off here")
            return
        if not line:
            return
        if len(line) >= WIDEST:
            yield _too_wide(number, line)
        elif line.strip():
            yield _object(number, line.rstrip("\r\n"), known)


def _object(number: int, line: str, known: Callable[[Collection[str]], object]) -> Row:
    try:
        fields = {name: _text(value) for name, value in json.loads(line).items()}
    except (ValueError, AttributeError, RecursionError):
        return Row(number, {}, "no JSON object", [line])
    odd = not (fields.get(ADDRESS) or known(fields)) or any(_odd(value) for value in fields.values())
    return Row(number, fields, "no 'address', or not UTF-8" if odd else None, [line])


def _text(value: object) -> str:
    """Return a value as it would stand in a CSV, so that nothing is passed over for not being text: null is an empty field."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _odd(value: str) -> bool:
    return "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value))


def refused(row: Row, reason: str, columns: Sequence[str]) -> bytes:
    """Return the line of a row that was refused, as it came, with ``row`` and ``reason``: CSV, or NDJSON where there are no columns."""
    return (_csv(row, reason, columns) if columns else _ndjson(row, reason)).encode("utf-8", "surrogateescape")


def refused_head(columns: Sequence[str]) -> bytes:
    """Return what stands above those lines."""
    return _spelled([*columns, "row", "reason"]).encode("utf-8", "surrogateescape") if columns else b""


class Rejects(AbstractContextManager["Rejects"]):
    """Writes lines about rows that were refused, each with its number and the reason, under a head.

    It is begun with the first of them, and there once the block has ended well: whoever is broken off leaves none, and whoever does it
    again writes all of it. Raises Misconfigured if it cannot be made.
    """

    def __init__(self, path: Path, head: bytes) -> None:
        self.path = path
        self.count = 0
        self._head = head
        self._file: BinaryIO | None = None
        self._whole = ExitStack()

    def add(self, line: bytes) -> None:
        if self._file is None:
            self._file = self._whole.enter_context(files.whole(self.path))
            self._file.write(self._head)
        self._file.write(line)
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._whole.__exit__(kind, error, trace)


def quoted(value: str) -> bytes:
    """Return a value of one line as a field of a CSV."""
    return b'"' + value.replace('"', '""').encode() + b'"' if "," in value or '"' in value else value.encode()


def _spelled(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _csv(row: Row, reason: str, columns: Sequence[str]) -> str:
    """Spell a row under the header, whatever its length; what it has more of stands behind."""
    wide = len(columns)
    missing = [""] * (wide - len(row.came))
    return _spelled([*row.came[:wide], *missing, row.number, reason, *row.came[wide:]])


def _ndjson(row: Row, reason: str) -> str:
    line = "".join(row.came)
    more: dict[str, str | int] = {"row": row.number, "reason": reason}
    spelled = beside(line, row.fields, more) if row.fields else json.dumps({"line": line, **more}, ensure_ascii=False)
    return (spelled if row.wrong is None else _escaped(spelled)) + "\n"


def beside(line: str, names: Collection[str], more: Mapping[str, str | int]) -> str:
    """Return a JSON object of these names with further members, in the places of those that are called as they are.

    All else stays as it came: spelled anew, ``1e400`` would be ``Infinity``, which is no JSON, and a long number another one.
    """
    if more.keys().isdisjoint(names):
        members = [line.strip()[1:-1].strip()] if names else []
    else:
        members = [spelled for name, spelled in _members(line) if name not in more]
    return "{" + ", ".join([*members, json.dumps(more)[1:-1]]) + "}"


def _members(line: str) -> Iterator[tuple[str, str]]:
    """Give the members of what is known to be a JSON object: each by its name, and as it is spelled."""
    end = line.index("{") + 1
    while (found := _SAYING.search(line, end)) and found[0] == '"':
        name, end = _DECODER.raw_decode(line, found.start())
        if value := _SAYING.search(line, end):
            _, end = _DECODER.raw_decode(line, value.start())
        yield name, line[found.start() : end]


def _escaped(spelled: str) -> str:
    """Return JSON in ASCII: nothing else can say what is not UTF-8."""
    return _BEYOND.sub(lambda found: json.dumps(found[0])[1:-1], spelled)
