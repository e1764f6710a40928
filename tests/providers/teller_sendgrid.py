"""SendGrid under the promises of telling."""

from __future__ import annotations

import json
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider

from .case_sendgrid import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["sendgrid"]
assert isinstance(PROVIDER, Provider)


def recipients(body: str) -> bool:
    told: Any = json.loads(body)
    return told.keys() == {"recipient_emails"} and 0 < len(told["recipient_emails"]) <= 200


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=("12345", "12346"),
    documented=(
        Documented("GET", r"/v3/asm/groups/[0-9]+"),
        Documented("GET", r"/v3/asm/groups/[0-9]+/suppressions"),
        Documented("POST", r"/v3/asm/groups/[0-9]+/suppressions", recipients),
        Documented("DELETE", r"/v3/asm/groups/[0-9]+/suppressions/[^/?#]+%40[^/?#]+"),
    ),
    held=lambda state, group: state["groups"][group],
    holding=lambda groups: {"groups": groups, "global": []},
    blocked=lambda state: state["global"],
    blocking={"groups": {}, "global": ["a@example.com"]},
    unfit={
        "gone": Unfit("12345", state=lambda state: {**state, "groups": {"12346": []}}),
        "no number": Unfit("no number", group="newsletter"),
        "a path": Unfit("no number", group="12345/suppressions"),
        "empty": Unfit("no number", group=""),
    },
    refused=("newsletter", "", "12345/../1", "１", "-1"),
)
