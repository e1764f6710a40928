"""MailerSend under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider
from mailprefs.sandbox.mailersend import DOMAINS, entry

from .case_mailersend import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["mailersend"]
assert isinstance(PROVIDER, Provider)
MARKETING, RECEIPTS = DOMAINS
LIST = "/v1/suppressions/unsubscribes"


def recipients(body: str) -> bool:
    told: Any = json.loads(body)
    return bool(told.keys() == {"domain_id", "recipients"} and told["domain_id"] == MARKETING and 0 < len(told["recipients"]) <= 20)


def ids(body: str) -> bool:
    """True for a removal that says of whom: with nobody in it, or with "all", it would be everybody."""
    told: Any = json.loads(body)
    return bool(told.keys() == {"domain_id", "ids"} and told["domain_id"] == MARKETING and told["ids"] and all(told["ids"]))


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    """Return MailerSend's state, in which these people are unsubscribed from these domains."""
    return {"domains": {domain: {address: entry() for address in groups.get(domain, ())} for domain in DOMAINS}}


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=(MARKETING,),
    documented=(
        Documented("GET", f"/v1/domains/{MARKETING}"),
        Documented("GET", rf"{LIST}\?domain_id={MARKETING}&page=[1-9]\d*&limit=([1-9]\d|100)"),
        Documented("POST", LIST, recipients),
        Documented("DELETE", LIST, ids),
    ),
    held=lambda state, group: list(state["domains"][group]),
    holding=holding,
    blocked=lambda state: list(state["domains"].get(RECEIPTS, ())),
    blocking=holding({RECEIPTS: ["a@example.com"]}),
    unfit={
        "shared": Unfit("not its domain_id", group=""),
        "the domain of receipts": Unfit("not its domain_id", group=RECEIPTS),
        "a path": Unfit("not its domain_id", group=f"{MARKETING}/.."),
        "gone": Unfit(MARKETING, state=lambda state: {"domains": {RECEIPTS: {}}}),
    },
    refused=("", RECEIPTS, MARKETING.upper(), f"{MARKETING}/", "news.example.com"),
    page=100,
    many=250,
)
