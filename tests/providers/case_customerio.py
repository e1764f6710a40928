"""Customer.io under the promises."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery
from mailprefs.providers.customerio import SIGNATURE, TIMESTAMP

from .cases import PAYLOADS, RECEIVED, Case

DOCUMENTED = (  # Customer.io's reporting webhooks, by object type and metric
    "email/drafted",
    "email/attempted",
    "email/sent",
    "email/delivered",
    "email/bounced",
    "email/dropped",
    "email/spammed",
    "email/failed",
    "email/undeliverable",
    "email/opened",
    "email/clicked",
    "email/converted",
    "email/unsubscribed",
    "customer/subscribed",
    "customer/unsubscribed",
    "customer/cio_subscription_preferences_changed",
    "sms",
    "push",
    "in_app",
    "slack",
    "webhook",
    "whatsapp",
)
KEY, KEY_NEXT = "f" * 64, "e" * 64
SCOPES = {"scopes": {"newsletter": "topic_7", "offers": "topic_8"}}
SECRETS = {"webhook_key": KEY, "site_id": "0123456789abcdef0123", "api_key": "fedcba9876543210fedc", "app_key": "a0b1c2d3e4f5a6b7c8d9"}
TOLD = [json.dumps(event).encode() for event in json.loads((PAYLOADS / "customerio" / "documented.json").read_bytes())]


def signer(key: str, timestamp: str = "1763801240") -> Callable[[bytes], Delivery]:
    """Return what signs deliveries as Customer.io describes it."""

    def deliver(body: bytes) -> Delivery:
        proof = hmac.digest(key.encode(), f"v0:{timestamp}:".encode() + body, "sha256").hex()
        headers = [("Content-Type", "application/json"), (TIMESTAMP, timestamp), (SIGNATURE, proof)]
        return Delivery(headers, body, RECEIVED)

    return deliver


CASE = Case(
    provider=PROVIDERS["customerio"],
    credential=Credential("customerio-main", SECRETS, SCOPES),
    rotated=Credential("customerio-main", {**SECRETS, "webhook_key_next": KEY_NEXT}, SCOPES),
    sign=signer(KEY),
    sign_next=signer(KEY_NEXT),
    sign_strange=signer("d" * 64),
    proofs=(SIGNATURE, TIMESTAMP),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=lambda events: events[0],
    unknown=b'{"event_id": "u-1", "object_type": "email", "metric": "teleported", "timestamp": 1763801234, '
    b'"data": {"recipient": "alex@example.com"}}',
    tokened=b'{"event_id": "t-1", "object_type": "email", "metric": "spammed", "timestamp": 1763801234, '
    b'"data": {"recipient": "alex@example.com"}}',
    token=None,
    short={**{name: value[:10] for name, value in SECRETS.items()}, "webhook_key_next": KEY_NEXT[:10]},
    batched=False,
)
