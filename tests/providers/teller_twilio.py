"""Twilio under the promises of telling: numbers in place of addresses, and nothing that could be listed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider

from .case_twilio import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["twilio"]
assert isinstance(PROVIDER, Provider)
FIRST, SECOND = "MG0123456789abcdef0123456789abcdef", "+12025550100"  # a messaging service, and a number
RECEIPTS = "MGfedcba9876543210fedcba9876543210"  # a sender of codes and receipts, which is mapped to nothing


def consents(body: str) -> bool:
    told = parse_qsl(body, strict_parsing=True)
    items: list[Any] = [json.loads(item) for _, item in told]
    sound = all(
        item.keys() == {"contact_id", "correlation_id", "sender_id", "status", "source"}
        and item["status"] in ("opt-in", "opt-out")
        and len(item["correlation_id"]) == 32
        for item in items
    )
    return {name for name, _ in told} == {"Items"} and 0 < len(items) <= 25 and sound


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=(FIRST, SECOND),
    documented=(Documented("POST", "/v1/Consents/Bulk", consents),),
    held=lambda state, group: state["senders"].get(group, []),
    holding=lambda groups: {"senders": groups},
    blocked=lambda state: state["senders"].get(RECEIPTS, []),
    blocking={"senders": {RECEIPTS: ["+12025550111"]}},
    unfit={
        "a topic's name": Unfit("no sender", group="newsletter"),
        "half a service": Unfit("no sender", group="MG0123"),
        "all": Unfit("no sender", group="*"),
        "empty": Unfit("no sender", group=""),
    },
    refused=("newsletter", "", "*", SECOND),  # of two that are mapped, one may be about texts that nobody left
    addresses=tuple(f"+120255501{n:02}" for n in range(8)),
    tricky=("+1202555", "+999999999999999"),
    lists=False,
)
