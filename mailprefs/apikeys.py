"""Keys of ``/v1`` and the console: shown once, stored hashed, each for named powers alone."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from mailprefs.db import Connection, queries
from mailprefs.errors import Forged, Misconfigured


class Power(StrEnum):
    """What a key may do."""

    LINKS = "links"
    DECIDE = "decide"
    EXPORT = "export"
    CHANGE = "change"
    PRIVACY = "privacy"
    OPERATE = "operate"


_SPELLING = re.compile(r"mp_([0-9a-f]{8})_([A-Za-z0-9_-]{43})\Z")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that was shown and held."""

    id: str
    powers: frozenset[str]


async def issue(
    connection: Connection, powers: Iterable[Power], label: str, *, now: datetime, expires_at: datetime | None = None
) -> tuple[str, str]:
    """Make a key and return its id and its text, which is never to be had again."""
    if not (wanted := sorted(set(powers))):
        raise Misconfigured(f"a key wants at least one power; there are: {', '.join(Power)}")
    number, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    await queries("apikeys").keep(connection, id=number, digest=_digest(secret), scopes=wanted, label=label, now=now, expires_at=expires_at)
    return number, f"mp_{number}_{secret}"


async def recognise(connection: Connection, text: str, *, now: datetime) -> ApiKey:
    """Return the key that a text is. Raises Forged for an unknown, expired or revoked one alike."""
    found = _SPELLING.match(text)
    row = await queries("apikeys").find(connection, id=found[1], now=now) if found else None
    digest = row["digest"] if row else bytes(32)
    if not hmac.compare_digest(digest, _digest(found[2] if found else "")) or row is None:
        raise Forged("the API key is unknown, expired or revoked")
    return ApiKey(row["id"], frozenset(row["scopes"]))


async def revoke(connection: Connection, number: str, *, now: datetime) -> bool:
    """End a key at once; return whether there was one to end."""
    return bool(await queries("apikeys").revoke(connection, id=number, now=now))


async def every(connection: Connection) -> list[dict[str, Any]]:
    """Return all keys that were ever issued, without their secrets, the newest first."""
    return [dict(row) async for row in queries("apikeys").every(connection)]


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()  # 256 random bits: nothing to stretch
