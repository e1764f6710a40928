"""What deliveries of our own making have in common: how their bodies are spelt, and how they are posted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlencode

from mailprefs.providers.base import Delivery

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
SUBJECT = "mailprefs hook test"  # what a sample calls the message that was never sent


def spelt(told: object) -> bytes:
    """Return the JSON of a body."""
    return json.dumps(told, separators=(",", ":")).encode()


def form(fields: Mapping[str, str]) -> bytes:
    """Return the form of a body."""
    return urlencode(fields).encode()


def posted(body: bytes, at: datetime, proof: Mapping[str, str], *, kind: str = JSON, query: str = "") -> Delivery:
    """Return the post of a body, with the headers that prove it and what its address has from ``?`` on."""
    return Delivery([("Content-Type", kind), *proof.items()], body, at, url=query)


def iso(at: datetime) -> str:
    """Return a time as most providers write it, in UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unix(at: datetime) -> int:
    """Return a time in whole seconds, rounded down: it is never after now."""
    return int(at.timestamp())
