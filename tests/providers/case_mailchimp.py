"""Mailchimp Marketing under the promises. An event is written as JSON here; its fields are those of the form."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import replace

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery
from mailprefs.providers.mailchimp import SIGNATURE

from .cases import PAYLOADS, RECEIVED, Case, in_header, with_header
from .posting import FORM, fields_of

DOCUMENTED = (  # Mailchimp's audience webhooks, with the reasons and actions that part them
    "subscribe",
    "unsubscribe",
    "unsubscribe/delete",
    "unsubscribe/abuse",
    "cleaned/hard",
    "cleaned/abuse",
    "upemail",
    "profile",
    "campaign",
)
FIRST = {"url_secret": "first-secret-of-the-address", "webhook_key": "first-signing-secret"}
NEXT = {"url_secret_next": "second-secret-of-the-address", "webhook_key_next": "second-signing-secret"}
API_KEY = "sandbox-key-0123456789abcdef01234-us19"
OPTIONS = {"scopes": {"newsletter": "a6b5da1054", "offers": "b7c6eb2165"}}
IN_URL = "the secret of the address"
TOLD = [json.dumps(event).encode() for event in json.loads((PAYLOADS / "mailchimp" / "documented.json").read_bytes())]


def url(*secrets: str) -> str:
    return "/hooks/mailchimp-main?" + "&".join(f"secret={secret}" for secret in secrets)


def signer(secret: str, key: str) -> Callable[[bytes], Delivery]:
    """Return what signs deliveries as Mailchimp is said to, and posts them to the address with the secret."""

    def deliver(body: bytes) -> Delivery:
        proof = hmac.digest(key.encode(), b"1763801240." + body, "sha256").hex()
        headers = [("Content-Type", FORM), (SIGNATURE, f"t=1763801240,v1={proof}")]
        return Delivery(headers, body, RECEIVED, url=url(secret))

    return deliver


def proof(delivery: Delivery, name: str) -> str | None:
    return delivery.url.partition("secret=")[2] if name == IN_URL else in_header(delivery, name)


def with_proof(delivery: Delivery, name: str, *values: str) -> Delivery:
    return replace(delivery, url=url(*values)) if name == IN_URL else with_header(delivery, name, *values)


CASE = Case(
    provider=PROVIDERS["mailchimp"],
    credential=Credential("mailchimp-main", FIRST | {"api_key": API_KEY}, OPTIONS),
    rotated=Credential("mailchimp-main", FIRST | NEXT),
    sign=signer(FIRST["url_secret"], FIRST["webhook_key"]),
    sign_next=signer(NEXT["url_secret_next"], NEXT["webhook_key_next"]),
    sign_strange=signer(FIRST["url_secret"], "nobodys-signing-secret"),
    proofs=(IN_URL, SIGNATURE),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=fields_of,
    unknown=b'{"type": "teleport", "fired_at": "2026-11-20 09:15:30", "data[email]": "alex@example.com"}',
    tokened=b'{"type": "unsubscribe", "fired_at": "2026-11-20 09:15:30", "data[list_id]": "a6b5da1054", '
    b'"data[email]": "alex@example.com", "data[merges][MAILPREFS]": "our-token"}',
    short={name: secret[:8] for name, secret in (FIRST | NEXT | {"api_key": API_KEY}).items()},
    batched=False,
    proof=proof,
    with_proof=with_proof,
    wrapped=lambda event: fields_of([event]),
    time=rb'("fired_at": )"[^"]+"',
    odd_times=(
        b"0",
        b"null",
        b'"soon"',
        b'"2026-11-20T09:15:30Z"',
        b'"1763801240"',
        b'"2026-13-20 09:15:30"',
        b'"2027-01-01 00:00:00"',
        b'"1970-01-01 00:00:00"',
        b'"9999-12-31 23:59:59"',
        b'"0001-01-01 00:00:00"',
        b'""',
    ),
)
