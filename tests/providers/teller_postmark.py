"""Postmark under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider
from mailprefs.sandbox.postmark import STREAMS, entry

from .case_postmark import CASE
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["postmark"]
assert isinstance(PROVIDER, Provider)


def suppressions(body: str) -> bool:
    told: Any = json.loads(body)
    each = told["Suppressions"]
    return told.keys() == {"Suppressions"} and 0 < len(each) <= 50 and all(one.keys() == {"EmailAddress"} for one in each)


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    """Return Postmark's state, in which these people chose to leave these streams."""
    held = {stream: {address: entry(address) for address in groups.get(stream, ())} for stream in STREAMS}
    return {"streams": {stream: {"type": type_, "archived": False, "suppressions": held[stream]} for stream, type_ in STREAMS.items()}}


def with_stream(state: Any, **changes: object) -> Any:
    return {"streams": {**state["streams"], "broadcasts": {**state["streams"]["broadcasts"], **changes}}}


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=("broadcasts", "offers"),
    documented=(
        Documented("GET", r"/message-streams/[\w-]+"),
        Documented("GET", r"/message-streams/[\w-]+/suppressions/dump"),
        Documented("GET", r"/message-streams/[\w-]+/suppressions/dump\?EmailAddress=[^/?#&=]+%40[^/?#&=]+"),
        Documented("POST", r"/message-streams/[\w-]+/suppressions", suppressions),
        Documented("POST", r"/message-streams/[\w-]+/suppressions/delete", suppressions),
    ),
    held=lambda state, group: list(state["streams"][group]["suppressions"]),
    holding=holding,
    blocked=lambda state: list(state["streams"]["outbound"]["suppressions"]),
    blocking=holding({"outbound": ["a@example.com"]}),
    unfit={
        "transactional": Unfit("not of the type Broadcasts", group="outbound"),
        "transactional by another name": Unfit("receipts", state=lambda state: with_stream(state, type="Transactional")),
        "inbound": Unfit("not of the type Broadcasts", group="inbound"),
        "archived": Unfit("archived", state=lambda state: with_stream(state, archived=True)),
        "a path": Unfit("no id of a message stream", group="broadcasts/suppressions"),
        "dots": Unfit("no id of a message stream", group=".."),
        "empty": Unfit("no id of a message stream", group=""),
        "unknown": Unfit("has no message stream", group="no-such"),
    },
    refused=("outbound", "inbound", "", "..", "broadcasts/dump", "broadcasts?x", "é", "a b"),
)
