"""One field at a time of what anyone may have written: texts, moments, status codes. Nothing here raises."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime

EARLIEST = datetime(2009, 7, 1, tzinfo=UTC)  # no provider of today can have told anything before
NO_SUCH_MAILBOX = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})  # RFC 3463 §3.2, RFC 7505: the address itself is bad
LONGEST_NAME = 100  # letters of an id that is taken as it stands

_DIGITS = re.compile(r"[0-9]{1,18}")
_STATUS = re.compile(r"(?<![0-9.])[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.]*[0-9])")


def text(value: object) -> str | None:
    """Return a text that says something, as it came; None for every other value."""
    return value if isinstance(value, str) and value.strip() else None


def within(value: object, *names: str) -> object:
    """Return what stands under these names, each within the one before; None where one of them is missing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def name_of(given: object, *facts: object) -> str:
    """Return the event's own name, or one that every repetition of the same facts gets as well."""
    if isinstance(given, str) and 0 < len(given) <= LONGEST_NAME:
        return given
    return f"sha256-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}"


def moment(seconds: object, received_at: datetime) -> datetime:
    """Return the moment of a number of Unix seconds, also as text. One that is none, too old or after now is the time of receipt."""
    if isinstance(seconds, str) and _DIGITS.fullmatch(seconds):
        seconds = int(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return received_at
    if not EARLIEST.timestamp() <= seconds <= received_at.timestamp():
        return received_at
    return datetime.fromtimestamp(seconds, UTC)


def instant(written: object, received_at: datetime) -> datetime:
    """Return the moment of an ISO 8601 time with its zone. One that is none, too old or after now is the time of receipt."""
    found = dated(written)
    return found if found and EARLIEST <= found <= received_at else received_at


def dated(written: object) -> datetime | None:
    """Return the moment of an ISO 8601 time with its zone, in UTC; None for every other value."""
    try:
        found = datetime.fromisoformat(written) if isinstance(written, str) else None
        return found.astimezone(UTC) if found and found.tzinfo else None
    except (ValueError, OverflowError):  # OverflowError: a moment before the first year in UTC
        return None


def status(answer: object) -> str:
    """Return the first enhanced status code (RFC 3463) in a mail server's answer, "" without one. Never any other of its words."""
    found = _STATUS.search(answer) if isinstance(answer, str) else None
    return found[0] if found else ""
