"""Brevo under the promises."""

from __future__ import annotations

from .basic import case, in_array

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

CASE = case(
    "brevo",
    DOCUMENTED,
    "campaigns",
    out={"api_key": "xkeysib-sandbox-key-0123456789"},
    body=in_array,
    unknown=b'{"event": "teleported", "email": "alex@example.com", "ts_epoch": 1700000000000}',
    tokened=b'{"event": "spam", "email": "alex@example.com", "ts_epoch": 1700000000000, '
    b'"X-Mailin-custom": "{\\"mailprefs\\": \\"our-token\\"}"}',
    time=rb'("ts_epoch": )\d+',
    odd_times=(b"0", b"-1", b"1e400", b"99999999999999999999", b"1700000000000000", b"4102444800", b"4102444800000"),
)
