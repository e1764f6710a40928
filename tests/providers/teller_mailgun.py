"""Mailgun under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider
from mailprefs.sandbox.mailgun import DOMAIN, entry

from .case_mailgun import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["mailgun"]
assert isinstance(PROVIDER, Provider)
LIST, ONE = rf"/v3/{DOMAIN}/unsubscribes", r"[^/?#]+%40[^/?#]+"


def entries(body: str) -> bool:
    """True for entries that name their tags: without any, all mail of the domain would stop."""
    told: Any = json.loads(body)
    return 0 < len(told) <= 999 and all(
        each.keys() == {"address", "tags", "created_at"} and each["tags"] and "*" not in each["tags"] for each in told
    )


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    """Return Mailgun's state, in which these people left these tags."""
    people = dict.fromkeys(address for held in groups.values() for address in held)
    return {
        "domains": {DOMAIN: {each: entry(each, *(tag for tag, held in groups.items() if each in held)) for each in people}},
        **dict.fromkeys(("merges", "forgets", "keeps"), False),
    }


def held(state: Any, group: str) -> list[str]:
    """Return who left the tag, or all mail of the domain."""
    return [address for address, entry in state["domains"][DOMAIN].items() if {group, "*"} & set(entry["tags"])]


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=("newsletter", "special offers"),
    documented=(
        Documented("GET", rf"{LIST}\?limit=(1|1000)&page=&address=&term="),
        Documented("GET", rf"{LIST}\?limit=1000&page=next&address={ONE}&term="),
        Documented("GET", rf"{LIST}/{ONE}"),
        Documented("POST", LIST, entries),
        Documented("DELETE", rf"{LIST}/{ONE}(\?tag=[A-Za-z%0-9]+)?"),
    ),
    held=held,
    holding=holding,
    blocked=lambda state: [address for address, entry in state["domains"][DOMAIN].items() if "*" in entry["tags"]],
    blocking={"domains": {DOMAIN: {"a@example.com": entry("a@example.com")}}},
    unfit={
        "gone": Unfit("no such sending domain", state=lambda state: {**state, "domains": {}}),
        "all mail": Unfit("all mail of the domain", group="*"),
        "empty": Unfit("all mail of the domain", group=""),
        "no ASCII": Unfit("no tag", group="Neuigkeiten für dich"),
        "space": Unfit("no tag", group=" "),
    },
    refused=("", "*", " ", "all*", "Büro", "a\nb", "a" * 129),
    page=1000,
)
