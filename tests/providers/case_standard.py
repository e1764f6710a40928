"""A sender of any kind under the promises."""

from __future__ import annotations

import json

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential

from .cases import ODD_TIMES, PAYLOADS, Case
from .svix_sender import SECRET, SECRET_NEXT, SECRETS, SHORT, STRANGE, sender

PROVIDER = PROVIDERS["standard"]
TOLD = json.loads((PAYLOADS / "standard" / "documented.json").read_bytes())

CASE = Case(
    provider=PROVIDER,
    credential=Credential("standard-main", SECRETS, {"scopes": {"newsletter": "newsletter"}}),
    rotated=Credential("standard-main", SECRETS | {"webhook_secret_next": SECRET_NEXT}),
    sign=sender(SECRET, "webhook"),
    sign_next=sender(SECRET_NEXT, "webhook"),
    sign_strange=sender(STRANGE, "webhook"),
    proofs=("webhook-id", "webhook-timestamp", "webhook-signature"),
    documented=dict(zip(PROVIDER.kinds, [json.dumps(event).encode() for event in TOLD], strict=True)),
    body=lambda events: b"[" + b",".join(events) + b"]",
    unknown=b'{"type": "teleported", "timestamp": "2026-11-20T23:41:12.126Z", "data": {"address": "alex@example.com"}}',
    tokened=b'{"type": "complained", "timestamp": "2026-11-20T23:41:12.126Z", "data": {"token": "our-token"}}',
    short=SHORT,
    time=rb'("timestamp": )"[^"]+"',
    odd_times=(*ODD_TIMES, b'"2026-11-20T16:28:50"', b'"2027-01-01T00:00:00Z"', b'"1970-01-01T00:00:00Z"'),
    windowed=True,
)
