"""Resend under the promises."""

from __future__ import annotations

import json

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential

from .cases import ODD_ISO_TIMES, PAYLOADS, Case
from .svix_sender import SECRET, SECRET_NEXT, SECRETS, SHORT, STRANGE, sender

API_KEY = "re_sandbox-key-0123456789"
SCOPES = {"scopes": {"newsletter": "78b8d3bc-a55a-45a3-aee6-6ec0a5e13d7e", "offers": "b6d24b8e-af0b-4c3c-be0c-359bbd97381e"}}
PROVIDER = PROVIDERS["resend"]
TOLD = json.loads((PAYLOADS / "resend" / "documented.json").read_bytes())

CASE = Case(
    provider=PROVIDER,
    credential=Credential("resend-main", SECRETS | {"api_key": API_KEY}, SCOPES),
    rotated=Credential("resend-main", SECRETS | {"webhook_secret_next": SECRET_NEXT}),
    sign=sender(SECRET, "svix"),
    sign_next=sender(SECRET_NEXT, "svix"),
    sign_strange=sender(STRANGE, "svix"),
    proofs=("svix-id", "svix-timestamp", "svix-signature"),
    documented=dict(zip(PROVIDER.kinds, [json.dumps(event).encode() for event in TOLD], strict=True)),
    body=lambda events: events[0],
    unknown=b'{"type": "email.teleported", "created_at": "2026-11-20T23:41:12.126Z", "data": {"to": ["alex@example.com"]}}',
    tokened=b'{"type": "email.complained", "created_at": "2026-11-20T23:41:12.126Z", "data": {"to": ["alex@example.com"], '
    b'"headers": [{"name": "X-Mailprefs", "value": "our-token"}]}}',
    short=SHORT | {"api_key": "re_short"},
    batched=False,
    time=rb'("created_at": )"[^"]+"',
    odd_times=ODD_ISO_TIMES,
    windowed=True,
)
