"""MailerSend under the promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from hmac import digest

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery

from .cases import ODD_ISO_TIMES, PAYLOADS, RECEIVED, Case

SECRET, SECRET_NEXT, STRANGE = "AWBTeWTx1vYGLnOj1dQd9rDTzlEYkH4a", "QXcVUg4pVJPkLxGJ8sNsG1aMd6bQyLrT", "nobodys-nobodys-nobodys-nobodys-"
SECRETS = {"webhook_secret": SECRET, "api_token": "mlsn.sandbox-token-0123456789"}
DOMAIN = "yv69oxl5kl785kw2"
PROVIDER = PROVIDERS["mailersend"]
TOLD = json.loads((PAYLOADS / "mailersend" / "documented.json").read_bytes())


def signer(secret: str) -> Callable[[bytes], Delivery]:
    """Return what signs deliveries with this secret."""

    def deliver(body: bytes) -> Delivery:
        proof = digest(secret.encode(), body, "sha256").hex()
        return Delivery([("Content-Type", "application/json"), ("Signature", proof)], body, RECEIVED)

    return deliver


CASE = Case(
    provider=PROVIDER,
    credential=Credential("mailersend-main", SECRETS, {"domain_id": DOMAIN, "scopes": {"newsletter": DOMAIN}}),
    rotated=Credential("mailersend-main", SECRETS | {"webhook_secret_next": SECRET_NEXT}),
    sign=signer(SECRET),
    sign_next=signer(SECRET_NEXT),
    sign_strange=signer(STRANGE),
    proofs=("Signature",),
    documented=dict(zip(PROVIDER.kinds, [json.dumps(event).encode() for event in TOLD], strict=True)),
    body=lambda events: events[0],
    unknown=b'{"type": "activity.teleported", "created_at": "2026-11-20T12:00:00.000000Z", "data": {"recipient": "alex@example.com"}}',
    tokened=b'{"type": "activity.spam_complaint", "created_at": "2026-11-20T12:00:00.000000Z", "data": {"id": "1", '
    b'"recipient": "alex@example.com", "meta": []}}',
    token=None,
    short={"webhook_secret": SECRET[:12], "webhook_secret_next": SECRET_NEXT[:12], "api_token": "mlsn"},
    batched=False,
    time=rb'("created_at": )"[^"]+"',
    odd_times=ODD_ISO_TIMES,
)
