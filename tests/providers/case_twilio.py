"""Twilio under the promises. An event is written as JSON here; its fields are those of the form."""

from __future__ import annotations

import json

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential
from mailprefs.providers.twilio import SIGNATURE

from .cases import PAYLOADS, Case
from .posting import fields_of, signer

DOCUMENTED = ("STOP", "START", "HELP", "message", "report")  # Twilio's opt-out types, any other text, and its reports
TOKEN, TOKEN_NEXT = "a" * 32, "b" * 32
URL = "https://go.example.com/hooks/twilio-main"
OPTIONS = {"public_url": URL, "stops": "newsletter", "scopes": {"newsletter": "MG0123456789abcdef0123456789abcdef"}}
SID = "AC0123456789abcdef0123456789abcdef"
TOLD = [json.dumps(event).encode() for event in json.loads((PAYLOADS / "twilio" / "documented.json").read_bytes())]

CASE = Case(
    provider=PROVIDERS["twilio"],
    credential=Credential("twilio-main", {"auth_token": TOKEN, "account_sid": SID}, OPTIONS),
    rotated=Credential("twilio-main", {"auth_token": TOKEN, "auth_token_next": TOKEN_NEXT, "account_sid": SID}, OPTIONS),
    sign=signer(SIGNATURE, TOKEN, URL),
    sign_next=signer(SIGNATURE, TOKEN_NEXT, URL),
    sign_strange=signer(SIGNATURE, "c" * 32, URL),
    proofs=(SIGNATURE,),
    documented=dict(zip(DOCUMENTED, TOLD, strict=True)),
    body=fields_of,
    unknown=b'{"MessageSid": "SM1", "AccountSid": "AC0123456789abcdef0123456789abcdef", "From": "+12025550123"}',
    tokened=b'{"MessageSid": "SM2", "AccountSid": "AC0123456789abcdef0123456789abcdef", "From": "+12025550123", "Body": "Stop"}',
    token=None,
    short={"account_sid": SID[:20], "auth_token": TOKEN[:20], "auth_token_next": TOKEN_NEXT[:20]},
    batched=False,
    by_value=True,
    inside=True,
    wrapped=lambda event: fields_of([event]),
    time=None,
)
