"""Klaviyo under the promises of telling."""

from __future__ import annotations

import json
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider

from .case_klaviyo import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["klaviyo"]
assert isinstance(PROVIDER, Provider)
SINCE = "2026-11-20T09:15:30+00:00"
FIELDS = r"/api/profiles\?additional-fields%5Bprofile%5D=subscriptions&fields%5Bprofile%5D=email,subscriptions"
SIZE = r"page%5Bsize%5D=100"


def job(body: str) -> bool:
    """True for a job about addresses and nothing else: no list, no segment, no subscription."""
    told: Any = json.loads(body)
    profiles = told["data"]["attributes"]["profiles"]["data"]
    return (
        told.keys() == {"data"}
        and told["data"].keys() == {"type", "attributes"}
        and 0 < len(profiles) <= 100
        and all(each == {"type": "profile", "attributes": {"email": each["attributes"]["email"]}} for each in profiles)
    )


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=("suppressed",),
    documented=(
        Documented("POST", "/api/profile-suppression-bulk-(create|delete)-jobs", job),
        Documented("GET", rf"{FIELDS}&filter=any%28email%2C%5B%22[^&]+%22%5D%29&{SIZE}"),
        Documented(
            "GET",
            rf"{FIELDS}&filter=equals%28subscriptions\.email\.marketing\.suppression\.reason%2C%22[A-Z_]+%22%29"
            rf"&{SIZE}(&page%5Bcursor%5D=\w+)?",
        ),
    ),
    held=lambda state, _: [address for address, profile in state["profiles"].items() if "USER_SUPPRESSED" in profile["suppression"]],
    holding=lambda groups: {"profiles": {each: {"suppression": {"USER_SUPPRESSED": SINCE}} for each in groups["suppressed"]}},
    # for whom more is recorded than a suppression of ours, which no go could take back
    blocked=lambda state: [each for each, profile in state["profiles"].items() if profile["suppression"].keys() - {"USER_SUPPRESSED"}],
    blocking={"profiles": {"a@example.com": {"suppression": {"UNSUBSCRIBE": SINCE}}}},
    unfit={
        "a list": Unfit("not Klaviyo's list of suppressed profiles", group="Y6nRLr"),
        "another word": Unfit("not Klaviyo's list of suppressed profiles", group="marketing"),
        "empty": Unfit("not Klaviyo's list of suppressed profiles", group=""),
    },
    refused=("Y6nRLr", "", "Suppressed", "newsletter"),
    headers=frozenset({"revision"}),
    page=100,
    named=False,
    reads_back=True,
)
