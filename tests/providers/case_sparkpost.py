"""SparkPost under the promises."""

from __future__ import annotations

from .basic import case, documented, in_array

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
HULLS = [hull["msys"] for hull in documented("sparkpost")]
TOLD = [event for hull in HULLS for event in hull.values()]


def wrapped(event: bytes) -> bytes:
    """Return an event under a class. Which one does not matter: its type is said inside."""
    return b'{"msys": {"message_event": ' + event + b"}}"


CASE = case(
    "sparkpost",
    DOCUMENTED,
    "newsletter.example.com",
    told=TOLD,
    out={"api_key": "14ac5499-sandbox-key-0123456789abcdef"},
    body=lambda events: in_array([wrapped(event) for event in events]),
    unknown=b'{"type": "teleport", "rcpt_to": "alex@example.com", "timestamp": "1700000000", "event_id": "1"}',
    tokened=b'{"type": "spam_complaint", "rcpt_to": "alex@example.com", "timestamp": "1700000000", "event_id": "2", '
    b'"rcpt_meta": {"mailprefs": "our-token"}}',
    wrapped=wrapped,
    time=rb'("timestamp": )"\d+"',
)
