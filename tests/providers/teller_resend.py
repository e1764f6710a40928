"""Resend under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider

from .case_resend import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["resend"]
assert isinstance(PROVIDER, Provider)
FIRST, SECOND = "78b8d3bc-a55a-45a3-aee6-6ec0a5e13d7e", "b6d24b8e-af0b-4c3c-be0c-359bbd97381e"
PERSON = r"/contacts/[^/?#]+%40[^/?#]+"
PAGE = r"\?limit=100(&after=[0-9a-f-]{36})?"


def choice(body: str, *also: str) -> bool:
    told: Any = json.loads(body)
    [topic] = told["topics"]
    return told.keys() == {"topics", *also} and topic.keys() == {"id", "subscription"} and topic["subscription"] in ("opt_in", "opt_out")


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    contacts: dict[str, Any] = {}
    for group, held in groups.items():
        for address in held:
            contacts.setdefault(address, {"unsubscribed": False, "topics": {}})["topics"][group] = "opt_out"
    return {"topics": {FIRST: "opt_in", SECOND: "opt_in"}, "contacts": contacts, "suppressions": []}


def held(state: Any, group: str) -> list[str]:
    return [address for address, contact in state["contacts"].items() if contact["topics"].get(group) == "opt_out"]


def blocked(state: Any) -> list[str]:
    """Whom it sends nothing at all: by the one reading of its pages, or by both."""
    return [*state["suppressions"], *(address for address, contact in state["contacts"].items() if contact["unsubscribed"])]


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=(FIRST, SECOND),
    documented=(
        Documented("GET", r"/topics/[0-9a-f-]{36}"),
        Documented("GET", f"/contacts{PAGE}"),
        Documented("POST", "/contacts", lambda body: choice(body, "email")),
        Documented("GET", PERSON),
        Documented("GET", f"{PERSON}/topics{PAGE}"),
        Documented("PATCH", f"{PERSON}/topics", choice),
    ),
    held=held,
    holding=holding,
    blocked=blocked,
    blocking={"topics": {}, "contacts": {"a@example.com": {"unsubscribed": True, "topics": {}}}, "suppressions": ["b@example.com"]},
    unfit={
        "gone": Unfit(FIRST, state=lambda state: {**state, "topics": {SECOND: "opt_in"}}),
        "no id": Unfit("no id", group="newsletter"),
        "a path": Unfit("no id", group=f"{FIRST}/../{SECOND}"),
        "empty": Unfit("no id", group=""),
    },
    refused=("newsletter", "", FIRST.upper(), f"{FIRST}/"),
    page=100,
    many=201,
    reads_back=True,
)
