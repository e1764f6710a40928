"""Mailjet under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider
from mailprefs.sandbox.mailjet import LISTS

from .case_mailjet import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["mailjet"]
assert isinstance(PROVIDER, Provider)
REST = r"/v3/REST"
FIRST, SECOND = LISTS
PAGE = r"&Sort=ID&Limit=1000&Offset=\d+"


def stop(body: str) -> bool:
    told: Any = json.loads(body)
    return bool(told == {"Email": told["Email"], "Action": "unsub"})


def made_as_one_who_left(body: str) -> bool:
    told: Any = json.loads(body)
    return bool(told == {"ContactAlt": told["ContactAlt"], "ListID": told["ListID"], "IsUnsubscribed": True})


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    """Return Mailjet's state, in which these people were in these lists and left them."""
    member = {"left": True, "until": "2026-11-20T08:58:33Z"}
    return {"lists": {list_: dict.fromkeys(groups.get(list_, ()), member) for list_ in LISTS}}


def held(state: Any, group: str) -> list[str]:
    return [address for address, member in state["lists"][group].items() if member["left"]]


def excluded(state: Any) -> list[str]:
    """Who gets no campaign of any list any more: more than a contact list is ever about. Nothing that we could do is worse."""
    return list(state["excluded"])


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=LISTS,
    documented=(
        Documented("GET", rf"{REST}/contactslist/[0-9]+"),
        Documented("GET", rf"{REST}/contact/[^/?#]+%40[^/?#]+"),
        Documented("GET", rf"{REST}/listrecipient\?Contact=[0-9]+&ContactsList=[0-9]+&Limit=1000"),
        Documented("GET", rf"{REST}/listrecipient\?ContactsList=[0-9]+&Unsub=true{PAGE}"),
        Documented("GET", rf"{REST}/contact\?ContactsList=[0-9]+{PAGE}"),
        Documented("POST", rf"{REST}/contactslist/[0-9]+/managecontact", stop),
        Documented("POST", rf"{REST}/listrecipient", made_as_one_who_left),
        Documented("PUT", rf"{REST}/listrecipient/[0-9]+", lambda body: json.loads(body) == {"IsUnsubscribed": False}),
        Documented("DELETE", rf"{REST}/listrecipient/[0-9]+"),
    ),
    held=held,
    holding=holding,
    blocked=excluded,
    blocking={"lists": {list_: {} for list_ in LISTS}, "contacts": ["a@example.com"], "excluded": ["a@example.com"]},
    unfit={
        "gone": Unfit(FIRST, state=lambda state: {**state, "lists": {SECOND: {}}}),
        "no number": Unfit("no number", group="newsletter"),
        "no list": Unfit("no number", group="0"),
        "a path": Unfit("no number", group=f"{FIRST}/managecontact"),
        "empty": Unfit("no number", group=""),
    },
    refused=("newsletter", "", "0", f"{FIRST}/", "１", "-1"),
    page=1000,
    reads_back=True,
)
