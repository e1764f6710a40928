"""Klaviyo under the promises."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Sequence

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery
from mailprefs.providers.klaviyo import SIGNATURE, TIMESTAMP

from .cases import PAYLOADS, RECEIVED, Case

DOCUMENTED = (  # Klaviyo's table of topics
    "received_email",
    "bounced_email",
    "bounced_email/hard",
    "dropped_email",
    "opened_email",
    "clicked_email",
    "marked_email_as_spam",
    "subscribed_to_email_marketing",
    "unsubscribed_from_email_marketing",
    "manually_suppressed_from_email_marketing",
    "manually_unsuppressed_from_email_marketing",
    "updated_email_preferences",
    "subscribed_to_sms_marketing",
    "unsubscribed_from_sms_marketing",
    "sent_sms",
    "received_sms",
    "clicked_sms",
    "failed_to_deliver_sms",
    "received_automated_response_sms",
    "failed_to_deliver_automated_response_sms",
    "received_push",
    "bounced_push",
    "opened_push",
    "ready_to_review",
    "submitted_rating",
    "submitted_review",
)
KEY, KEY_NEXT, API_KEY = "first-secret-key", "second-secret-key", "pk_0123456789abcdef0123456789abcdef"
SENT = "Sat, 22 Nov 2025 08:47:20 GMT"
OPTIONS = {"scopes": {"marketing": "suppressed"}}
META = (
    b'], "meta": {"klaviyo_webhook_id": "01KP4928STE8FKCWB6WDHZ4ZB7", "timestamp": "2025-11-22T08:47:20.101159+00:00", '
    b'"klaviyo_account_id": "WBhXHN", "version": "2024-06-28"}\n\n}\n'
)
TOLD = [json.dumps(event).encode() for event in json.loads((PAYLOADS / "klaviyo" / "documented.json").read_bytes())]


def signer(key: str, timestamp: str = SENT, *, body_alone: bool = False) -> Callable[[bytes], Delivery]:
    """Return what signs deliveries by one of the two accounts: the body with the timestamp behind it, or the body alone."""

    def deliver(body: bytes) -> Delivery:
        text = body if body_alone else body + timestamp.encode()
        proof = hmac.digest(key.encode(), text, "sha256").hex()
        headers = [("Content-Type", "application/json"), ("Klaviyo-Webhook-Id", "01KP4928STE8FKCWB6WDHZ4ZB7"), (TIMESTAMP, timestamp)]
        return Delivery([*headers, (SIGNATURE, proof)], body, RECEIVED)

    return deliver


def body_of(events: Sequence[bytes]) -> bytes:
    return b'{"data": [' + b",".join(events) + META


CASE = Case(
    provider=PROVIDERS["klaviyo"],
    credential=Credential("klaviyo-main", {"webhook_secret": KEY, "api_key": API_KEY}, OPTIONS),
    rotated=Credential("klaviyo-main", {"webhook_secret": KEY, "webhook_secret_next": KEY_NEXT}),
    sign=signer(KEY),
    sign_next=signer(KEY_NEXT),
    sign_strange=signer("nobodys-secret-key"),
    proofs=(SIGNATURE, TIMESTAMP),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=body_of,
    unknown=b'{"external_id": "u-1", "topic": "event:klaviyo.teleported", "payload": {}}',
    tokened=b'{"external_id": "t-1", "topic": "event:klaviyo.marked_email_as_spam", "payload": {"data": {"attributes": '
    b'{"timestamp": 1763801234, "event_properties": {"email_address": "alex@example.com"}}}}}',
    token=None,
    short={"api_key": "pk_short", "webhook_secret": KEY[:15], "webhook_secret_next": KEY_NEXT[:15]},
)
