"""Brevo under the promises of telling."""

from __future__ import annotations

import json
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider

from .case_brevo import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["brevo"]
assert isinstance(PROVIDER, Provider)
PERSON = r"/v3/contacts/[^/?#]+%40[^/?#]+\?identifierType=email_id"


def stop(body: str) -> bool:
    told: Any = json.loads(body)
    return bool(told == {"email": told["email"], "emailBlacklisted": True, "updateEnabled": True})


def blocked(state: Any) -> list[str]:
    """Who gets no mail of some sender any more, or of none."""
    return [address for address, contact in state["contacts"].items() if contact["smtpBlacklistSender"]]


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=("campaigns",),
    documented=(
        Documented("GET", r"/v3/contacts\?limit=500&offset=\d+&sort=asc"),
        Documented("POST", "/v3/contacts", stop),
        Documented("GET", PERSON),
        Documented("PUT", PERSON, lambda body: json.loads(body) == {"emailBlacklisted": False}),
    ),
    held=lambda state, _: [address for address, contact in state["contacts"].items() if contact["emailBlacklisted"]],
    holding=lambda groups: {"contacts": {address: {"emailBlacklisted": True} for address in groups["campaigns"]}},
    blocked=blocked,
    blocking={"contacts": {"a@example.com": {"emailBlacklisted": False, "smtpBlacklistSender": ["news@example.com"]}}},
    unfit={
        "a list": Unfit("not Brevo's blocklist", group="7"),
        "the other list": Unfit("not Brevo's blocklist", group="smtpBlacklistSender"),
        "empty": Unfit("not Brevo's blocklist", group=""),
    },
    refused=("7", "", "Campaigns", "newsletter"),
    page=500,
    named=False,
    reads_back=True,
)
