"""A verified delivery that strict reading refuses in part, made readable: for the stops in it alone, never for a go.

Half an emoji at the end of a diagnosis that was cut, a NUL, a key twice: address and kind can be plain all the same, and whoever left
must be stopped. What cannot be read becomes empty, which is no address, no kind, and a group that nobody mapped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
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
_DIGITS = 18  # of an integer that anything is


def with_stops(heard: Heard, again: Heard) -> Heard:
    """Return what was heard, and the stops that were heard in the mended delivery alone. What was kept aside stays aside."""
    known = set(heard.events)
    return replace(heard, events=(*heard.events, *(event for event in again.events if event.kind in STOPS and event not in known)))


def mended(delivery: Delivery) -> Delivery | None:
    """Return a delivery whose values are all readable, in place of one that has others; None if nothing in it could be mended."""
    if delivery.body.lstrip()[:1] in (b"{", b"["):
        body = _body(delivery.body)
        return None if body == delivery.body else replace(delivery, body=body)
    try:
        fields = reading.octets(delivery.body, delivery.header("Content-Type") or _FORM)
    except Unreadable:
        return None
    found = [(name, _field(text)) for name, text in fields]
    if found == fields:
        return None
    headers = [(name, value) for name, value in delivery.headers if name.lower() != "content-type"]
    return replace(delivery, body=urlencode(found).encode(), headers=[*headers, ("Content-Type", _FORM)])


def _field(text: bytes) -> bytes:
    if text[:1] in (b"{", b"["):
        return _body(text)
    return b"" if _UNSOUND.search(text.decode("utf-8", "surrogateescape")) else text


def _body(body: bytes) -> bytes:
    whole = _json(body)
    return _batch(body) if whole is body and body.lstrip()[:1] == b"[" else whole


def _json(body: bytes, inner: bool = True) -> bytes:
    """Return JSON whose values are all readable, as far as its brackets are whole; the same bytes if they are already."""
    try:
        read = _read(body, inner)
        return body if read is None else json.dumps(read).encode()
    except (ValueError, RecursionError):
        return body


def _batch(body: bytes) -> bytes:
    """Mend each element of an array on its own, so that one whose brackets are broken costs no other."""
    pieces, rest = reading.cut(body)
    found = [_json(piece) for piece in pieces]
    return body if found == pieces else b"[" + b",".join(found) + b"]" + rest


def _read(body: bytes, inner: bool) -> Any:
    """Return the value with what cannot be read made empty; None if there is nothing of the kind. Raises ValueError, RecursionError."""
    try:
        strict = reading.value(body)
    except Unreadable:
        text = body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        found = json.loads(text, strict=False, object_pairs_hook=_members, parse_constant=_none, parse_int=_int, parse_float=_float)
        return _sound(found, inner)
    sound = _sound(strict, inner)
    return None if sound == strict else sound


def _sound(value: Any, inner: bool) -> Any:
    """Return a value whose texts can all be stored. A text that is JSON itself is mended inside, as SNS writes its message; once."""
    if isinstance(value, dict):
        return {name: _sound(each, inner) for name, each in value.items()}
    if isinstance(value, list):
        return [_sound(each, inner) for each in value]
    if not isinstance(value, str):
        return value
    if inner and value[:1] in ("{", "["):
        value = _json(value.encode("utf-8", "surrogatepass"), inner=False).decode("utf-8", "surrogatepass")
    return EMPTY if _UNSOUND.search(value) else value


def _members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. A key that stands twice says nothing, unless it says the same."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if not _UNSOUND.search(name):
            found[name] = EMPTY if found.get(name, value) != value else value
    return found


def _none(_constant: str) -> str:
    return EMPTY  # NaN and the infinities


def _int(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else EMPTY


def _float(digits: str) -> float | str:
    return number if isfinite(number := float(digits)) else EMPTY
