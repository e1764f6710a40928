"""The envelope that Amazon SNS puts around a message, its signature, and the certificate that proves it.

Nothing that a message names is ever asked for but the signing certificate, and that only at the one host where the region of an
allowed topic keeps it: whoever can have SNS send us something can write any other address into it (docs/providers/ses.md).
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from aiohttp import ClientError, ClientSession, ClientTimeout

from mailprefs.errors import Forged, Unavailable, Unreadable
from mailprefs.providers import reading, signing
from mailprefs.providers.base import Credential
from mailprefs.providers.signing import Certificate

NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION = "Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"
TOPIC = re.compile(r"arn:aws(?:-cn|-us-gov)?:sns:([a-z]{2}(?:-[a-z]+)+-[0-9]):[0-9]{12}:[A-Za-z0-9_-]{1,256}")
LONGEST = 16_384  # bytes of a certificate; Amazon's take about 2,000
PATIENCE = 5.0  # seconds for a certificate to come: SNS itself waits for 15
HELD, ASKED, A_WHILE = 32, 10, timedelta(minutes=1)  # certificates that are held; how many one account may ask for in a while

_DIGESTS: Mapping[object, Literal["sha1", "sha256"]] = {"1": "sha1", "2": "sha256"}  # by SignatureVersion, a topic's own setting
_TOLD = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_ASKED = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Mapping[object, tuple[tuple[str, ...], ...]] = {  # what is signed, in this order
    NOTIFICATION: (_TOLD,),
    SUBSCRIPTION: (_ASKED,),
    UNSUBSCRIPTION: (_ASKED, _TOLD),  # Amazon's page says the first, its JavaScript validator reads the second: either proves it
}
_CERTIFICATE = re.compile(r"/SimpleNotificationService-[0-9a-f]{32}\.pem")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What came around a message, of an allowed topic; not yet proven."""

    type: str
    id: str  # the same in every repetition
    message: str
    certificate_url: str  # at the one host where it may be
    signature: str
    digest: Literal["sha1", "sha256"]
    signed: tuple[bytes, ...] = field(repr=False)  # one of these was signed


def opened(credential: Credential, body: bytes) -> Envelope:
    """Return the envelope. Raises Forged for one of a topic that the account does not allow, or that names a certificate elsewhere."""
    try:
        told = reading.value(body)
    except Unreadable:
        raise Forged from None  # raw delivery comes to this too: it has no signature at all
    told = told if isinstance(told, dict) else {}
    signed = tuple(text for names in _SIGNED.get(_text(told, "Type"), ()) if (text := _spelt(told, names)))
    digest = _DIGESTS.get(_text(told, "SignatureVersion"))
    place, url = _place(credential, _text(told, "TopicArn")), _text(told, "SigningCertURL")
    if not (signed and digest and place and url.startswith(place) and _CERTIFICATE.fullmatch(url, len(place))):
        raise Forged
    return Envelope(told["Type"], told["MessageId"], told["Message"], url, _text(told, "Signature"), digest, signed)


def subscribe_url(credential: Credential, body: bytes) -> str:
    """Return the address that confirms a subscription, for the operator to follow: the topic's regional host alone. Raises Forged."""
    envelope = opened(credential, body)
    told = reading.value(body)
    place, url = _place(credential, _text(told, "TopicArn")), _text(told, "SubscribeURL")
    if envelope.type != SUBSCRIPTION or not place or not url.startswith(f"{place}/?Action=ConfirmSubscription&"):
        raise Forged("that asks for no confirmation of a subscription of ours")
    return url


def _text(told: Mapping[str, object], name: str) -> str:
    value = told.get(name)
    return value if isinstance(value, str) else ""


def _place(credential: Credential, topic: str) -> str | None:
    """Return where the region of an allowed topic keeps its certificates. The topic is one of ours letter by letter, or none."""
    allowed = credential.options.get("topic_arns")
    found = TOPIC.fullmatch(topic) if isinstance(allowed, list | tuple) and topic in allowed else None
    suffix = "amazonaws.com.cn" if topic.startswith("arn:aws-cn:") else "amazonaws.com"
    return f"https://sns.{found[1]}.{suffix}" if found else None


