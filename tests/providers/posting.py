"""What the cases of providers share that post forms: events written as JSON become the fields of a form, or a field of it."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl, quote_plus, urlencode

from mailprefs.errors import Unreadable
from mailprefs.providers import reading
from mailprefs.providers.base import Delivery

from .cases import RECEIVED

FORM = "application/x-www-form-urlencoded"


def fields_of(events: Sequence[bytes]) -> bytes:
    """Return the form whose fields are those of one event. What is no JSON object stands as it is: it is no form either."""
    try:
        told = reading.value(events[0])
    except Unreadable:
        return events[0]
    if not isinstance(told, dict):
        return events[0]
    return urlencode({name: text if isinstance(text, str) else json.dumps(text) for name, text in told.items()}).encode()


def field_of(name: str) -> Callable[[Sequence[bytes]], bytes]:
    """Return what makes the form whose one field is the array of the events."""
    return lambda events: f"{name}=".encode() + quote_plus(b"[" + b",".join(events) + b"]").encode()


def signer(header: str, key: str, url: str) -> Callable[[bytes], Delivery]:
    """Return what signs forms with this key in the way that Mandrill and Twilio describe: the address, then each field, sorted."""

    def deliver(body: bytes) -> Delivery:
        fields = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
        text = url.encode() + b"".join(f"{name}{value}".encode("latin-1") for name, value in sorted(set(fields)))
        proof = base64.b64encode(hmac.digest(key.encode(), text, "sha1")).decode()
        return Delivery([("Host", "internal.example.com"), ("Content-Type", FORM), (header, proof)], body, RECEIVED, url="/hooks/main")

    return deliver
