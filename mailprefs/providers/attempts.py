"""One attempt of a sender that keeps to Standard Webhooks, or to Svix, where they come from: of what, when, and signed by whom.

The library ``standardwebhooks`` signs the same (the tests hold both to one another). It is not used to verify: it reads the clock by
itself, refuses a signed body that is not UTF-8 instead of letting it be kept, and raises what it does not document for bad headers.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import new as new_hmac
from typing import ClassVar

from mailprefs.errors import Forged, Unreadable
from mailprefs.providers import samples, signing
from mailprefs.providers.base import Answers, Credential, Delivery
from mailprefs.words import Channel

PREFIXES = ("svix", "webhook")  # of the three headers
TOLERANCE = timedelta(minutes=5)  # each attempt is signed anew: one that is older has been on the way for too long, or is a replay
SECRET, SHORTEST = "webhook_secret", 16  # its name in an account, and the fewest bytes of one
_ID = re.compile(r"[A-Za-z0-9_.:=/+-]{1,256}")  # no brace or quote: no part of a body could pass for the end of it
_SECONDS = re.compile(r"[0-9]{10}")  # from 2001 to 2286
_SIGNATURE = re.compile(r"[A-Za-z0-9]+,[A-Za-z0-9+/=]+")


@dataclass(frozen=True, slots=True)
class Attempted:
    """The half of an ``Ear`` that those share who sign each attempt so. Holds no state."""

    advice: ClassVar[str]  # where the secret is found
    prefix: ClassVar[str]  # of the headers that it sends, one of PREFIXES
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers()
    secrets_in: ClassVar[tuple[str, ...]] = (SECRET,)
    seals: ClassVar[tuple[str, ...]] = tuple(f"{prefix}-signature" for prefix in PREFIXES)

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard."""
        check(credential, self.advice)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the raw bytes were signed for this account."""
        verify(credential, delivery)

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a body, signed with the account's secret; the message's id is made of the body."""
        id_, timestamp = f"msg_{sha256(body).hexdigest()[:27]}", str(samples.unix(at))
        made = signature(key(credential.secrets[SECRET]), id_, timestamp, body)
        headers = {"id": id_, "timestamp": timestamp, "signature": made}
        return samples.posted(body, at, {f"{self.prefix}-{name}": value for name, value in headers.items()})


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the headers of a delivery say; not yet proven."""

    id: str  # of the message: the same in every attempt
    made_at: datetime
    signed: bytes = field(repr=False)  # what stands before the body in what is signed
    signatures: tuple[str, ...] = field(repr=False)

    def on_time(self, received_at: datetime) -> bool:
        """True if the attempt is as old as one can be whose sender signs each anew. What is not may still stop, and nothing else."""
        return abs(received_at - self.made_at) <= TOLERANCE


def of(delivery: Delivery) -> Attempt | None:
    """Return the attempt that a delivery is, None for what is none. Where there are headers of both kinds, those of Svix count."""
    for prefix in PREFIXES:
        headers = [delivery.header(f"{prefix}-{name}") for name in ("id", "timestamp", "signature")]
        if any(headers):
            return _read(*(header or "" for header in headers))
    return None


def _read(id_: str, timestamp: str, signature: str) -> Attempt | None:
    signatures = signature.split(" ")
    if not _ID.fullmatch(id_) or not _SECONDS.fullmatch(timestamp) or not all(map(_SIGNATURE.fullmatch, signatures)):
        return None
    return Attempt(id_, datetime.fromtimestamp(int(timestamp), UTC), _head(id_, timestamp), tuple(signatures))


def _head(id_: str, timestamp: str) -> bytes:
    return f"{id_}.{timestamp}.".encode()


def signature(key: bytes, id_: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a message, as it stands in its header."""
    return f"v1,{_mac(key, _head(id_, timestamp), body)}"


def verify(credential: Credential, delivery: Delivery) -> None:
    """Raise Forged unless one of the account's secrets made one of the signatures. The age is looked at where the body is read.

    A window here would lose opt-outs for good whenever a clock is wrong or a queue stands in between; a replay changes nothing.
    """
    attempt = of(delivery)
    if attempt is None:
        raise Forged
    expected = [f"v1,{_mac(key, attempt.signed, delivery.body)}" for key in _keys(credential)]
    if not any(_is_one(expected, signature) for signature in attempt.signatures):
        raise Forged


def check(credential: Credential, advice: str) -> None:
    """Raise Misconfigured, which ends in the advice, unless the secret is there, and whole, and so is its ``_next`` if that is set."""
    signing.check(credential, SECRET, SHORTEST * 4 // 3, advice)
    for name in (SECRET, f"{SECRET}_next"):
        try:
            key(credential.secrets.get(name) or credential.secrets[SECRET])
        except Unreadable:
            raise credential.wrong(name, "is not one (whsec_ and base64), or only a part of one", advice) from None


def key(secret: str) -> bytes:
    """Return the key that a secret spells: base64, padded or not, behind ``whsec_`` or bare. Raises Unreadable, also for a short one."""
    spelt = secret.removeprefix("whsec_").rstrip("=")
    found = signing.base64(spelt + "=" * (-len(spelt) % 4))
    if len(found) < SHORTEST:
        raise Unreadable("That is too short for a key.")
    return found


def _keys(credential: Credential) -> Iterator[bytes]:
    for secret in credential.valid(SECRET):
        try:
            yield key(secret)
        except Unreadable:
            continue


def _mac(key: bytes, *signed: bytes) -> str:
    mac = new_hmac(key, digestmod="sha256")
    for part in signed:
        mac.update(part)  # a body of megabytes is not copied to be joined
    return b64encode(mac.digest()).decode()


def _is_one(expected: list[str], signature: str) -> bool:
    try:
        signing.word(expected, signature)
    except Forged:
        return False
    return True
