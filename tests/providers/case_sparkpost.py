"""SparkPost under the promises."""

from __future__ import annotations

import json

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential

from .basic import PASSWORD, PASSWORD_NEXT, SECRETS, SHORT, STRANGE, USER, signer
from .cases import PAYLOADS, Case

CLASSES = (1, 10, *range(20, 27), 30, 40, *range(50, 55), 60, 70, 80, 90, 100)  # SparkPost's bounce classification codes
DOCUMENTED = (  # SparkPost's webhook event reference
    "injection",
    "delivery",
    "delay",
    "policy_rejection",
    "generation_rejection",
    "generation_failure",
    "spam_complaint",
    "list_unsubscribe",
    "link_unsubscribe",
    "open",
    "initial_open",
    "click",
    "amp_open",
    "amp_initial_open",
    "amp_click",
    "relay_injection",
    "relay_rejection",
    "relay_delivery",
    "relay_tempfail",
    "relay_permfail",
    "ab_test_completed",
    "ab_test_cancelled",
    "success",
    "error",
    "sms_status",
    *(f"bounce/{code}" for code in CLASSES),
    *(f"out_of_band/{code}" for code in CLASSES),
)
HULLS = [hull["msys"] for hull in json.loads((PAYLOADS / "sparkpost" / "documented.json").read_bytes())]
TOLD = [json.dumps(event).encode() for hull in HULLS for event in hull.values()]


def wrapped(event: bytes) -> bytes:
    """Return an event under a class. Which one does not matter: its type is said inside."""
    return b'{"msys": {"message_event": ' + event + b"}}"


CASE = Case(
    provider=PROVIDERS["sparkpost"],
    credential=Credential("sparkpost-main", SECRETS, {"scopes": {"newsletter": "newsletter.example.com"}}),
    rotated=Credential("sparkpost-main", SECRETS | {"webhook_password_next": PASSWORD_NEXT}),
    sign=signer(USER, PASSWORD),
    sign_next=signer(USER, PASSWORD_NEXT),
    sign_strange=signer(USER, STRANGE),
    proofs=("Authorization",),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=lambda events: b"[" + b",".join(map(wrapped, events)) + b"]",
    unknown=b'{"type": "teleport", "rcpt_to": "alex@example.com", "timestamp": "1700000000", "event_id": "1"}',
    tokened=b'{"type": "spam_complaint", "rcpt_to": "alex@example.com", "timestamp": "1700000000", "event_id": "2", '
    b'"rcpt_meta": {"mailprefs": "our-token"}}',
    short=SHORT,
    covered=False,
    wrapped=wrapped,
    time=rb'("timestamp": )"\d+"',
)
