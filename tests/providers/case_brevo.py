"""Brevo under the promises."""

from __future__ import annotations

import json

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential

from .basic import PASSWORD, PASSWORD_NEXT, SECRETS, SHORT, STRANGE, USER, signer
from .cases import PAYLOADS, Case

DOCUMENTED = (  # Brevo's pages of transactional and marketing webhooks, in both of its spellings
    "request",
    "sent",
    "delivered",
    "deferred",
    "hard_bounce",
    "invalid_email",
    "invalid",
    "soft_bounce",
    "blocked",
    "error",
    "spam",
    "complaint",
    "unsubscribe",
    "unsubscribed",
    "list_addition",
    "contact_updated",
    "contact_deleted",
    "unique_opened",
    "opened",
    "first_opening",
    "unique_proxy_open",
    "proxy_open",
    "loaded_by_proxy",
    "click",
    "clicked",
)
TOLD = [json.dumps(event).encode() for event in json.loads((PAYLOADS / "brevo" / "documented.json").read_bytes())]

CASE = Case(
    provider=PROVIDERS["brevo"],
    credential=Credential("brevo-main", SECRETS, {"scopes": {"newsletter": "3"}}),
    rotated=Credential("brevo-main", SECRETS | {"webhook_password_next": PASSWORD_NEXT}),
    sign=signer(USER, PASSWORD),
    sign_next=signer(USER, PASSWORD_NEXT),
    sign_strange=signer(USER, STRANGE),
    proofs=("Authorization",),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=lambda events: b"[" + b",".join(events) + b"]",
    unknown=b'{"event": "teleported", "email": "alex@example.com", "ts_epoch": 1700000000000}',
    tokened=b'{"event": "spam", "email": "alex@example.com", "ts_epoch": 1700000000000, '
    b'"X-Mailin-custom": "{\\"mailprefs\\": \\"our-token\\"}"}',
    short=SHORT,
    covered=False,
    time=rb'("ts_epoch": )\d+',
    odd_times=(b"0", b"-1", b"1e400", b"99999999999999999999", b"1700000000000000", b"4102444800", b"4102444800000"),
)
