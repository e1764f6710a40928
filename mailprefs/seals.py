"""What is signed with the key ring's Ed25519 key, so that whoever has the public half can check it without us, offline, for ever."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mailprefs.errors import Forged, Unreadable
from mailprefs.links import KeyRing

SIGNATURE = "signature"
_PREFIX = b"mailprefs/seal/1\n"  # what is signed here can be taken for nothing else that the key may sign


def public(ring: KeyRing) -> str:
    """Return the public half of the key, in base64."""
    return b64encode(_private(ring).public_key().public_bytes_raw()).decode()


def sealed(ring: KeyRing, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with their signature beside them."""
    return {**facts, SIGNATURE: b64encode(_private(ring).sign(signed(facts))).decode()}


def read(text: str | bytes) -> Any:
    """Return what a text says as JSON. Raises ValueError where a word stands twice: a person reads the first, and a program the last."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a word stands twice")
    return dict(pairs)


def check(public: str, facts: Mapping[str, Any]) -> None:
    """Raise Forged unless sealed facts are as they were when the owner of a public key sealed them. Raises Unreadable for no such key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(b64decode(public, validate=True))
    except ValueError:
        raise Unreadable("that is no public key: 32 bytes in base64") from None
    try:
        signature = str(facts.get(SIGNATURE))
        raw = b64decode(signature, validate=True)
        if b64encode(raw).decode() != signature:  # the last letter has bits that say nothing
            raise InvalidSignature
        key.verify(raw, signed(facts))
    except (InvalidSignature, ValueError):
        raise Forged("the signature does not hold: it was altered, or signed with another key") from None


def signed(facts: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed: a line that says what for, then the facts as ``spelt``, without the signature."""
    return _PREFIX + spelt({name: value for name, value in facts.items() if name != SIGNATURE})


def spelt(facts: Mapping[str, Any]) -> bytes:
    """Return facts in their one spelling: JSON with its keys in order, no spaces, in UTF-8. No byte of it says nothing."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _private(ring: KeyRing) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(ring.export)
