"""Postmark under the promises."""

from __future__ import annotations

import json

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential

from .basic import PASSWORD, PASSWORD_NEXT, SECRETS, SHORT, STRANGE, USER, signer
from .cases import ODD_ISO_TIMES, PAYLOADS, Case

BOUNCES = (  # by type: Postmark's page of bounce types
    "HardBounce",
    "BadEmailAddress",
    "SoftBounce",
    "Transient",
    "DnsError",
    "Blocked",
    "DMARCPolicy",
    "SpamNotification",
    "SpamComplaint",
    "Unsubscribe",
    "Subscribe",
    "ManuallyDeactivated",
    "Unconfirmed",
    "AutoResponder",
    "ChallengeVerification",
    "AddressChange",
    "OpenRelayTest",
    "VirusNotification",
    "TemplateRenderingFailed",
    "SMTPApiError",
    "InboundError",
    "Unknown",
)
CHANGES = (
    "HardBounce",
    "SpamComplaint",
    "ManualSuppression/Recipient",
    "ManualSuppression/Customer",
    "ManualSuppression/Admin",
    "reactivated",
)
DOCUMENTED = (
    *(f"Bounce/{type_}" for type_ in BOUNCES),
    *(f"SubscriptionChange/{change}" for change in CHANGES),
    "SpamComplaint",
    "Delivery",
    "Open",
    "Click",
)
TOLD = [json.dumps(event).encode() for event in json.loads((PAYLOADS / "postmark" / "documented.json").read_bytes())]

CASE = Case(
    provider=PROVIDERS["postmark"],
    credential=Credential("postmark-main", SECRETS, {"scopes": {"newsletter": "broadcasts"}}),
    rotated=Credential("postmark-main", SECRETS | {"webhook_password_next": PASSWORD_NEXT}),
    sign=signer(USER, PASSWORD),
    sign_next=signer(USER, PASSWORD_NEXT),
    sign_strange=signer(USER, STRANGE),
    proofs=("Authorization",),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=lambda events: events[0],
    unknown=b'{"RecordType": "Teleport", "Recipient": "alex@example.com", "MessageID": "1"}',
    tokened=b'{"RecordType": "SpamComplaint", "Email": "alex@example.com", "BouncedAt": "2026-11-20T16:28:50.3963933-04:00", '
    b'"ID": 1, "Metadata": {"mailprefs": "our-token"}}',
    short=SHORT,
    batched=False,
    covered=False,
    time=rb'("(?:BouncedAt|ChangedAt)": )"[^"]+"',
    odd_times=ODD_ISO_TIMES,
)
