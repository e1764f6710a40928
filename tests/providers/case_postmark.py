"""Postmark under the promises."""

from __future__ import annotations

from .basic import case
from .cases import ODD_ISO_TIMES

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
TOKEN = "d1ab4ad1-c0de-f00d-4bad-c0ffee15900d"
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

CASE = case(
    "postmark",
    DOCUMENTED,
    "broadcasts",
    body=lambda events: events[0],
    unknown=b'{"RecordType": "Teleport", "Recipient": "alex@example.com", "MessageID": "1"}',
    tokened=b'{"RecordType": "SpamComplaint", "Email": "alex@example.com", "BouncedAt": "2026-11-20T16:28:50.3963933-04:00", '
    b'"ID": 1, "Metadata": {"mailprefs": "our-token"}}',
    batched=False,
    out={"server_token": TOKEN},
    time=rb'("(?:BouncedAt|ChangedAt)": )"[^"]+"',
    odd_times=ODD_ISO_TIMES,
)
