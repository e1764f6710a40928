"""Amazon SES under the promises: its events in notifications of SNS, which are signed inside the body and known by what they say."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery
from mailprefs.providers.ses import SES

from .basic import PASSWORD, PASSWORD_NEXT, SECRETS, SHORT, USER
from .cases import ODD_ISO_TIMES, PAYLOADS, RECEIVED, Case
from .sns_sender import HOST, TOPIC, URL, certificate, key, notification, posted, signed

PROVIDER = PROVIDERS["ses"]
assert isinstance(PROVIDER, SES)
PROVIDER.certificates.hold(URL, certificate(key()), RECEIVED)

OPTIONS: dict[str, object] = {"topic_arns": (TOPIC, "arn:aws-cn:sns:cn-north-1:123456789012:ses-events")}
OUT = {"access_key_id": "AKIDEXAMPLE01234567", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
MAPPED: dict[str, Any] = {"scopes": {"newsletter": "newsletter", "offers": "offers"}, "region": "us-east-1", "contact_list": "main"}
TOLD = json.loads((PAYLOADS / "ses" / "documented.json").read_bytes())


def signer(password: str, private: RSAPrivateKey) -> Callable[[bytes], Delivery]:
    """Return what tells messages of SES through SNS, signed with this key, to an endpoint with this password."""
    proof = "Basic " + b64encode(f"{USER}:{password}".encode()).decode()
    unsubscribe = {"UnsubscribeURL": f"{HOST}/?Action=Unsubscribe&SubscriptionArn={TOPIC}:2bcfbf39-05c3-41de-beaa-fcfcc21c8f55"}

    def deliver(message: bytes) -> Delivery:
        if not message:
            return Delivery([("Authorization", proof)], b"", RECEIVED)  # SNS takes no empty message; nothing is signed in an empty body
        return posted(signed(notification(message), signer=private) | unsubscribe, ("Authorization", proof))

    return deliver


CASE = Case(
    provider=PROVIDER,
    credential=Credential("ses-main", SECRETS | OUT, OPTIONS | MAPPED),
    rotated=Credential("ses-main", SECRETS | {"webhook_password_next": PASSWORD_NEXT}, OPTIONS),
    sign=signer(PASSWORD, key()),
    sign_next=signer(PASSWORD_NEXT, key()),
    sign_strange=signer(PASSWORD, key("nobody's")),
    proofs=("Authorization",),
    documented=dict(zip(PROVIDER.kinds, [json.dumps(event).encode() for event in TOLD], strict=True)),
    body=lambda events: events[0],
    unknown=b'{"eventType": "Teleport", "mail": {"destination": ["alex@example.com"]}}',
    tokened=b'{"eventType": "Complaint", "complaint": {"complainedRecipients": [{"emailAddress": "alex@example.com"}], "feedbackId": "f", '
    b'"timestamp": "2026-11-20T00:41:02.669Z"}, "mail": {"destination": ["alex@example.com"], "tags": {"mailprefs": ["our-token"]}}}',
    short=SHORT | {name: secret[:8] for name, secret in OUT.items()},
    batched=False,
    by_value=True,
    inside=True,
    unsigned=lambda message: posted(notification(message)),
    time=rb'("timestamp": )"[^"]+"',
    odd_times=ODD_ISO_TIMES,
    nobody=Credential("ses-main", {}, {}),
)
