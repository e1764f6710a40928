"""Amazon SNS as the tests play it: envelopes signed with keys of our own, and the certificates that go with them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mailprefs.providers.base import Delivery

from .cases import RECEIVED

TOPIC = "arn:aws:sns:us-east-1:123456789012:ses-events"
HOST = "https://sns.us-east-1.amazonaws.com"
URL = f"{HOST}/SimpleNotificationService-{'0a' * 16}.pem"
CONFIRM = f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37fb687f5d51e6e2425e"
NAMES = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
ASKING_NAMES = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
HASHES = {"1": SHA1, "2": SHA256}


@cache
def key(name: str = "sns") -> RSAPrivateKey:
    """Return the private key of that name, the same one every time."""
    return generate_private_key(65537, 2048)


def certificate(
    signer: RSAPrivateKey,
    common_name: str = "sns.amazonaws.com",
    *names: str,
    begins: datetime = datetime(2026, 1, 1, tzinfo=UTC),
    ends: datetime = datetime(2027, 12, 31, tzinfo=UTC),
) -> bytes:
    """Return a certificate in PEM, signed by its own key."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(signer.public_key())
    builder = builder.serial_number(7).not_valid_before(begins).not_valid_after(ends)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    return builder.sign(signer, SHA256()).public_bytes(Encoding.PEM)


def notification(message: str | bytes, **others: object) -> dict[str, object]:
    """Return the fields of a notification without its signature; bytes are told as they are, UTF-8 or not."""
    text = message.decode("utf-8", "surrogateescape") if isinstance(message, bytes) else message
    id_ = str(UUID(bytes=sha256(text.encode("utf-8", "surrogateescape")).digest()[:16]))
    fields: dict[str, object] = {"Type": "Notification", "MessageId": id_, "TopicArn": TOPIC, "Message": text}
    return fields | {"Timestamp": "2026-11-22T11:59:59.111Z", "SignatureVersion": "2", "SigningCertURL": URL} | others


def asking(type_: str = "SubscriptionConfirmation", **others: object) -> dict[str, object]:
    """Return the fields of a message that asks for a confirmation, without its signature."""
    return notification("You have chosen …\nTo confirm …", Type=type_, SubscribeURL=CONFIRM, Token="2336412f37fb687f5d51e6e2425e") | others


def signed(fields: Mapping[str, object], names: tuple[str, ...] = NAMES, signer: RSAPrivateKey | None = None) -> dict[str, object]:
    """Return the fields with their signature over these names."""
    text = "".join(f"{name}\n{fields[name]}\n" for name in names if fields.get(name) is not None)
    hashed = HASHES.get(str(fields["SignatureVersion"]), SHA256)()
    signature = (signer or key()).sign(text.encode("utf-8", "surrogateescape"), PKCS1v15(), hashed)
    return dict(fields) | {"Signature": b64encode(signature).decode()}


def posted(fields: Mapping[str, object], *headers: tuple[str, str]) -> Delivery:
    """Return the delivery that posts these fields, written as SNS writes them."""
    type_, topic = str(fields.get("Type")), str(fields.get("TopicArn"))
    usual = [("Content-Type", "text/plain; charset=UTF-8"), ("x-amz-sns-message-type", type_), ("x-amz-sns-topic-arn", topic)]
    body = json.dumps(fields, indent=2, separators=(",", " : "), ensure_ascii=False).encode("utf-8", "surrogateescape")
    return Delivery([*usual, *headers], body, RECEIVED)
