"""Mailjet under the promises."""

from __future__ import annotations

import json

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential

from .basic import PASSWORD, PASSWORD_NEXT, SECRETS, SHORT, STRANGE, USER, signer
from .cases import PAYLOADS, Case

DOCUMENTED = (  # Mailjet's guide to its Event API, and its bounces by the table of errors
    "sent",
    "open",
    "click",
    "bounce/hard",
    "bounce/soft",
    "bounce/spam",
    "bounce/greylisted",
    "bounce/mailjet",
    "blocked",
    "spam",
    "unsub",
)
TOLD = [json.dumps(event).encode() for event in json.loads((PAYLOADS / "mailjet" / "documented.json").read_bytes())]

CASE = Case(
    provider=PROVIDERS["mailjet"],
    credential=Credential("mailjet-main", SECRETS, {"scopes": {"newsletter": "1"}}),
    rotated=Credential("mailjet-main", SECRETS | {"webhook_password_next": PASSWORD_NEXT}),
    sign=signer(USER, PASSWORD),
    sign_next=signer(USER, PASSWORD_NEXT),
    sign_strange=signer(USER, STRANGE),
    proofs=("Authorization",),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=lambda events: b"[" + b",".join(events) + b"]",
    unknown=b'{"event": "teleported", "email": "alex@example.com", "time": 1700000000, "MessageID": 1}',
    tokened=b'{"event": "spam", "email": "alex@example.com", "time": 1700000000, "Payload": "{\\"mailprefs\\": \\"our-token\\"}"}',
    short=SHORT,
    covered=False,
    time=rb'("time": )\d+',
)
