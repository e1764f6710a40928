"""Mandrill under the promises."""

from __future__ import annotations

import json

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential
from mailprefs.providers.mandrill import SIGNATURE

from .cases import PAYLOADS, Case
from .posting import field_of, signer

DOCUMENTED = (  # Mandrill's message events, its inbound mail, and its two lists
    "send",
    "delivered",
    "deferral",
    "hard_bounce",
    "soft_bounce",
    "reject",
    "spam",
    "unsub",
    "open",
    "click",
    "inbound",
    "blacklist",
    "whitelist",
)
KEY, KEY_NEXT = "first-webhook-key-1234", "second-webhook-key-123"
URL = "https://hooks:pass@go.example.com/hooks/mandrill-main?from=mandrill"
SUBACCOUNT = "marketing"
OPTIONS = {"public_url": URL, "subaccount": SUBACCOUNT, "scopes": {"newsletter": SUBACCOUNT}}
API_KEY = {"api_key": "md-sandbox-key-0123456789"}
TOLD = [json.dumps(event).encode() for event in json.loads((PAYLOADS / "mandrill" / "documented.json").read_bytes())]

CASE = Case(
    provider=PROVIDERS["mandrill"],
    credential=Credential("mandrill-main", {"webhook_key": KEY, **API_KEY}, OPTIONS),
    rotated=Credential("mandrill-main", {"webhook_key": KEY, "webhook_key_next": KEY_NEXT, **API_KEY}, OPTIONS),
    sign=signer(SIGNATURE, KEY, URL),
    sign_next=signer(SIGNATURE, KEY_NEXT, URL),
    sign_strange=signer(SIGNATURE, "nobodys-webhook-key-12", URL),
    proofs=(SIGNATURE,),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=field_of("mandrill_events"),
    unknown=b'{"event": "teleported", "ts": 1763801234, "msg": {"email": "alex@example.com"}, "_id": "t-1"}',
    tokened=b'{"event": "spam", "ts": 1763801234, "_id": "t-2", '
    b'"msg": {"email": "alex@example.com", "metadata": {"mailprefs": "our-token"}}}',
    short={"webhook_key": KEY[:10], "webhook_key_next": KEY_NEXT[:10], "api_key": "md-sand"},
    by_value=True,
    inside=True,
    time=rb'("ts": )\d+',
)
