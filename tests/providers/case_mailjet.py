"""Mailjet under the promises."""

from __future__ import annotations

from .basic import case, in_array

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

CASE = case(
    "mailjet",
    DOCUMENTED,
    "10012345",
    out={"api_key": "0123456789abcdef" * 2, "api_secret": "fedcba9876543210" * 2},
    body=in_array,
    unknown=b'{"event": "teleported", "email": "alex@example.com", "time": 1700000000, "MessageID": 1}',
    tokened=b'{"event": "spam", "email": "alex@example.com", "time": 1700000000, "Payload": "{\\"mailprefs\\": \\"our-token\\"}"}',
    time=rb'("time": )\d+',
)
