"""Mailgun under the promises."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery

from .cases import PAYLOADS, RECEIVED, Case

DOCUMENTED = (  # Mailgun's pages of webhooks and events; the last three in forms alone
    "accepted",
    "delivered",
    "failed/temporary",
    "failed/permanent/bounce",
    "failed/permanent/old",
    "failed/permanent/generic",
    "failed/permanent/espblock",
    "failed/permanent/suppress-bounce",
    "failed/permanent/suppress-complaint",
    "failed/permanent/suppress-unsubscribe",
    "rejected",
    "complained",
    "unsubscribed",
    "opened",
    "clicked",
    "stored",
    "list_member_uploaded",
    "list_member_upload_error",
    "list_uploaded",
    "bounced",
    "dropped",
    "dropped/old",
)
TOLD = [json.dumps(event).encode() for event in json.loads((PAYLOADS / "mailgun" / "documented.json").read_bytes())]
KEY, KEY_NEXT, STRANGE = "signing-key-0123456789abcdef", "next-signing-key-0123456789", "nobodys-signing-key-01234567"
API_KEY = "0123456789abcdef0123456789abcdef-01234567-89abcdef"
OPTIONS = {"scopes": {"newsletter": "newsletter", "offers": "special offers"}, "domain": "mg.example.com"}
TOKEN = "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0"
HULL = b'{"signature": '


def proof(key: str, token: str = TOKEN) -> dict[str, str]:
    """Return what proves a delivery of an hour before it is received."""
    timestamp = str(int(RECEIVED.timestamp()) - 3600)
    signature = hmac.digest(key.encode(), (timestamp + token).encode(), "sha256").hex()
    return {"timestamp": timestamp, "token": token, "signature": signature}


def posted(body: bytes) -> Delivery:
    return Delivery([("Host", "go.example.com"), ("Content-Type", "application/json")], body, RECEIVED)


def signer(key: str) -> Callable[[bytes], Delivery]:
    """Return what puts a proof made with this key before the other members of an object, in place of another."""

    def deliver(body: bytes) -> Delivery:
        if body.startswith(HULL):
            body = b"{" + body[body.index(b"}, ") + 3 :]
        return posted(body.replace(b"{", HULL + json.dumps(proof(key)).encode() + b", ", 1))

    return deliver


def read_proof(delivery: Delivery, name: str) -> str | None:
    """Return one value of the proof that a signer put first."""
    if not delivery.body.startswith(HULL):
        return None
    found: Mapping[str, str] = json.loads(delivery.body[len(HULL) : delivery.body.index(b"}") + 1])
    return found[name]


def with_proof(delivery: Delivery, name: str, *values: str) -> Delivery:
    """Return the delivery with these values for one of the proof, none or several, in place of its own."""
    end = delivery.body.index(b"}") + 1
    found: dict[str, str] = json.loads(delivery.body[len(HULL) : end])
    members = [(key, value) for key, value in found.items() if key != name] + [(name, value) for value in values]
    spelt = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in members)
    return replace(delivery, body=HULL + b"{" + spelt.encode() + b"}" + delivery.body[end:])


CASE = Case(
    provider=PROVIDERS["mailgun"],
    credential=Credential("mailgun-main", {"webhook_key": KEY, "api_key": API_KEY}, OPTIONS),
    rotated=Credential("mailgun-main", {"webhook_key": KEY, "webhook_key_next": KEY_NEXT}),
    sign=signer(KEY),
    sign_next=signer(KEY_NEXT),
    sign_strange=signer(STRANGE),
    proofs=("timestamp", "token", "signature"),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=lambda events: b'{"event-data": ' + events[0] + b"}",
    unknown=b'{"event": "teleported", "recipient": "alex@example.com", "timestamp": 1700000000.5, "id": "t-1"}',
    tokened=b'{"event": "complained", "recipient": "alex@example.com", "timestamp": 1700000000.5, "id": "t-2", '
    b'"user-variables": {"mailprefs": "our-token"}}',
    short={"webhook_key": KEY[:15], "webhook_key_next": KEY_NEXT[:15], "api_key": API_KEY[:15]},
    batched=False,
    covered=False,
    inside=True,
    proof=read_proof,
    with_proof=with_proof,
    unsigned=posted,
    time=rb'("timestamp": )[0-9.]+',
)
