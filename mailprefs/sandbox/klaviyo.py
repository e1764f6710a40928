"""Klaviyo as its documentation describes it: profiles, why each is suppressed, jobs, and the unsubscribe from a list that may be global."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import NAMESPACE_URL, uuid5

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show, soon

JSON = "application/vnd.api+json"
MOST, JOB = 100, 100  # profiles of a page, profiles in a job
ANY = re.compile(r"any\((email|id),(\[.*\])\)")
REASON = re.compile(r'equals\(subscriptions\.email\.marketing\.suppression\.reason,"([A-Z_]+)"\)')


class Klaviyo:
    """One Klaviyo account: its profiles by address, and the jobs it has taken."""

    def __init__(self) -> None:
        self.profiles: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, str] = {}

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``profiles`` by address, each with ``suppression`` (reason → since) and ``lists``."""
        return {"profiles": self.profiles}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.profiles = {
            address: {"suppression": dict(held["suppression"]), "lists": list(held.get("lists", ()))}
            for address, held in state["profiles"].items()
        }

    def routes(self) -> Iterable[web.RouteDef]:
        return (
            web.post("/api/profile-suppression-bulk-create-jobs", self.suppress),
            web.post("/api/profile-suppression-bulk-delete-jobs", self.unsuppress),
            web.post("/api/profile-subscription-bulk-delete-jobs", self.unsubscribe),
            web.get("/api/profiles", self.list_profiles),
            web.get("/api/profiles/{id}", self.show_profile),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without a key or a revision, None to one that has both."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Klaviyo-API-Key" or not key:
            return _error(401, "not_authenticated")
        return None if request.headers.get("revision") else _error(400, "invalid")

    async def suppress(self, request: web.Request) -> web.StreamResponse:
        return await self._job(request, "profile-suppression-bulk-create-job", self._suppress)

    async def unsuppress(self, request: web.Request) -> web.StreamResponse:
        return await self._job(request, "profile-suppression-bulk-delete-job", self._unsuppress)

    async def unsubscribe(self, request: web.Request) -> web.StreamResponse:
        """The documented trap: whoever is not in the list is unsubscribed from everything."""
        told = await _told(request)
        audience = _within(told, "data", "relationships", "list", "data", "id")

        def unsubscribe(address: str) -> None:
            held = self._made(address)
            if audience in held["lists"]:
                held["lists"].remove(audience)
            else:
                held["suppression"]["UNSUBSCRIBE"] = _now()

        return await self._job(request, "profile-subscription-bulk-delete-job", unsubscribe, answered=False)

    async def list_profiles(self, request: web.Request) -> web.StreamResponse:
        size, cursor = int(request.query.get("page[size]", "20")), int(request.query.get("page[cursor]", "0"))
        told = request.query.get("filter", "")
        chosen, reason = ANY.fullmatch(told), REASON.fullmatch(told)
        if not 1 <= size <= MOST or (told and not chosen and not reason):
            return _error(400, "invalid")
        found = list(self.profiles)
        if chosen:
            named = {each.casefold() for each in json.loads(chosen[2])}
            found = [address for address in found if (address if chosen[1] == "email" else _id(address)).casefold() in named]
        if reason:
            found = [address for address in found if reason[1] in self.profiles[address]["suppression"]]
        following = None
        if cursor + size < len(found):
            following = f"https://a.klaviyo.com/api/profiles?{urlencode({**request.query, 'page[cursor]': cursor + size})}"
        body = {"data": [self._shown(each) for each in found[cursor : cursor + size]], "links": {"self": "", "next": following}}
        answer = web.json_response(body, content_type=JSON)
        return await show(request, answer) if reason else answer

    async def show_profile(self, request: web.Request) -> web.Response:
        found = [address for address in self.profiles if _id(address) == request.match_info["id"]]
        return web.json_response({"data": self._shown(found[0])}, content_type=JSON) if found else _error(404, "not_found")

    async def _job(self, request: web.Request, kind: str, change: Callable[[str], None], *, answered: bool = True) -> web.StreamResponse:
        told = await _told(request)
        profiles = _within(told, "data", "attributes", "profiles", "data")
        addresses = [_within(each, "attributes", "email") for each in profiles] if isinstance(profiles, list) else []
        if _within(told, "data", "type") != kind or not 1 <= len(addresses) <= JOB or not all("@" in str(each) for each in addresses):
            return _error(400, "invalid")
        if request.content_type != JSON:
            return _error(415, "unsupported_media_type")
        id_ = str(len(self.jobs) + 1)
        self.jobs[id_] = kind
        attributes = {"status": "queued", "created_at": _now(), "total_count": len(addresses)}
        body = {"data": {"type": kind, "id": id_, "attributes": attributes, "links": {"self": f"https://a.klaviyo.com/api/{kind}s/{id_}"}}}
        answer = web.json_response(body, status=202, content_type=JSON) if answered else web.Response(status=202)

        def run(some: Iterable[str]) -> None:
            for each in some:
                change(each)

        partly = Write(lambda: run(addresses[1:]), answer) if len(addresses) > 1 else None
        return await carry(request, Write(lambda: run(addresses), answer, partly))

    def _suppress(self, address: str) -> None:
        self._made(address)["suppression"].setdefault("USER_SUPPRESSED", _now())

    def _unsuppress(self, address: str) -> None:
        """Take back what was suppressed by hand, and no other reason; who is no profile stays none."""
        found = self._found(address)
        if found:
            self.profiles[found]["suppression"].pop("USER_SUPPRESSED", None)

    def _made(self, address: str) -> dict[str, Any]:
        return self.profiles.setdefault(self._found(address) or address, {"suppression": {}, "lists": []})

    def _found(self, address: str) -> str | None:
        return (
            address if address in self.profiles else next((each for each in self.profiles if each.casefold() == address.casefold()), None)
        )

    def _shown(self, address: str) -> dict[str, object]:
        suppression = [{"reason": reason, "timestamp": since} for reason, since in self.profiles[address]["suppression"].items()]
        marketing = {"can_receive_email_marketing": not suppression, "consent": "NEVER_SUBSCRIBED", "suppression": suppression}
        subscriptions = {"email": {"marketing": {**marketing, "list_suppressions": []}}, "sms": None}
        attributes = {"email": address, "subscriptions": subscriptions}
        return {"type": "profile", "id": _id(address), "attributes": attributes, "links": {"self": ""}}


def _id(address: str) -> str:
    return uuid5(NAMESPACE_URL, f"mailto:{address}").hex[:26].upper()


def _now() -> str:
    return soon().isoformat(timespec="microseconds")


def _within(value: object, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


async def _told(request: web.Request) -> object:
    try:
        return json.loads(await request.read())
    except ValueError:
        return None


def _error(status: int, code: str) -> web.Response:
    error = {"id": "0", "status": status, "code": code, "title": code.replace("_", " "), "detail": code.replace("_", " ")}
    return web.json_response({"errors": [error]}, status=status, content_type=JSON)
