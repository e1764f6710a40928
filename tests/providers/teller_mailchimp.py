"""Mailchimp Marketing under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider

from .case_mailchimp import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["mailchimp"]
assert isinstance(PROVIDER, Provider)
FIRST, SECOND = "a6b5da1054", "b7c6eb2165"
LISTS = r"/3\.0/lists/[0-9a-f]{10}"
MEMBER, WRITTEN = rf"{LISTS}/members/[0-9a-f]{{32}}", r"\?skip_merge_validation=true"
LISTED = "members.id,members.email_address,members.status,members.last_changed,total_items"
OPTED = "2026-01-15T09:15:30+00:00"


def stop(body: str) -> bool:
    told: Any = json.loads(body)
    return bool(told == {"email_address": told["email_address"], "status_if_new": "unsubscribed", "status": "unsubscribed"})


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    member = {"status": "unsubscribed", "timestamp_opt": OPTED, "last_changed": OPTED}
    return {"lists": {group: dict.fromkeys(held, member) for group, held in groups.items()}, "deleted": {}}


def held(state: Any, group: str) -> list[str]:
    return [address for address, member in state["lists"][group].items() if member["status"] == "unsubscribed"]


def gone_for_good(state: Any) -> list[str]:
    """Whom it deleted for good: the worst that can be done to anybody there."""
    return [address for gone in state["deleted"].values() for address in gone]


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=(FIRST, SECOND),
    documented=(
        Documented("GET", rf"{LISTS}\?fields=id"),
        Documented(
            "GET", rf"{LISTS}/members\?status=unsubscribed&count=1000&offset=\d+&sort_field=last_changed&sort_dir=ASC&fields={LISTED}"
        ),
        Documented("GET", rf"{MEMBER}\?fields=email_address,status,timestamp_opt"),
        Documented("PUT", MEMBER + WRITTEN, stop),
        Documented("PATCH", MEMBER + WRITTEN, lambda body: json.loads(body) == {"status": "subscribed"}),
        Documented("DELETE", MEMBER),
    ),
    held=held,
    holding=holding,
    blocked=gone_for_good,
    blocking={"lists": {}, "deleted": {FIRST: ["a@example.com"]}},
    unfit={
        "gone": Unfit(FIRST, state=lambda state: {**state, "lists": {SECOND: {}}}),
        "no id": Unfit("no id", group="newsletter"),
        "a path": Unfit("no id", group=f"{FIRST}/members"),
        "empty": Unfit("no id", group=""),
    },
    refused=("newsletter", "", FIRST.upper(), f"{FIRST}/", "A6B5DA1054"),
    page=1000,
    reads_back=True,
)
