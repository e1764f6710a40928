"""Strict JSON and forms from bytes that anyone may have written. One poison element never costs its neighbours.

Refused in JSON: NaN and Infinity, a key twice in one object, ``\\u0000``, a lone surrogate, a byte that is not UTF-8, a byte order mark,
more than 200 levels, an integer of more than 4,300 digits. Nothing here recurses over its input.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from jiter import from_json

from mailprefs.errors import Unreadable

_SPACE = b" \t\r\n"
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # escaped by an odd number of backslashes; no other spelling decodes to NUL
# No group is repeated possessively, single characters alone: Python up to 3.11.4, which Debian 12 has, misreads the others (gh-106052).
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_TOKEN = re.compile(rb'%b|[][{},"]' % _STRING, re.DOTALL)  # a lone quote is a string that never ends
_MEMBER = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*)"[ \t\r\n]*+:[ \t\r\n]*+(.*+)', re.DOTALL)
_ARRAY = re.compile(rb"[ \t\r\n]*+\[")
_FLAT = rb'\{[^"{}\[\]]*+(?:%b[^"{}\[\]]*+)*\}' % _STRING
_ENTRIES = re.compile(rb"(?:[ \t\r\n]*+%b[ \t\r\n]*+,)*" % _FLAT, re.DOTALL)  # of flat objects
_STRINGS = re.compile(rb"(?:[ \t\r\n]*+%b[ \t\r\n]*+,)*" % _STRING, re.DOTALL)
GLANCE = 1 << 14  # bytes at the beginning of a body: some dozen elements
LONGEST = 1 << 20  # bytes that one element of a streamed array may take, with the space around it


def value(body: bytes) -> Any:
    """Return the one JSON value that the body is. Raises Unreadable, whose text says nothing of the body."""
    if b"\\" in body and b"\\u000" in body and _NUL.search(body):  # the first two are quick, and nearly always enough
        raise Unreadable("The JSON holds a NUL.")  # jiter takes it, PostgreSQL does not (SQLSTATE 22021, 22P05)
    try:
        return from_json(body, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=True)
    except ValueError:
        raise Unreadable("The JSON is not strict.") from None  # jiter's own text may quote a key


def member(text: object, name: str) -> Any:
    """Return what stands under a name in a text that is a JSON object, such as a custom field of ours; None in anything else."""
    try:
        found = value(text.encode()) if isinstance(text, str) and text.lstrip()[:1] == "{" else None
    except (Unreadable, UnicodeEncodeError):
        return None
    return found.get(name) if isinstance(found, dict) else None


def members(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the members of the one JSON object that the body should be: name and value as they came, however broken a value is."""
    whole = body.strip(_SPACE)
    if whole[:1] != b"{":
        return []
    pieces, rest = cut(b"[" + (whole[1:-1] + b"]" if whole[-1:] == b"}" else whole[1:]))
    return [(found[1], found[2]) for piece in (*pieces, rest) if (found := _MEMBER.match(piece))]


@dataclass(slots=True)
class Batch:
    """A JSON array, read: the values that could be, in their order, and aside what could not."""

    values: list[Any]
    aside: list[tuple[str, bytes]] = field(default_factory=list)  # why not, in a fixed word, and its bytes
    whole: bytes = b""
    pieces: list[bytes] | None = None  # the bytes of each value; found when they are first asked for
    passed: Counter[str] = field(default_factory=Counter)  # those that were only counted, by their word

    def raw(self, n: int) -> bytes:
        """Return the bytes of the n-th value, as they came."""
        if self.pieces is None:
            self.pieces, _ = cut(self.whole)
        return self.pieces[n]

    def apart(self, parts: Callable[[Any], Iterable[Any]]) -> Batch:
        """Return it with each value in its parts, every part with the bytes of the whole value."""
        found = [(part, self.raw(n)) for n, value in enumerate(self.values) for part in parts(value)]
        return Batch([part for part, _ in found], self.aside, pieces=[raw for _, raw in found])


class Passing:
    """Elements that are only counted: objects with one of these words under this name."""

    def __init__(self, name: str, words: Iterable[str]) -> None:
        self.name, self.words = name, frozenset(word.encode() for word in words)
        self.said = re.compile(rb'"%b(?=")(?:":"([a-z_]+)")?' % name.encode())  # each place where the name stands, with its word


def batch(body: bytes, passing: Passing | None = None) -> Batch:
    """Read a body that should be one JSON array. Never raises: what is no array is kept whole, what is no element is kept alone.

    Nothing but the word is read of elements that are ``passing``, where they are plain to see: they may be nine in ten.
    """
    if passing and (sifted := _sifted(body, passing)):
        return sifted
    try:
        found = value(body)
    except Unreadable:
        return _salvage(body)
    return Batch(found, whole=body) if isinstance(found, list) else Batch([], [("no_array", body)])


