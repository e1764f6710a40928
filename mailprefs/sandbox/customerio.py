"""Customer.io as its documentation describes it: people with their preferences, topics, and the two APIs that change and show them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show, soon

TOPICS = ("topic_7", "topic_8")  # there from the start, on by default
PREFERENCES = "cio_subscription_preferences"
DOTTED = f"{PREFERENCES}.topics."
MOST = 1000  # people of a page
AT_ONCE = 100  # people whose attributes are shown


class CustomerIo:
    """One workspace that knows people by their addresses: its topics, its people, and whom it deleted and suppressed for good."""

    def __init__(self) -> None:
        self.topics: dict[str, bool] = dict.fromkeys(TOPICS, True)
        self.people: dict[str, dict[str, Any]] = {}
        self.suppressed: list[str] = []

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``topics`` with their defaults, ``people`` by address, ``suppressed`` for good.

        A person has ``unsubscribed`` (from everything) and ``topics`` (what was chosen), and ``at``, when that was changed last.
        """
        return {"topics": self.topics, "people": self.people, "suppressed": self.suppressed}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.topics = dict(state["topics"])
        self.people = {
            address: {"unsubscribed": bool(held.get("unsubscribed")), "topics": dict(held["topics"]), "at": int(held.get("at", _now()))}
            for address, held in state["people"].items()
        }
        self.suppressed = list(state["suppressed"])

    def routes(self) -> Iterable[web.RouteDef]:
        return (
            web.post("/api/v2/entity", self.entity),
            web.get("/v1/subscription_topics", self.list_topics),
            web.get("/v1/customers", self.find),
            web.post("/v1/customers", self.search),
            web.post("/v1/customers/attributes", self.attributes),
            web.get("/v1/customers/{id}/attributes", self.show_person),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without the keys of its API, None to one that has any."""
        wanted = "Basic" if request.path.startswith("/customerio/api/v2/") else "Bearer"
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        return None if scheme == wanted and key else web.json_response({"meta": {"error": "unauthorized"}}, status=401)

    async def entity(self, request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        whom, attributes = told.get("identifiers"), told.get("attributes")
        named = (told.get("type"), told.get("action")) == ("person", "identify")
        if not (named and isinstance(whom, dict) and isinstance(attributes, dict)):
            return _error("malformed")
        address = whom.get("email") or self._by_id(str(whom.get("cio_id")))
        topics = {name.removeprefix(DOTTED): on for name, on in attributes.items() if name.startswith(DOTTED)}
        if len(whom) != 1 or not isinstance(address, str) or "@" not in address:
            return _error("invalid identifiers")

        def apply() -> None:
            known = next((each for each in self.people if each.casefold() == address.casefold()), address)
            held = self.people.setdefault(known, {"unsubscribed": False, "topics": {}, "at": _now()})
            held["topics"].update(topics)
            held["at"] = _now()

        return await carry(request, Write(apply, web.json_response({})))

    async def list_topics(self, request: web.Request) -> web.Response:
        topics = [
            {"id": int(name.removeprefix("topic_")), "identifier": name, "name": f"Topic {name[6:]}", "subscribed_by_default": usual}
            for name, usual in self.topics.items()
        ]
        return web.json_response({"topics": topics})

    async def find(self, request: web.Request) -> web.Response:
        wanted = request.query.get("email", "").casefold()
        return web.json_response({"results": [self._named(address) for address in self.people if address.casefold() == wanted]})

    async def search(self, request: web.Request) -> web.StreamResponse:
        limit, start = int(request.query.get("limit", "50")), int(request.query.get("start", "0"))
        wanted = (await _told(request)).get("filter", {}).get("or", [])
        if not 1 <= limit <= MOST or not wanted:
            return _error("malformed")
        fields = {each["attribute"]["field"] for each in wanted}
        chose = [address for address, held in self.people.items() if held["topics"] and PREFERENCES in fields]
        left = [address for address, held in self.people.items() if held["unsubscribed"] and "unsubscribed" in fields]
        found = list(dict.fromkeys(chose + left))
        shown = [self._named(address) for address in found[start : start + limit]]
        following = str(start + limit) if start + limit < len(found) else ""
        return await show(request, web.json_response({"identifiers": shown, "ids": [], "next": following}))

    async def show_person(self, request: web.Request) -> web.Response:
        address = self._by_id(request.match_info["id"]) if request.query.get("id_type") == "cio_id" else None
        return web.json_response({"customer": self._shown(address)}) if address else web.json_response({"errors": []}, status=404)

    async def attributes(self, request: web.Request) -> web.Response:
        ids = (await _told(request)).get("ids")
        if request.query.get("id_type") != "cio_id" or not isinstance(ids, list) or not 0 < len(ids) <= AT_ONCE:
            return _error("malformed")
        found = {_id(address): address for address in self.people}
        return web.json_response({"customers": [self._shown(found[each]) for each in ids if each in found]})

    def _by_id(self, id_: str) -> str | None:
        return next((address for address in self.people if _id(address) == id_), None)

    def _named(self, address: str) -> dict[str, object]:
        return {"email": address, "id": None, "cio_id": _id(address)}

    def _shown(self, address: str) -> dict[str, object]:
        held = self.people[address]
        chosen = {PREFERENCES: json.dumps({"topics": held["topics"]})} if held["topics"] else {}
        stamps = dict.fromkeys((*chosen, *(["unsubscribed"] * held["unsubscribed"])), held["at"])
        attributes = {"email": address, "cio_id": _id(address), **chosen}
        return {"id": "", "attributes": attributes, "timestamps": stamps, "unsubscribed": held["unsubscribed"], "devices": []}


def _id(address: str) -> str:
    return sha256(address.encode()).hexdigest()[:16]


def _now() -> int:
    return int(soon().timestamp())


async def _told(request: web.Request) -> dict[str, Any]:
    try:
        told = await request.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _error(message: str) -> web.Response:
    return web.json_response({"errors": [{"reason": "invalid", "field": "", "message": message}]}, status=400)
