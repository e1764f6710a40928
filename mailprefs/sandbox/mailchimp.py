"""Mailchimp Marketing as its documentation describes it: audiences, their members by MD5, and who may never come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import md5
from typing import Any

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show, soon

AUDIENCES = ("a6b5da1054", "b7c6eb2165")  # there from the start
STATUSES = ("subscribed", "unsubscribed", "cleaned", "pending", "transactional")
MOST = 1000  # members of a page


class Mailchimp:
    """One Mailchimp account: its audiences, and whom each of them deleted for good."""

    def __init__(self) -> None:
        self.lists: dict[str, dict[str, dict[str, Any]]] = {audience: {} for audience in AUDIENCES}
        self.deleted: dict[str, list[str]] = {}

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``lists`` with the members of each audience, ``deleted`` with who is gone for good.

        A member has ``status``, ``timestamp_opt`` ("" for one who was never in), and ``left``: true if it left by itself.
        """
        return {"lists": self.lists, "deleted": self.deleted}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.lists = {
            audience: {address: {**_new(), **member} for address, member in members.items()} for audience, members in state["lists"].items()
        }
        self.deleted = {audience: list(gone) for audience, gone in state["deleted"].items()}

    def routes(self) -> Iterable[web.RouteDef]:
        member = "/3.0/lists/{audience}/members/{hash:[0-9a-f]{32}}"
        return (
            web.get("/3.0/lists/{audience}", self.show_list),
            web.get("/3.0/lists/{audience}/members", self.list_members),
            web.get(member, self.show_member),
            web.put(member, self.put_member),
            web.patch(member, self.update_member),
            web.delete(member, self.archive_member),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without a key, None to one that has any."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        return None if scheme in ("Basic", "Bearer") and key else _problem(401, "API Key Missing")

    async def show_list(self, request: web.Request) -> web.Response:
        audience = request.match_info["audience"]
        return web.json_response({"id": audience}) if audience in self.lists else _problem(404, "Resource Not Found")

    async def list_members(self, request: web.Request) -> web.StreamResponse:
        count, offset = int(request.query.get("count", "10")), int(request.query.get("offset", "0"))
        if request.match_info["audience"] not in self.lists:
            return _problem(404, "Resource Not Found")
        if not 1 <= count <= MOST or offset < 0:
            return _problem(400, "Invalid Resource")
        status = request.query.get("status")
        found = [each for each in self._members(request).items() if status in (None, each[1]["status"])]
        found.sort(key=lambda each: each[1]["last_changed"], reverse=request.query.get("sort_dir") == "DESC")
        shown = [_shown(address, member) for address, member in found[offset : offset + count]]
        return await show(
            request, web.json_response({"members": shown, "list_id": request.match_info["audience"], "total_items": len(found)})
        )

    async def show_member(self, request: web.Request) -> web.Response:
        address = self._found(request)
        return web.json_response(_shown(address, self._members(request)[address])) if address else _problem(404, "Resource Not Found")

    async def put_member(self, request: web.Request) -> web.StreamResponse:
        told, members = await _told(request), self._members(request)
        address, audience = str(told.get("email_address")), request.match_info["audience"]
        status = told.get("status", told.get("status_if_new"))
        if audience not in self.lists:
            return _problem(404, "Resource Not Found")
        if "@" not in address or _hash(address) != request.match_info["hash"] or told.get("status_if_new") not in STATUSES:
            return _problem(400, "Invalid Resource")
        if address in self.deleted.get(audience, ()):
            return _problem(400, "Forgotten Email Not Subscribed")
        found = self._found(request) or address
        return await self._changed(request, members.get(found, _new()), found, status)

    async def update_member(self, request: web.Request) -> web.StreamResponse:
        address, status = self._found(request), (await _told(request)).get("status")
        if address is None:
            return _problem(404, "Resource Not Found")
        return await self._changed(request, self._members(request)[address], address, status)

    async def archive_member(self, request: web.Request) -> web.StreamResponse:
        address = self._found(request)
        if address is None:
            return _problem(404, "Resource Not Found")
        member = self._members(request)[address]
        return await carry(request, Write(lambda: member.update(status="archived"), web.Response(status=204)))

    async def _changed(self, request: web.Request, member: dict[str, Any], address: str, status: object) -> web.StreamResponse:
        if status not in STATUSES:
            return _problem(400, "Invalid Resource")
        if status == "subscribed" and (member["left"] or member["status"] == "cleaned"):
            return _problem(400, "Member In Compliance State")
        members, now = self._members(request), soon().isoformat(timespec="microseconds")
        opted = now if status == "subscribed" and not member["timestamp_opt"] else member["timestamp_opt"]
        changed = {**member, "status": status, "last_changed": now, "timestamp_opt": opted}
        return await carry(request, Write(lambda: members.update({address: changed}), web.json_response(_shown(address, changed))))

    def _members(self, request: web.Request) -> dict[str, dict[str, Any]]:
        return self.lists.get(request.match_info["audience"], {})

    def _found(self, request: web.Request) -> str | None:
        """Return the address of the member that a path names by its hash."""
        hash_ = request.match_info["hash"]
        return next((address for address in self._members(request) if _hash(address) == hash_), None)


def _new() -> dict[str, Any]:
    return {"status": None, "timestamp_opt": "", "last_changed": "", "left": False}


def _shown(address: str, member: Mapping[str, Any]) -> dict[str, object]:
    more = {name: member[name] for name in ("status", "timestamp_opt", "last_changed")}
    return {"id": _hash(address), "email_address": address, **more, "merge_fields": {}, "interests": {}}


def _hash(address: str) -> str:
    return md5(address.lower().encode(), usedforsecurity=False).hexdigest()


async def _told(request: web.Request) -> dict[str, Any]:
    try:
        told = await request.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _problem(status: int, title: str) -> web.Response:
    kind = "https://mailchimp.com/developer/marketing/docs/errors/"
    body = {"type": kind, "title": title, "status": status, "detail": f"{title}.", "instance": ""}
    return web.json_response(body, status=status, content_type="application/problem+json")
