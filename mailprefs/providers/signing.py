"""Signatures of deliveries: bytes in, nothing or Forged out. Whatever the headers hold, nothing else is raised."""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mailprefs.errors import Forged, Unreadable

_ALGORITHM = ECDSA(Prehashed(SHA256()))


def base64(text: str) -> bytes:
    """Return what base64 text spells. Raises Unreadable for every spelling but the one canonical."""
    try:
        ascii_text = text.encode("ascii")
        spelt = b64decode(ascii_text, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise Unreadable("That is not base64.") from None
    if b64encode(spelt) != ascii_text:  # the unused bits of the last letter are not zero: a second spelling of the same bytes
        raise Unreadable("That is not canonical base64.")
    return spelt


@lru_cache(maxsize=256)
def p256_key(text: str) -> EllipticCurvePublicKey:
    """Return the P-256 public key that base64 of DER (SubjectPublicKeyInfo, without armour) holds. Raises Unreadable."""
    try:
        key = load_der_public_key(base64(text))
    except (ValueError, UnsupportedAlgorithm):
        raise Unreadable("That is not a public key.") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise Unreadable("That is not a P-256 key.")
    return key


def ecdsa_p256(keys: Iterable[str], signature: str | None, *signed: bytes) -> None:
    """Raise Forged unless one of the keys made the signature (base64 of DER) over the signed parts, one after the other."""
    digest = hashlib.sha256()
    for part in signed:
        digest.update(part)  # a batch of megabytes is not copied to be joined
    if not any(_made_by(key, signature or "", digest.digest()) for key in keys):
        raise Forged


def _made_by(key: str, signature: str, digest: bytes) -> bool:
    try:
        p256_key(key).verify(base64(signature), digest, _ALGORITHM)
    except (InvalidSignature, Unreadable):
        return False
    return True
