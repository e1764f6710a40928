"""Customer.io under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider
from mailprefs.sandbox.customerio import TOPICS

from .case_customerio import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["customerio"]
assert isinstance(PROVIDER, Provider)
FIRST, SECOND = TOPICS
ON = dict.fromkeys(TOPICS, True)
FIELDS = {"cio_subscription_preferences", "unsubscribed"}


def choice(body: str) -> bool:
    told: Any = json.loads(body)
    [[name, on]] = told["attributes"].items()
    [who] = told["identifiers"]
    sound = told == {"type": "person", "action": "identify", "identifiers": told["identifiers"], "attributes": told["attributes"]}
    return sound and name.rpartition(".")[0] == "cio_subscription_preferences.topics" and type(on) is bool and who in ("email", "cio_id")


def ids(body: str) -> bool:
    told: Any = json.loads(body)
    return told.keys() == {"ids"} and 0 < len(told["ids"]) <= 100


def who_chose(body: str) -> bool:
    told: Any = json.loads(body)
    return told.keys() == {"filter"} and {each["attribute"]["field"] for each in told["filter"]["or"]} == FIELDS


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    people: dict[str, Any] = {}
    for group, held in groups.items():
        for address in held:
            people.setdefault(address, {"topics": {}})["topics"][group] = False
    return {"topics": ON, "people": people, "suppressed": []}


def held(state: Any, group: str) -> list[str]:
    return [address for address, person in state["people"].items() if person["topics"].get(group) is False]


def blocked(state: Any) -> list[str]:
    """Whom it sends nothing at all: deleted and suppressed for good, or unsubscribed from everything, by one reading of its pages."""
    return [*state["suppressed"], *(address for address, person in state["people"].items() if person["unsubscribed"])]


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=TOPICS,
    documented=(
        Documented("GET", "/v1/subscription_topics"),
        Documented("GET", r"/v1/customers\?email=[^/?#&]+%40[^/?#&]+"),
        Documented("GET", r"/v1/customers/[0-9a-f]+/attributes\?id_type=cio_id"),
        Documented("POST", r"/v1/customers/attributes\?id_type=cio_id", ids),
        Documented("POST", r"/v1/customers\?limit=100(&start=[^&#]+)?", who_chose),
        Documented("POST", "/api/v2/entity", choice),
    ),
    held=held,
    holding=holding,
    blocked=blocked,
    blocking={"topics": ON, "people": {"a@example.com": {"topics": {}, "unsubscribed": True}}, "suppressed": ["b@example.com"]},
    unfit={
        "gone": Unfit(FIRST, state=lambda state: {**state, "topics": {SECOND: True}}),
        "no identifier": Unfit("no identifier", group="newsletter"),
        "a number": Unfit("no identifier", group="7"),
        "another attribute": Unfit("no identifier", group="topic_7.x"),
        "empty": Unfit("no identifier", group=""),
    },
    refused=("newsletter", "", "7", "topic_", "topic_7 ", "Topic_7", "unsubscribed"),
    page=100,
    many=201,
    reads_back=True,
)
