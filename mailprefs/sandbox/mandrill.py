"""Mandrill as its documentation describes it: a denylist of the account, which stops all mail, and one of each subaccount."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show, soon

SUBACCOUNTS = ("marketing", "offers")  # there from the start
MOST = 1000  # entries that a listing shows
DAYS = {"soft-bounce": 1, "hard-bounce": 7, "unsub": 365, "spam": 365}  # after which an entry is forgotten, by its reason

Entry = dict[str, Any]


class Mandrill:
    """One Mandrill account: its denylist, those of its subaccounts, and its allowlist."""

    def __init__(self) -> None:
        self.account: dict[str, Entry] = {}
        self.subaccounts: dict[str, dict[str, Entry]] = {name: {} for name in SUBACCOUNTS}
        self.allowed: list[str] = []

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``account`` and ``subaccounts`` by address, and who is ``allowed`` whatever stands there."""
        return {"account": self.account, "subaccounts": self.subaccounts, "allowed": self.allowed}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.account = dict(state["account"])
        self.subaccounts = {name: dict(held) for name, held in state["subaccounts"].items()}
        self.allowed = list(state["allowed"])

    def routes(self) -> Iterable[web.RouteDef]:
        path = "/api/1.4"
        return (
            web.post(f"{path}/subaccounts/info", self.show_subaccount),
            web.post(f"{path}/rejects/list", self.list_rejects),
            web.post(f"{path}/rejects/add", self.add),
            web.post(f"{path}/rejects/delete", self.delete),
        )

    def refusal(self, _: web.Request) -> web.Response | None:
        """Return None: the key is in the body, and is looked at with it."""
        return None

    async def show_subaccount(self, request: web.Request) -> web.Response:
        told = await _told(request)
        if refused := self._refusal(told, "id"):
            return refused
        return web.json_response({"id": told["id"], "name": "", "status": "active", "reputation": 50, "custom_quota": None})

    async def list_rejects(self, request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        if refused := self._refusal(told):
            return refused
        subaccount, searched, expired = told.get("subaccount"), told.get("email"), told.get("include_expired") is True
        wanted = None if searched is None else str(searched).casefold()
        found = [
            {"email": address, "detail": "", **entry, "subaccount": subaccount}
            for address, entry in self._held(subaccount).items()
            if wanted in (None, address.casefold()) and (expired or not entry["expired"])
        ]
        answer = web.json_response(found[:MOST])
        return await show(request, answer) if wanted is None else answer

    async def add(self, request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        if refused := self._refusal(told) or _no_email(told):
            return refused
        held, address = self._held(told.get("subaccount")), told["email"]

        def apply() -> None:
            if address not in self.allowed:
                held[_spelt(held, address)] = entry()

        return await carry(request, Write(apply, web.json_response({"email": address, "added": True})))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        if refused := self._refusal(told) or _no_email(told):
            return refused
        held, address, subaccount = self._held(told.get("subaccount")), told["email"], told.get("subaccount")
        there = _spelt(held, address)
        answer = web.json_response({"email": address, "deleted": there in held, "subaccount": subaccount})
        return await carry(request, Write(lambda: _discard(held, there), answer))

    def _held(self, subaccount: object) -> dict[str, Entry]:
        return self.account if subaccount is None else self.subaccounts[str(subaccount)]

    def _refusal(self, told: Mapping[str, Any], named: str = "subaccount") -> web.Response | None:
        if not told.get("key"):
            return _error(401, -1, "Invalid_Key")
        subaccount = told.get(named)
        if (named == "id" or subaccount is not None) and subaccount not in self.subaccounts:
            return _error(500, 12, "Unknown_Subaccount")
        return None


def entry(reason: str = "custom", age: int = 0) -> Entry:
    """Return somebody's entry in a denylist, so many days old, as it is held: by hand or by the API it never ends."""
    left = DAYS[reason] - age if reason in DAYS else None
    ends = soon(left * 86_400) if left is not None else None
    times = {"created_at": _time(), "last_event_at": _time(), "expires_at": ends.strftime("%Y-%m-%d %H:%M:%S") if ends else None}
    return {"reason": reason, **times, "expired": left is not None and left <= 0}


def _time() -> str:
    return soon().strftime("%Y-%m-%d %H:%M:%S")


def _spelt(held: Mapping[str, Entry], address: str) -> str:
    """Return an address as it stands there, or as it came."""
    return next((each for each in held if each.casefold() == address.casefold()), address)


def _discard(held: dict[str, Entry], address: str) -> None:
    held.pop(address, None)


def _no_email(told: Mapping[str, Any]) -> web.Response | None:
    return None if isinstance(told.get("email"), str) and "@" in told["email"] else _error(500, -2, "ValidationError")


async def _told(request: web.Request) -> dict[str, Any]:
    try:
        told = await request.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _error(status: int, code: int, name: str) -> web.Response:
    return web.json_response({"status": "error", "code": code, "name": name, "message": name.replace("_", " ")}, status=status)
