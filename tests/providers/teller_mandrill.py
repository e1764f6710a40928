"""Mandrill under the promises of telling."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Provider
from mailprefs.sandbox.mandrill import entry

from .case_mandrill import CASE, SUBACCOUNT
from .tellers import Documented, Teller, Unfit

PROVIDER = PROVIDERS["mandrill"]
assert isinstance(PROVIDER, Provider)
OTHER = "offers"


def says(*names: str, **fixed: str) -> Callable[[str], bool]:
    """Return whether a body says just this: what is fixed, and the names. The sandbox forgets the key."""

    def fits(body: str) -> bool:
        told: Any = json.loads(body)
        return bool(told.keys() == {"key", *names, *fixed} and fixed.items() <= told.items() and told["key"] == "")

    return fits


def holding(groups: Mapping[str, Sequence[str]]) -> Any:
    """Return Mandrill's state, in which these people stand on the denylists of these subaccounts."""
    held = {subaccount: {address: entry() for address in groups.get(subaccount, ())} for subaccount in (SUBACCOUNT, OTHER)}
    return {"account": {}, "subaccounts": held, "allowed": []}


TELLER = Teller(
    provider=PROVIDER,
    credential=CASE.credential,
    groups=(SUBACCOUNT,),
    documented=(
        Documented("POST", "/api/1.4/subaccounts/info", says(id=SUBACCOUNT), asks=True),
        Documented("POST", "/api/1.4/rejects/list", says(subaccount=SUBACCOUNT), asks=True),
        Documented("POST", "/api/1.4/rejects/list", says("email", subaccount=SUBACCOUNT), asks=True),
        Documented("POST", "/api/1.4/rejects/add", says("email", subaccount=SUBACCOUNT)),
        Documented("POST", "/api/1.4/rejects/delete", says("email", subaccount=SUBACCOUNT)),
    ),
    held=lambda state, group: list(state["subaccounts"][group]),
    holding=holding,
    blocked=lambda state: list(state["account"]),
    blocking={**holding({}), "account": {"a@example.com": entry()}},
    unfit={
        "shared": Unfit("not its subaccount", group=""),
        "another": Unfit("not its subaccount", group=OTHER),
        "gone": Unfit(SUBACCOUNT, state=lambda state: {**state, "subaccounts": {OTHER: {}}}),
    },
    refused=("", OTHER, f"{SUBACCOUNT} ", SUBACCOUNT.upper()),
    many=900,
    reads_back=True,
)
