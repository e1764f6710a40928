"""SparkPost under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider
from mailprefs.sandbox.sparkpost import entry

from .case_sparkpost import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["sparkpost"]
assert isinstance(PROVIDER, Provider)
FIRST, SECOND = "newsletter.example.com", "non_transactional"  # a List-Id, and all that is not transactional
LIST = "/api/v1/suppression-list"
PERSON = rf"{LIST}/[^/?#&=]+%40[^/?#&=]+"


def list_of(group: str) -> str:
    return "" if group == SECOND else group


def stops(body: str) -> bool:
    """True for the stops of one request: each says its type, and that is never the other one."""
    each: Any = json.loads(body)["recipients"]
    return 0 < len(each) <= 20 and all(
        one in ({"recipient": one["recipient"], "type": SECOND}, {"recipient": one["recipient"], "type": SECOND, "list_id": FIRST})
        for one in each
    )


def go(body: str) -> bool:
    return bool(json.loads(body) == {"type": SECOND})


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    """Return SparkPost's state, in which these people are stopped in these groups."""
    return {"entries": [entry(address, list_id=list_of(group)) for group, held in groups.items() for address in held]}


def held(state: Any, group: str) -> list[str]:
    return [each["recipient"] for each in state["entries"] if (each["type"], each["list_id"]) == (SECOND, list_of(group))]


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=(FIRST, SECOND),
    documented=(
        Documented("GET", rf"{LIST}\?types=non_transactional&list_id=({FIRST})?&cursor=[^/?#&=]+&per_page=1000"),
        Documented("GET", rf"{PERSON}\?types=non_transactional&per_page=1000"),
        Documented("PUT", f"{LIST}/", stops),
        Documented("DELETE", rf"{PERSON}\?list_id=({FIRST})?", go),
    ),
    held=held,
    holding=holding,
    blocked=lambda state: [each["recipient"] for each in state["entries"] if each["type"] == "transactional"],
    blocking={"entries": [entry("a@example.com", "transactional")]},
    unfit={
        "the other type": Unfit("no list for marketing", group="transactional"),
        "no type": Unfit("no list for marketing", group=""),
        "no list": Unfit("no list for marketing", group="newsletter"),
        "a query": Unfit("no list for marketing", group=f"{FIRST}&types=transactional"),
        "a path": Unfit("no list for marketing", group=f"{FIRST}/.."),
    },
    refused=("transactional", "", "newsletter", ".", "a..b", f"{FIRST}?x", "é.example.com", f"{'a' * 250}.example.com"),
    headers=frozenset({"X-MSYS-SUBACCOUNT"}),
    page=1000,
    reads_back=True,
)
