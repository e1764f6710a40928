"""Senders that keep to Standard Webhooks, as the tests play them: they sign with the library that receivers are told to use."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest

from standardwebhooks import Webhook

from mailprefs.providers.base import Delivery

from .cases import RECEIVED

SECRET, SECRET_NEXT, STRANGE = (f"whsec_{b64encode(sha256(name).digest()[:24]).decode()}" for name in (b"first", b"next", b"nobody's"))
SECRETS = {"webhook_secret": SECRET}
SHORT = {"webhook_secret": SECRET[:20], "webhook_secret_next": SECRET_NEXT[:20]}


def signature(secret: str, id_: str, at: datetime, body: bytes) -> str:
    """Return the signature of a body that may be anything; of text, it is the library's own."""
    try:
        return Webhook(secret).sign(id_, at, body.decode())
    except UnicodeDecodeError:
        mac = digest(Webhook(secret)._whsecret, f"{id_}.{int(at.timestamp())}.".encode() + body, "sha256")
        return f"v1,{b64encode(mac).decode()}"


def posted(body: bytes, secret: str = SECRET, prefix: str = "svix", id_: str | None = None, at: datetime = RECEIVED) -> Delivery:
    """Return a delivery of the body, signed at this time. Without an id, its own is that of the body."""
    named = id_ or f"msg_{sha256(body).hexdigest()[:27]}"
    headers = {"id": named, "timestamp": str(int(at.timestamp())), "signature": signature(secret, named, at, body)}
    usual = [("Content-Type", "application/json"), *((f"{prefix}-{name}", value) for name, value in headers.items())]
    return Delivery(usual, body, RECEIVED)


def sender(secret: str, prefix: str) -> Callable[[bytes], Delivery]:
    return lambda body: posted(body, secret, prefix)


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