def _sifted(body: bytes, passing: Passing) -> Batch | None:
    """Count what is passing in an array of objects and read the rest; None where that is more than a quarter, or half of those at the
    beginning, for then it is not worth while; or where all is not as it looks.

    The name must stand in the body as often as there are objects, so that the n-th is the n-th one's: each that is read is asked whether
    it is so. A word that is not passing is therefore never passed over. Nobody can spell the name otherwise without an escape.
    """
    whole = body.strip(_SPACE)
    if whole[:2] != b"[{" or whole[-2:] != b"}]" or (b"\\" in whole and b"\\u00" in whole):
        return None
    glanced = passing.said.findall(whole, 0, GLANCE)
    if sum(word in passing.words for word in glanced) * 2 < len(glanced):
        return None
    words, pieces = passing.said.findall(whole), whole[2:-2].split(b"},{")
    left = [n for n, word in enumerate(words) if word not in passing.words]
    if len(words) != len(pieces) or len(left) * 4 > len(words):
        return None
    raw = [b"{%b}" % pieces[n] for n in left]
    try:
        values = [value(each) for each in raw]
    except Unreadable:
        return None
    if any(each.get(passing.name) != words[n].decode() for n, each in zip(left, values, strict=True)):
        return None
    passed = Counter({word.decode(): times for word, times in Counter(words).items() if word in passing.words})
    return Batch(values, [], body, raw, passed)


def one_or_more(body: bytes) -> Batch:
    """Read a body that should be one JSON value, or one array of them, as ``batch`` does. Never raises."""
    if body.lstrip(_SPACE)[:1] == b"[":
        return batch(body)
    try:
        return Batch([value(body)], whole=body, pieces=[body])
    except Unreadable:
        return Batch([], [("unreadable", body)])


def under(name: str, body: bytes) -> Batch:
    """Read the array that should stand under a name of the one JSON object that the body is, as ``batch`` does. Never raises."""
    start = _start(b'"%b"' % name.encode(), body)
    if start is None:
        return Batch([], [("no_array", body)])
    try:
        return Batch(value(body)[name], whole=body[start:])
    except Unreadable:
        pieces, rest = cut(body[start:])
    found = _each(pieces, body[start:])
    hull = body[:start] + b"[]" + rest
    try:
        value(hull)
    except Unreadable:
        found.aside.append(("unreadable", hull))
    return found


def _start(name: bytes, body: bytes) -> int | None:
    """Return where the array of that name begins; None where the object has none, as far as it can be read."""
    depth, colon = _Depth(), re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\[)")
    for found in _TOKEN.finditer(body) if body.lstrip(_SPACE)[:1] == b"{" else ():
        token = body[found.start()]
        if token not in b'",':
            depth.step(token)
        elif depth.open == [0x7B] and found[0] == name and (array := colon.match(body, found.end())):
            return array.end()
    return None


def _salvage(body: bytes) -> Batch:
    """Read an array element by element, after it could not be read in one."""
    if body.lstrip(_SPACE)[:1] != b"[":
        return Batch([], [("no_array", body)])
    pieces, rest = cut(body)
    found = _each(pieces, body)
    if rest or not found.aside:
        found.aside.append(("unreadable", rest or body))  # no element was at fault: the array itself is, and that is not passed over
    return found


def _each(pieces: list[bytes], whole: bytes) -> Batch:
    found = Batch([], [], whole, [])
    sound: list[bytes] = []
    for piece in pieces:
        try:
            found.values.append(value(piece))
            sound.append(piece)
        except Unreadable:
            found.aside.append(("unreadable", piece))
    found.pieces = sound
    return found


class _Depth:
    """How deep a scan stands in an array. A bracket that closes nothing is passed over, so a broken element ends where it should."""

    __slots__ = ("braces", "open", "squares")

    def __init__(self) -> None:
        self.open: list[int] = []  # the brackets that stand open inside the array
        self.braces = self.squares = 0

    def step(self, bracket: int) -> None:
        if bracket == 0x7B:  # {
            self.open.append(bracket)
            self.braces += 1
        elif bracket == 0x5B:  # [
            self.open.append(bracket)
            self.squares += 1
        elif bracket == 0x7D and self.braces:
            self._back_to(0x7B)
        elif bracket == 0x5D and self.squares:
            self._back_to(0x5B)

    def _back_to(self, opener: int) -> None:
        while True:
            last = self.open.pop()
            if last == 0x7B:
                self.braces -= 1
            else:
                self.squares -= 1
            if last == opener:
                return


def cut(body: bytes) -> tuple[list[bytes], bytes]:
    """Cut an array into the bytes of its elements, and the rest: an element that never ends, or what follows the array."""
    start = body.index(b"[") + 1
    pieces: list[bytes] = []
    depth = _Depth()
    for found in _TOKEN.finditer(body, start):
        token = body[found.start()]
        if token == 0x22:  # "
            if found.end() - found.start() == 1:
                break  # the string never ends; to look on behind it would take the square of its length
        elif depth.open:
            depth.step(token)
        elif token == 0x2C:  # ,
            pieces.append(body[start : found.start()].strip(_SPACE))
            start = found.end()
        elif token == 0x5D:  # ]
            last = body[start : found.start()].strip(_SPACE)
            return pieces + [last] * bool(last or pieces), body[found.end() :].strip(_SPACE)
        else:
            depth.step(token)
    return pieces, body[start:].strip(_SPACE)


