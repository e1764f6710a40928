"""Signatures of deliveries: bytes in, nothing or Forged out. Whatever the headers hold, nothing else is raised."""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hmac import compare_digest
from hmac import new as new_hmac
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_private_key

from mailprefs.errors import Forged, Unreadable
from mailprefs.providers.base import Credential

CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": 'Basic realm="mailprefs"'}  # RFC 9110 §11.6.1: some send nothing unasked
BASIC: Mapping[str, int] = {"webhook_user": 3, "webhook_password": 12}  # secret → the fewest letters that it may have
SHORTEST_RSA = 2048  # bits
_ALGORITHM = ECDSA(Prehashed(SHA256()))
_HASHES = {"sha1": SHA1, "sha256": SHA256}  # Amazon SNS still signs with SHA-1 where nobody asked it for more
_BROKEN = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


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


def ecdsa_p256_of(pem: str, *signed: bytes) -> str:
    """Return the signature over the signed parts that ``ecdsa_p256`` takes for this private key. Raises Unreadable for another key."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unreadable("That is no private key in PEM, or one with a password.") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise Unreadable("That is not a P-256 key.")
    return b64encode(key.sign(b"".join(signed), ECDSA(SHA256()))).decode()


def _made_by(key: str, signature: str, digest: bytes) -> bool:
    try:
        p256_key(key).verify(base64(signature), digest, _ALGORITHM)
    except (InvalidSignature, Unreadable):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an X.509 certificate says of an RSA key: whose it is, and from when until when."""

    key: RSAPublicKey
    names: frozenset[str]  # hosts, in lower case
    begins: datetime
    ends: datetime

    def valid(self, at: datetime) -> bool:
        """True if the certificate has begun and not ended. Who issued it is the business of the connection that brought it."""
        return self.begins <= at <= self.ends


def certificate(pem: bytes) -> Certificate:
    """Return what the first certificate in PEM says. Raises Unreadable for every key but RSA of 2,048 bits or more."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        key, names = found.public_key(), frozenset(_names(found))
    except _BROKEN:
        raise Unreadable("That is not a certificate.") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < SHORTEST_RSA:
        raise Unreadable("That is not a certificate of an RSA key.")
    return Certificate(key, names, found.not_valid_before_utc, found.not_valid_after_utc)


def _names(found: x509.Certificate) -> Iterator[str]:
    for name in found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        yield str(name.value).lower()
    try:
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from (name.lower() for name in alternatives.get_values_for_type(x509.DNSName))


def rsa(key: RSAPublicKey, signature: str, *signed: bytes, digest: Literal["sha256", "sha1"]) -> None:
    """Raise Forged unless the key made the signature (PKCS #1 v1.5, base64) over the signed parts, one after the other."""
    hashed = hashlib.new(digest)
    for part in signed:
        hashed.update(part)
    try:
        key.verify(base64(signature), hashed.digest(), PKCS1v15(), Prehashed(_HASHES[digest]()))
    except (InvalidSignature, Unreadable):
        raise Forged from None


def hmac(
    keys: Iterable[str | bytes],
    signature: str | None,
    *signed: bytes,
    digest: Literal["sha256", "sha1"] = "sha256",
    spelling: Literal["hex", "base64"] = "hex",
) -> None:
    """Raise Forged unless one of the keys made the signature (lower-case hex, or base64) over the signed parts, one after the other."""
    hmac_of_any(keys, signature, [signed], digest, spelling)


def hmac_of(key: str, *signed: bytes, digest: Literal["sha256", "sha1"] = "sha256", spelling: Literal["hex", "base64"] = "hex") -> str:
    """Return the signature over the signed parts that ``hmac`` takes for this key."""
    return _spelt(_mac(key, digest, signed), spelling).decode()


def hmac_of_any(
    keys: Iterable[str | bytes],
    signature: str | None,
    readings: Sequence[Iterable[bytes]],
    digest: Literal["sha256", "sha1"] = "sha256",
    spelling: Literal["hex", "base64"] = "hex",
) -> None:
    """Raise Forged unless one of the keys made the signature over one of the readings of what is signed, each in its parts."""
    macs = [_mac(key, digest, signed) for key in keys if key for signed in readings]
    if not _among(signature, [_spelt(mac, spelling) for mac in macs]):
        raise Forged


def _spelt(mac: bytes, spelling: str) -> bytes:
    return mac.hex().encode() if spelling == "hex" else b64encode(mac)


def _mac(key: str | bytes, digest: str, signed: Iterable[bytes]) -> bytes:
    mac = new_hmac(key if isinstance(key, bytes) else _octets(key), digestmod=digest)
    for part in signed:
        mac.update(part)
    return mac.digest()


def basic(credential: Credential, authorization: str | None) -> None:
    """Raise Forged unless the header is HTTP basic authentication with webhook_user and webhook_password (RFC 7617), in its one spelling.

    In a rotation webhook_user_next and webhook_password_next are valid beside them; of the two, what stays may be left out.
    """
    if not _among(authorization, [_basic(pair) for pair in _pairs(credential)]):
        raise Forged


def basic_of(credential: Credential) -> dict[str, str]:
    """Return the header that ``basic`` takes: of the account's first user and password."""
    return {"Authorization": _basic(next(_pairs(credential))).decode()}


def _basic(pair: str) -> bytes:
    return b"Basic " + b64encode(_octets(pair))


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
