"""Signatures: bytes in, nothing or Forged out."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mailprefs.errors import Forged, Unreadable
from mailprefs.providers import signing

from .cases import PAYLOADS

VECTOR = json.loads((PAYLOADS / "sendgrid" / "vector.json").read_bytes())
BODY = (PAYLOADS / "sendgrid" / "vector.body").read_bytes()
KEY, SIGNATURE, TIMESTAMP = VECTOR["webhook_key"], VECTOR["signature"], VECTOR["timestamp"].encode()
# From the same vectors: a key and a signature of something else.
OTHER_KEY = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqTxd43gyp8IOEto2LdIfjRQrIbsd4SXZkLW6jDutdhXSJCWHw8REntlo7aNDthvj+y7GjUuFDb/R1NGe1OPzpA=="
OTHER_SIGNATURE = "MEUCIQCtIHJeH93Y+qpYeWrySphQgpNGNr/U+UyUlBkU6n7RAwIgJTz2C+8a8xonZGi6BpSzoQsbVRamr2nlxFDWYNH3j/0="


def spelt(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def test_the_published_vector_holds() -> None:
    assert BODY.endswith(b"\r\n")
    signing.ecdsa_p256([KEY], SIGNATURE, TIMESTAMP, BODY)
    signing.ecdsa_p256([KEY], SIGNATURE, TIMESTAMP + BODY)  # nothing stands between the parts
    signing.ecdsa_p256([OTHER_KEY, KEY], SIGNATURE, TIMESTAMP, BODY)


@pytest.mark.parametrize(
    ("keys", "signature", "parts"),
    [
        ([OTHER_KEY], SIGNATURE, (TIMESTAMP, BODY)),
        ([KEY], OTHER_SIGNATURE, (TIMESTAMP, BODY)),
        ([KEY], SIGNATURE, (TIMESTAMP, BODY.rstrip())),
        ([KEY], SIGNATURE, (b"timestamp", BODY)),
        ([KEY], SIGNATURE, (b"payload",)),
        ([KEY], None, (TIMESTAMP, BODY)),
        ([], SIGNATURE, (TIMESTAMP, BODY)),
        (["", "x", "AAAA"], SIGNATURE, (TIMESTAMP, BODY)),
    ],
    ids=["other key", "other signature", "line end lost", "other time", "other body", "none", "no key", "broken keys"],
)
def test_anything_else_than_the_vector_is_forged(keys: list[str], signature: str | None, parts: tuple[bytes, ...]) -> None:
    with pytest.raises(Forged):
        signing.ecdsa_p256(keys, signature, *parts)


def test_a_p256_key_is_the_only_key() -> None:
    signing.p256_key(spelt(ec.generate_private_key(ec.SECP256R1()).public_key()))
    off_the_curve = base64.b64encode(base64.b64decode(KEY)[:-1] + b"\x00").decode()
    for strange in (
        spelt(ec.generate_private_key(ec.SECP384R1()).public_key()),
        spelt(ec.generate_private_key(ec.SECP256K1()).public_key()),
        spelt(rsa.generate_private_key(65537, 2048).public_key()),
        spelt(ed25519.Ed25519PrivateKey.generate().public_key()),
        off_the_curve,
        KEY[:-4],
        KEY + "\n",
        "",
    ):
        with pytest.raises(Unreadable):
            signing.p256_key(strange)


def test_a_key_is_parsed_once() -> None:
    before = signing.p256_key.cache_info().misses
    fresh = spelt(ec.generate_private_key(ec.SECP256R1()).public_key())
    assert signing.p256_key(fresh) is signing.p256_key(fresh)
    assert signing.p256_key.cache_info().misses == before + 1


@given(spelling=st.binary(max_size=40))
def test_base64_has_one_spelling(spelling: bytes) -> None:
    canonical = base64.b64encode(spelling).decode()
    assert signing.base64(canonical) == spelling
    for other in (canonical + "=", canonical + "\n", " " + canonical, canonical.rstrip("=") if "=" in canonical else canonical + "A"):
        with pytest.raises(Unreadable):
            signing.base64(other)


@pytest.mark.parametrize("text", ["QQ==", "QUI="])
def test_unused_bits_of_base64_are_no_second_spelling(text: str) -> None:
    at = text.index("=") - 1
    other = text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :]
    assert base64.b64decode(other) == base64.b64decode(text)  # the control: others take it
    assert signing.base64(text)
    with pytest.raises(Unreadable):
        signing.base64(other)


@given(text=st.text(max_size=40))
def test_whatever_text_is_no_base64_is_unreadable_and_no_more(text: str) -> None:
    with suppress(Unreadable):
        assert base64.b64encode(signing.base64(text)).decode() == text
