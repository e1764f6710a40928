"""Signatures of deliveries: bytes in, nothing or Forged out. Whatever the headers hold, nothing else is raised."""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hmac import compare_digest
from hmac import new as new_hmac
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mailprefs.errors import Forged, Unreadable
from mailprefs.providers.base import Credential

CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": 'Basic realm="mailprefs"'}  # RFC 9110 §11.6.1: some send nothing unasked
BASIC: Mapping[str, int] = {"webhook_user": 3, "webhook_password": 12}  # secret → the fewest letters that it may have
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


def hmac(
    keys: Iterable[str | bytes],
    signature: str | None,
    *signed: bytes,
    digest: Literal["sha256", "sha1"] = "sha256",
    spelling: Literal["hex", "base64"] = "hex",
) -> None:
    """Raise Forged unless one of the keys made the signature (lower-case hex, or base64) over the signed parts, one after the other."""
    macs = [_mac(key, digest, signed) for key in keys if key]
    if not _among(signature, [mac.hex().encode() if spelling == "hex" else b64encode(mac) for mac in macs]):
        raise Forged


def _mac(key: str | bytes, digest: str, signed: Iterable[bytes]) -> bytes:
    mac = new_hmac(key if isinstance(key, bytes) else _octets(key), digestmod=digest)
    for part in signed:
        mac.update(part)
    return mac.digest()


def basic(credential: Credential, authorization: str | None) -> None:
    """Raise Forged unless the header is HTTP basic authentication with webhook_user and webhook_password (RFC 7617), in its one spelling.

    In a rotation webhook_user_next and webhook_password_next are valid beside them; of the two, what stays may be left out.
    """
    if not _among(authorization, [b"Basic " + b64encode(_octets(pair)) for pair in _pairs(credential)]):
        raise Forged


def _pairs(credential: Credential) -> Iterator[str]:
    user, password = (credential.secrets.get(name) for name in BASIC)
    user_next, password_next = (credential.secrets.get(f"{name}_next") for name in BASIC)
    for name, word in ((user, password), (user_next or user, password_next or password)):
        if name and word:
            yield f"{name}:{word}"


def check_basic(credential: Credential, advice: str) -> None:
    """Raise Misconfigured, which ends in the advice, unless user and password are there, and whatever is next is sound."""
    for name, shortest in BASIC.items():
        for secret in (name, f"{name}_next"):
            value = credential.needed(secret, shortest, advice) if secret == name or secret in credential.secrets else ""
            if name == "webhook_user" and ":" in value:
                raise credential.wrong(secret, "holds a colon, which would end it", advice)


def bearer(tokens: Iterable[str], authorization: str | None) -> None:
    """Raise Forged unless the header bears one of the tokens (RFC 6750 §2.1), in its one spelling."""
    if not _among(authorization, [b"Bearer " + _octets(token) for token in tokens if token]):
        raise Forged


def word(words: Iterable[str], given: str | None) -> None:
    """Raise Forged unless the text is one of the words, which nobody else knows."""
    if not _among(given, [_octets(each) for each in words if each]):
        raise Forged


def check(credential: Credential, secret: str, shortest: int, advice: str) -> None:
    """Raise Misconfigured, which ends in the advice, unless the secret is there, and so is its ``_next`` if that is set."""
    credential.needed(secret, shortest, advice)
    if f"{secret}_next" in credential.secrets:
        credential.needed(f"{secret}_next", shortest, advice)


def _among(given: str | None, expected: list[bytes]) -> bool:
    """Compare with each in a time that tells nothing of it. Bytes: of text, compare_digest takes ASCII alone and raises for the rest."""
    octets = _octets(given or "")
    same = [compare_digest(octets, each) for each in expected]
    return any(same)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a header may hold anything
