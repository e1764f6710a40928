"""A verified delivery that strict reading refuses in part, made readable: for the stops in it alone, never for a go.

Half an emoji at the end of a diagnosis that was cut, a NUL, a key twice: address and kind can be plain all the same, and whoever left
must be stopped. What cannot be read becomes empty, which is no address, no kind, and a group that nobody mapped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any
from urllib.parse import urlencode

from mailprefs.errors import Unreadable
from mailprefs.providers import reading
from mailprefs.providers.base import Delivery, Heard
from mailprefs.words import Kind

STOPS = frozenset({Kind.UNSUBSCRIBED, Kind.COMPLAINED, Kind.BOUNCED_HARD})
EMPTY = ""

_FORM = "application/x-www-form-urlencoded"
_UNSOUND = re.compile("[\0\ud800-\udfff]")  # what PostgreSQL stores in no text
_INNER = re.compile(rb'"(?:[{[]|\\u00[57][bB])')  # a text that begins as JSON does, however its bracket is written
NAMED = 4  # addresses under one key that all stop
_DIGITS = 18  # of an integer that anything is


def with_stops(heard: Heard, again: Heard) -> Heard:
    """Return what was heard, and the stops that were heard in the mended delivery alone. What was kept aside stays aside."""
    known = set(heard.events)
    return replace(heard, events=(*heard.events, *(event for event in again.events if event.kind in STOPS and event not in known)))


def readings(delivery: Delivery) -> list[Delivery]:
    """Return a delivery whose values are all readable, in place of one that has others; none if nothing in it could be mended.

    More than one where a key stands twice with an address each time: one delivery with each of them, for in doubt all of them stop.
    """
    first = _Mender(0)
    body = first.delivery(delivery)
    others = (_Mender(nth).delivery(delivery) for nth in range(1, min(first.named, NAMED)))
    return [each for each in (body, *others) if each]


@dataclass(slots=True)
class _Mender:
    """Makes a delivery readable. Of the addresses under a key that stands twice it reads one, counted from 0."""

    nth: int
    named: int = 1  # the most addresses that stood under one key

    def delivery(self, delivery: Delivery) -> Delivery | None:
        """Return the delivery with all its values readable; None if nothing in it could be mended."""
        if delivery.body.lstrip()[:1] in (b"{", b"["):
            body = self._body(delivery.body)
            return None if body == delivery.body else replace(delivery, body=body)
        try:
            fields = reading.octets(delivery.body, delivery.header("Content-Type") or _FORM)
        except Unreadable:
            return None
        found = [(name, self._field(text)) for name, text in fields]
        if found == fields:
            return None
        headers = [(name, value) for name, value in delivery.headers if name.lower() != "content-type"]
        return replace(delivery, body=urlencode(found).encode(), headers=[*headers, ("Content-Type", _FORM)])

    def _field(self, text: bytes) -> bytes:
        if text[:1] in (b"{", b"["):
            return self._body(text)
        return b"" if _UNSOUND.search(text.decode("utf-8", "surrogateescape")) else text

    def _body(self, body: bytes) -> bytes:
        return self._batch(body) if body.lstrip()[:1] == b"[" else self._json(body)

    def _json(self, body: bytes, inner: bool = True) -> bytes:
        """Return JSON whose values are all readable, as far as its brackets are whole; the same bytes if they are already."""
        try:
            read = self._read(body, inner)
            return body if read is None else json.dumps(read).encode()
        except (ValueError, RecursionError):
            return body

    def _batch(self, body: bytes) -> bytes:
        """Return those elements of an array that could be mended, each on its own; the same bytes if there are none.

        One whose brackets are broken costs no other, and what was read already is not read again.
        """
        if _is_sound(body):
            return body
        pieces, _rest = reading.cut(body)
        found = [again for piece in pieces if (again := self._json(piece)) is not piece]
        return b"[" + b",".join(found) + b"]" if found else body

    def _read(self, body: bytes, inner: bool) -> Any:
        """Return the value with what cannot be read made empty; None if there is nothing of the kind. Raises ValueError, RecursionError."""
        try:
            strict = reading.value(body)
        except Unreadable:
            text = body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
            return self._sound(self._lax(text), inner)
        sound = self._sound(strict, inner) if inner and _INNER.search(body) else strict  # strict reading takes nothing else that is odd
        return None if sound == strict else sound

    def _lax(self, text: str) -> Any:
        return json.loads(text, strict=False, object_pairs_hook=self._members, parse_constant=_none, parse_int=_int, parse_float=_float)

    def _sound(self, value: Any, inner: bool) -> Any:
        """Return a value whose texts can all be stored. A text that is JSON itself is mended inside, as SNS writes its message; once."""
        if isinstance(value, dict):
            return {name: self._sound(each, inner) for name, each in value.items()}
        if isinstance(value, list):
            return [self._sound(each, inner) for each in value]
        if not isinstance(value, str):
            return value
        if inner and value[:1] in ("{", "["):
            value = self._json(value.encode("utf-8", "surrogatepass"), inner=False).decode("utf-8", "surrogatepass")
        return EMPTY if _UNSOUND.search(value) else value

    def _members(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """Return an object. A key that stands twice says nothing, unless it says the same, or names somebody."""
        found: dict[str, list[Any]] = {}
        for name, value in pairs:
            if not _UNSOUND.search(name):
                found.setdefault(name, []).append(value)
        return {name: self._one(values) for name, values in found.items()}

    def _one(self, values: Sequence[Any]) -> Any:
        """Return what all the values are; else the one, of the addresses among them, that this reading reads; else nothing."""
        if all(each == values[0] for each in values):
            return values[0]
        names = list(dict.fromkeys(each for each in values if _names(each)))
        self.named = max(self.named, len(names))
        return names[min(self.nth, len(names) - 1)] if names else EMPTY


def _is_sound(body: bytes) -> bool:
    """True for what strict reading takes, with no JSON in its texts: there is nothing to mend in it."""
    try:
        reading.value(body)
    except Unreadable:
        return False
    return not _INNER.search(body)


def _names(value: Any) -> bool:
    return isinstance(value, str) and ("@" in value or value[:1] == "+") and not _UNSOUND.search(value)


def _none(_constant: str) -> str:
    return EMPTY  # NaN and the infinities


def _int(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else EMPTY


def _float(digits: str) -> float | str:
    return number if isfinite(number := float(digits)) else EMPTY
