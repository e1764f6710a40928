"""SendGrid under the promises."""

from __future__ import annotations

import json
from collections.abc import Callable

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery
from mailprefs.providers.sendgrid import SIGNATURE, TIMESTAMP
from mailprefs.sandbox.sendgrid import key_pair, sign

from .cases import PAYLOADS, RECEIVED, Case

DOCUMENTED = (  # SendGrid's Event Webhook Reference, and its bounces by type
    "processed",
    "delivered",
    "deferred",
    "bounce/bounce",
    "bounce/blocked",
    "bounce/expired",
    "dropped",
    "open",
    "click",
    "spamreport",
    "unsubscribe",
    "group_unsubscribe",
    "group_resubscribe",
    "account_status_change",
)
API_KEY = "SG.sandbox-key-0123456789"
SCOPES = {"scopes": {"newsletter": "12345", "offers": "12346"}}
PRIVATE, PUBLIC = key_pair()
PRIVATE_NEXT, PUBLIC_NEXT = key_pair()
PRIVATE_STRANGE, _ = key_pair()


def signer(private_key: str) -> Callable[[bytes], Delivery]:
    """Return what signs deliveries with this key, an hour before they are received."""

    def deliver(body: bytes) -> Delivery:
        headers = sign(private_key, str(int(RECEIVED.timestamp()) - 3600), body)
        return Delivery([("Host", "go.example.com"), *headers.items()], body, RECEIVED)

    return deliver


def _events() -> dict[str, bytes]:
    told = json.loads((PAYLOADS / "sendgrid" / "documented.json").read_bytes())
    return {name: json.dumps(event).encode() for name, event in zip(DOCUMENTED, told, strict=True)}


CASE = Case(
    provider=PROVIDERS["sendgrid"],
    credential=Credential("sendgrid-main", {"webhook_key": PUBLIC, "api_key": API_KEY}, SCOPES),
    rotated=Credential("sendgrid-main", {"webhook_key": PUBLIC, "webhook_key_next": PUBLIC_NEXT, "api_key": API_KEY}),
    sign=signer(PRIVATE),
    sign_next=signer(PRIVATE_NEXT),
    sign_strange=signer(PRIVATE_STRANGE),
    proofs=(SIGNATURE, TIMESTAMP),
    documented=_events(),
    body=lambda events: b"[" + b",".join(events) + b"]\r\n",
    unknown=b'{"event": "teleported", "email": "alex@example.com", "timestamp": 1700000000, "sg_event_id": "t-1"}',
    tokened=b'{"event": "spamreport", "email": "alex@example.com", "timestamp": 1700000000, "mailprefs": "our-token"}',
    short={"webhook_key": PUBLIC[:60], "webhook_key_next": PUBLIC_NEXT[:90], "api_key": "SG.short"},
)
