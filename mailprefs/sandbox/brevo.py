"""Brevo as its documentation describes it: contacts, the blocklist of campaigns, and the one of senders that stops transactional mail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show

MOST = 1000  # contacts of a page
CHANGES = {"emailBlacklisted": bool, "smtpBlacklistSender": list}  # what a write may say that is simulated


class Brevo:
    """One Brevo account: its contacts in the order they were made."""

    def __init__(self) -> None:
        self.contacts: dict[str, dict[str, Any]] = {}

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``contacts`` by address, each with ``emailBlacklisted``, ``smtpBlacklistSender`` and ``statistics``."""
        return {"contacts": self.contacts}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.contacts = {address: {**_new(), **held} for address, held in state["contacts"].items()}

    def routes(self) -> Iterable[web.RouteDef]:
        return (
            web.get("/v3/contacts", self.list_contacts),
            web.post("/v3/contacts", self.create_contact),
            web.get("/v3/contacts/{contact}", self.show_contact),
            web.put("/v3/contacts/{contact}", self.update_contact),
            web.delete("/v3/contacts/{contact}", self.delete_contact),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without a key, None to one that has any."""
        return None if request.headers.get("api-key") else _error(401, "unauthorized")

    async def list_contacts(self, request: web.Request) -> web.StreamResponse:
        limit, offset = int(request.query.get("limit", "50")), int(request.query.get("offset", "0"))
        if not 1 <= limit <= MOST or offset < 0:
            return _error(400, "out_of_range")
        newest_last = request.query.get("sort") == "asc"
        addresses = list(self.contacts if newest_last else reversed(self.contacts))[offset : offset + limit]
        shown = [self._shown(address) for address in addresses]
        return await show(request, web.json_response({"contacts": shown, "count": len(self.contacts)}))

    async def create_contact(self, request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        address, update = (told or {}).get("email"), (told or {}).get("updateEnabled", False)
        if told is None or not isinstance(address, str) or "@" not in address:
            return _error(400, "invalid_parameter")
        if address in self.contacts and not update:
            return _error(400, "duplicate_parameter")
        answer = web.Response(status=204) if address in self.contacts else web.json_response({"id": _id(address)}, status=201)
        return await carry(request, Write(lambda: self.contacts.setdefault(address, _new()).update(_changes(told)), answer))

    async def show_contact(self, request: web.Request) -> web.Response:
        address = self._found(request)
        if address is None:
            return _error(404, "document_not_found")
        return web.json_response({**self._shown(address), "statistics": self.contacts[address]["statistics"]})

    async def update_contact(self, request: web.Request) -> web.StreamResponse:
        address, told = self._found(request), await _told(request)
        if address is None:
            return _error(404, "document_not_found")
        if told is None:
            return _error(400, "invalid_parameter")
        return await carry(request, Write(lambda: self.contacts[address].update(_changes(told)), web.Response(status=204)))

    async def delete_contact(self, request: web.Request) -> web.StreamResponse:
        address = self._found(request)
        if address is None:
            return _error(404, "document_not_found")
        return await carry(request, Write(lambda: _discard(self.contacts, address), web.Response(status=204)))

    def _found(self, request: web.Request) -> str | None:
        """Return the address of the contact that a path names, as what it says that it is."""
        named, kind = request.match_info["contact"], request.query.get("identifierType")
        if kind in (None, "email_id") and named in self.contacts:
            return named
        numbered = (address for address in self.contacts if str(_id(address)) == named)
        return next(numbered, None) if kind in (None, "contact_id") else None

    def _shown(self, address: str) -> dict[str, object]:
        held = self.contacts[address]
        more = {"smsBlacklisted": False, "listIds": [], "listUnsubscribed": None, "attributes": {}}
        return {"id": _id(address), "email": address, "emailBlacklisted": held["emailBlacklisted"], **more}


def _new() -> dict[str, Any]:
    return {"emailBlacklisted": False, "smtpBlacklistSender": [], "statistics": {}}


def _id(address: str) -> int:
    return crc32(address.encode())


def _discard(held: dict[str, Any], key: str) -> None:
    held.pop(key, None)


def _changes(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in CHANGES if name in told}


async def _told(request: web.Request) -> dict[str, Any] | None:
    """Return what a request says, None for one that is none."""
    try:
        told = await request.json()
    except ValueError:
        return None
    sound = isinstance(told, dict) and all(isinstance(told[name], kind) for name, kind in CHANGES.items() if name in told)
    return told if sound else None


def _error(status: int, code: str) -> web.Response:
    return web.json_response({"code": code, "message": code.replace("_", " ")}, status=status)
