"""Sealed facts: whoever alters one, or signs with another key, is found out."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from datetime import date
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mailprefs import seals
from mailprefs.errors import Forged, Unreadable
from mailprefs.links import KeyRing

FACTS: dict[str, Any] = {"b": 1, "a": "é", "c": {"y": None, "x": [1, 2]}}


def test_what_was_sealed_holds_whatever_the_order_of_its_keys(ring: KeyRing) -> None:
    sealed = seals.sealed(ring, FACTS)
    seals.check(seals.public(ring), sealed)
    seals.check(seals.public(ring), dict(reversed(json.loads(json.dumps(sealed)).items())))


@pytest.mark.parametrize("altered", [{"b": 2}, {"b": "1"}, {"d": 1}, {"c": {}}, {"signature": ""}, {"signature": None}, {"signature": "é"}])
def test_what_was_altered_does_not_hold(ring: KeyRing, altered: dict[str, Any]) -> None:
    with pytest.raises(Forged):
        seals.check(seals.public(ring), {**seals.sealed(ring, FACTS), **altered})


def test_another_key_does_not_hold(ring: KeyRing) -> None:
    with pytest.raises(Forged):
        seals.check(seals.public(KeyRing.new(date(2026, 11, 22))), seals.sealed(ring, FACTS))
    for odd in ("", "x", "é", b64encode(b"x" * 31).decode()):
        with pytest.raises(Unreadable):
            seals.check(odd, seals.sealed(ring, FACTS))


def test_the_signature_is_plain_ed25519_over_bytes_that_anybody_can_write(ring: KeyRing) -> None:
    """What docs/audiences.md says, so that a check needs nothing of ours."""
    sealed = seals.sealed(ring, FACTS)
    key = Ed25519PublicKey.from_public_bytes(b64decode(seals.public(ring)))
    key.verify(b64decode(sealed["signature"]), 'mailprefs/seal/1\n{"a":"é","b":1,"c":{"x":[1,2],"y":null}}'.encode())