async def strings(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the strings of one JSON array while it arrives; memory stays flat. Raises Unreadable, at the latest at its end."""
    async for text in _elements(chunks, _ARRAY, _STRINGS, lambda rest: value(b"[" + rest)):
        if not isinstance(text, str):
            raise Unreadable("The array holds something other than strings.")
        yield text


async def entries(chunks: AsyncIterator[bytes], name: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects of the array that comes first, under a name, in one JSON object, as ``strings`` does."""
    key = b'"%b"' % name.encode()
    opening = re.compile(rb"[ \t\r\n]*+\{[ \t\r\n]*+%b[ \t\r\n]*+:[ \t\r\n]*+\[" % re.escape(key))
    async for entry in _elements(chunks, opening, _ENTRIES, lambda rest: value(b"{%b:[%b" % (key, rest))[name]):
        if not isinstance(entry, dict):
            raise Unreadable("The array holds something other than objects.")
        yield entry


async def _elements(
    chunks: AsyncIterator[bytes], opening: re.Pattern[bytes], some: re.Pattern[bytes], ending: Callable[[bytes], list[Any]]
) -> AsyncIterator[Any]:
    """Yield the elements of an array behind its opening: ``some`` finds whole ones with their commas, ``ending`` reads the last ones."""
    rest, opened, comma = b"", False, False
    async for chunk in chunks:
        rest += chunk
        if not opened and (found := opening.match(rest)):
            opened, rest = True, rest[found.end() :]
        if opened and (found := some.match(rest)) and (end := found.end()):
            for element in value(b"[" + rest[:end].rstrip(_SPACE)[:-1] + b"]"):
                yield element
            rest, comma = rest[end:], True
        if len(rest) > LONGEST:
            raise Unreadable("An element of the array is too long.")
    if not opened:
        raise Unreadable("That is no array.")
    last = ending(rest)
    if comma and not last:
        raise Unreadable("The array ends in a comma.")
    for element in last:
        yield element


FIELDS = 1_000  # of one form
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BOUNDARY = re.compile(r""";[ \t]*boundary=("?)([0-9A-Za-z'()+_,./:=?-]{1,200})\1[ \t]*(?:;|\Z)""", re.IGNORECASE)  # RFC 2046 §5.1.1
_NAMED = re.compile(rb'\r\nContent-Disposition:[ \t]*form-data;[ \t]*name="([^"\r\n]*)"(;[ \t]*filename\*?=)?', re.IGNORECASE)


def form(body: bytes, content_type: str | None) -> list[tuple[str, str]]:
    """Return the fields of a form in their order, with blank ones and repeats. Raises Unreadable for what is not UTF-8, or holds a NUL."""
    fields = octets(body, content_type)
    if any(b"\0" in name or b"\0" in text for name, text in fields):
        raise Unreadable("The form holds a NUL.")  # PostgreSQL does not take it (SQLSTATE 22021)
    try:
        return [(name.decode(), text.decode()) for name, text in fields]
    except UnicodeDecodeError:
        raise Unreadable("The form is not UTF-8.") from None


def octets(body: bytes, content_type: str | None) -> list[tuple[bytes, bytes]]:
    """Return the fields of a form as ``form`` does, in bytes of any kind: one that is poison does not hide the others from a verifier.

    Reads ``application/x-www-form-urlencoded``, and ``multipart/form-data`` without its files, of up to 1,000 fields. Raises Unreadable.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return _urlencoded(body)
    boundary = _BOUNDARY.search(content_type or "")
    if kind == "multipart/form-data" and boundary:
        return [field for part in _parts(body, boundary[2].encode()) if (field := _field(part))]
    raise Unreadable("That is no form.")


def _urlencoded(body: bytes) -> list[tuple[bytes, bytes]]:
    if _BROKEN_ESCAPE.search(body):
        raise Unreadable("An escape of the form is broken.")  # the standard library would leave it as it stands
    text, strict = body.decode("latin-1"), bool(body)
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=strict, encoding="latin-1", max_num_fields=FIELDS)
    except ValueError:
        raise Unreadable("The form is not strict.") from None
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def _parts(body: bytes, boundary: bytes) -> list[bytes]:
    """Cut a multipart form into its parts, each from the line end behind its boundary on (RFC 7578)."""
    before, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary, FIELDS + 2)
    if before or not parts or parts.pop().removesuffix(b"\r\n") != b"--" or len(parts) > FIELDS:
        raise Unreadable("The form is not whole.")
    return parts


def _field(part: bytes) -> tuple[bytes, bytes] | None:
    """Return a part's name and text; None for a file."""
    head, blank, text = part.partition(b"\r\n\r\n")
    named = _NAMED.search(head)
    if not blank or not head.startswith(b"\r\n") or not named:
        raise Unreadable("A part of the form has no name.")
    return None if named[2] else (named[1], text)
