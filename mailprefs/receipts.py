"""A receipt for who pressed: what was stopped and when, signed, so that anybody can check it with our public key."""

from __future__ import annotations

import hashlib
import json
from base64 import b32encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mailprefs import seals
from mailprefs.errors import Unreadable
from mailprefs.links import KeyRing
from mailprefs.words import Address

KIND = "mailprefs receipt 1"
LONGEST = 4096  # bytes of what is read as one


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a recipient keeps. It names scopes by their numbers and the person by the key of the link: no title, no address."""

    number: str  # "7F3K-92QD-4MVX"
    at: datetime
    text: str


def issue(ring: KeyRing, address: Address, scopes: Sequence[int], at: datetime) -> Receipt:
    """Return the receipt of a press, the same for the same press."""
    at = at.astimezone(UTC)
    facts = {"receipt": KIND, "stopped": sorted(scopes), "of": address.key.hex, "at": at.isoformat(timespec="seconds")}
    return Receipt(_number(facts), at, json.dumps(seals.sealed(ring, {**facts, "number": _number(facts)}), indent=1))


def read(public: str, text: str) -> Mapping[str, Any]:
    """Return what a receipt says. Raises Unreadable for what is none, Forged unless every word of it is ours."""
    if len(text) > LONGEST:
        raise Unreadable("that is no receipt: it is too long")
    try:
        facts = seals.read(text)
    except (ValueError, RecursionError):
        raise Unreadable("that is no receipt: a receipt is the text between { and }, in full") from None
    if not isinstance(facts, dict) or facts.get("receipt") != KIND:
        raise Unreadable("that is no receipt: a receipt is the text between { and }, in full")
    seals.check(public, facts)
    return facts


def _number(facts: Mapping[str, Any]) -> str:
    digest = b32encode(hashlib.sha256(seals.spelt(facts)).digest()).decode()[:12]
    return "-".join(digest[n : n + 4] for n in range(0, 12, 4))