def _spelt(told: Mapping[str, object], names: tuple[str, ...]) -> bytes | None:
    """Return the text that SNS signs: names and decoded values, line by line. None if one is missing, or could be read in two ways."""
    there = [name for name in names if name != "Subject" or told.get(name) is not None]  # Lambda's null is no subject either
    values = [told.get(name) for name in there]
    if not all(isinstance(value, str) for value in values):
        return None
    if any("\n" in str(value) for name, value in zip(there, values, strict=True) if name != "Message"):
        return None  # a line end in a value could pass for the end of it, and the next line for another field
    return "".join(f"{name}\n{value}\n" for name, value in zip(there, values, strict=True)).encode()


def verify(envelope: Envelope, certificate: Certificate | None) -> None:
    """Raise Forged unless the certificate is there and its key made the signature."""
    if certificate is None:
        raise Forged
    for n, signed in enumerate(envelope.signed, 1):
        try:
            return signing.rsa(certificate.key, envelope.signature, signed, digest=envelope.digest)
        except Forged:
            if n == len(envelope.signed):
                raise
    return None


class Certificates:
    """Signing certificates, each by the address that it was fetched from. Bounded in number and in pace."""

    def __init__(self) -> None:
        self._held: dict[str, Certificate] = {}
        self._asked: defaultdict[str, deque[datetime]] = defaultdict(lambda: deque(maxlen=ASKED))  # when, by account

    def held(self, url: str, at: datetime) -> Certificate | None:
        """Return the certificate of this address if it is held, and valid at this time."""
        found = self._held.get(url)
        return found if found and found.valid(at) else None

    def hold(self, url: str, pem: bytes, at: datetime) -> None:
        """Hold a certificate. Raises Unavailable for one that is no certificate of SNS in that region, or not valid at this time.

        That is no proof of a forgery (it came from Amazon's own host): a clock may be wrong, or a proxy in the way.
        """
        try:
            found = signing.certificate(pem)
        except Unreadable:
            raise _missing() from None
        if not found.valid(at) or found.names.isdisjoint(_names(url)):
            raise _missing()
        while len(self._held) >= HELD:
            del self._held[next(iter(self._held))]  # the one that is held longest
        self._held[url] = found

    async def bring(self, http: ClientSession, account: str, url: str, at: datetime) -> None:
        """Fetch and hold the certificate of an address that ``opened`` let through, unless it is held. Raises Unavailable."""
        if self.held(url, at):
            return
        asked = self._asked[account]
        if len(asked) == ASKED and abs(at - asked[0]) < A_WHILE:
            raise _missing()  # any envelope can name one more that does not exist: nobody makes us ask Amazon without end
        asked.append(at)
        self.hold(url, await _fetched(http, url), at)


def _names(url: str) -> Iterator[str]:
    """Yield whom a region's certificate may name: Amazon's SDK for Java (2026-11-22) has one of the first three for each region."""
    _, region, suffix = url.removeprefix("https://").partition("/")[0].split(".", 2)
    yield f"sns.{suffix}"
    yield f"sns-signing.{region}.{suffix}"
    yield f"sns-{'us-gov-west-1' if region.startswith('us-gov-') else region}.{suffix}"
    yield f"sns.{region}.{suffix}"


async def _fetched(http: ClientSession, url: str) -> bytes:
    pem = bytearray()
    try:
        async with http.get(url, allow_redirects=False, timeout=ClientTimeout(total=PATIENCE)) as response:
            if response.status != 200:
                raise _missing()
            async for chunk in response.content.iter_any():
                pem += chunk
                if len(pem) > LONGEST:
                    raise _missing()
    except (ClientError, OSError, ValueError):  # OSError: timeouts and resets; ValueError: aiohttp's for a broken answer
        raise _missing() from None
    return bytes(pem)


def _missing() -> Unavailable:
    return Unavailable("The certificate that Amazon SNS signs with did not come, or is not one of its own. Try again.")
