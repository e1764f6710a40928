"""Amazon SES under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider
from mailprefs.sandbox.ses import IN, LIST, OUT, TOPICS, contact

from .case_ses import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["ses"]
assert isinstance(PROVIDER, Provider)
LISTS = rf"/v2/email/contact-lists/{LIST}"
ONE = rf"{LISTS}/contacts/[^/?#]+%40[^/?#]+"


def preferences(body: str, *more: str) -> bool:
    """True for choices as CreateContact and UpdateContact take them."""
    told: Any = json.loads(body)
    choices = all(each.keys() == {"TopicName", "SubscriptionStatus"} for each in told["TopicPreferences"])
    words = all(each["SubscriptionStatus"] in (IN, OUT) for each in told["TopicPreferences"])
    return choices and words and set(told) >= {"TopicPreferences", *more}


def page(body: str) -> bool:
    told: Any = json.loads(body)
    return set(told) <= {"PageSize", "NextToken"} and 0 < int(told["PageSize"]) <= 1000


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    """Return the state of SES, in which these people opted out of these topics."""
    people = dict.fromkeys(address for held in groups.values() for address in held)
    contacts = {each: contact({}) | {"choices": {topic: OUT for topic, held in groups.items() if each in held}} for each in people}
    return {"lists": {LIST: {"topics": dict.fromkeys(TOPICS, IN), "contacts": contacts}}, "suppressed": []}


def held(state: Any, topic: str) -> list[str]:
    contacts = state["lists"][LIST]["contacts"]
    return [address for address, one in contacts.items() if one["all"] or one["choices"].get(topic) == OUT]


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=("newsletter", "offers"),
    documented=(
        Documented("GET", LISTS),
        Documented("GET", ONE),
        Documented("POST", rf"{LISTS}/contacts", lambda body: preferences(body, "EmailAddress")),
        Documented("PUT", ONE, preferences),
        Documented("POST", rf"{LISTS}/contacts/list", page),
    ),
    held=held,
    holding=holding,
    blocked=lambda state: state["suppressed"],
    blocking={"lists": {}, "suppressed": ["a@example.com"]},
    unfit={
        "no list": Unfit("no such contact list", state=lambda state: {**state, "lists": {}}),
        "no topic": Unfit(
            "no topic 'newsletter'", state=lambda state: {**state, "lists": {LIST: {"topics": {"offers": IN}, "contacts": {}}}}
        ),
        "unknown": Unfit("no topic 'surveys'", group="surveys"),
        "a path": Unfit("no name of a topic", group="newsletter/x"),
        "empty": Unfit("no name of a topic", group=""),
    },
    refused=("", "..", "a b", "newsletter/x", "Büro", "a" * 65),
    headers=frozenset({"X-Amz-Date"}),
    page=1000,
    reads_back=True,
)
