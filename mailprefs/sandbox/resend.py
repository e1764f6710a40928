"""Resend as its documentation describes it: topics, contacts with their choices, and the suppression list that stops all mail.

What the documentation leaves open is a switch in its state: ``takes``, how a contact's choices are spelt, as an ``object`` that has them
(its OpenAPI document), as an ``array`` of them (its SDKs), or as ``either``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show

TOPICS = ("78b8d3bc-a55a-45a3-aee6-6ec0a5e13d7e", "b6d24b8e-af0b-4c3c-be0c-359bbd97381e")  # there from the start
CHOICES = ("opt_in", "opt_out")
MOST = 100  # entries of a page


class Resend:
    """One Resend team: its topics, its contacts, and whom it sends nothing at all."""

    def __init__(self) -> None:
        self.topics: dict[str, str] = dict.fromkeys(TOPICS, "opt_in")
        self.contacts: dict[str, dict[str, Any]] = {}
        self.suppressions: list[str] = []
        self.takes = "either"

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``topics`` with their defaults, ``contacts`` with their choices, ``suppressions``; and ``takes``."""
        return {"topics": self.topics, "contacts": self.contacts, "suppressions": self.suppressions, "takes": self.takes}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.topics = dict(state["topics"])
        self.contacts = {
            address: {"unsubscribed": bool(held["unsubscribed"]), "topics": dict(held["topics"])}
            for address, held in state["contacts"].items()
        }
        self.suppressions = list(state["suppressions"])
        self.takes = str(state.get("takes", "either"))

    def routes(self) -> Iterable[web.RouteDef]:
        return (
            web.get("/topics", self.list_topics),
            web.get("/topics/{topic}", self.show_topic),
            web.delete("/topics/{topic}", self.delete_topic),
            web.get("/contacts", self.list_contacts),
            web.post("/contacts", self.create_contact),
            web.get("/contacts/{contact}", self.show_contact),
            web.patch("/contacts/{contact}", self.update_contact),
            web.delete("/contacts/{contact}", self.delete_contact),
            web.get("/contacts/{contact}/topics", self.list_choices),
            web.patch("/contacts/{contact}/topics", self.update_choices),
            web.get("/suppressions", self.list_suppressions),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without a key, None to one that has any."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        return None if scheme == "Bearer" and key else _error(401, "missing_api_key")

    async def list_topics(self, request: web.Request) -> web.StreamResponse:
        return _page(request, [self._topic(topic) for topic in self.topics])

    async def show_topic(self, request: web.Request) -> web.Response:
        topic = request.match_info["topic"]
        return web.json_response({"object": "topic", **self._topic(topic)}) if topic in self.topics else _error(404, "not_found")

    async def delete_topic(self, request: web.Request) -> web.StreamResponse:
        topic = request.match_info["topic"]
        if topic not in self.topics:
            return _error(404, "not_found")
        answer = web.json_response({"object": "topic", "id": topic, "deleted": True})
        return await carry(request, Write(lambda: _discard(self.topics, topic), answer))

    async def list_contacts(self, request: web.Request) -> web.StreamResponse:
        return await show(request, _page(request, [self._contact(address) for address in reversed(self.contacts)]))

    async def create_contact(self, request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        address, unsubscribed = told.get("email"), told.get("unsubscribed", False)
        choices = self._choices(told.get("topics", []))
        if not (isinstance(address, str) and "@" in address and isinstance(unsubscribed, bool)) or choices is None:
            return _error(422, "validation_error")

        def apply() -> None:
            held = self.contacts.setdefault(address, {"unsubscribed": unsubscribed, "topics": {}})
            held["topics"].update(choices)

        return await carry(request, Write(apply, web.json_response({"object": "contact", "id": _id(address)}, status=201)))

    async def show_contact(self, request: web.Request) -> web.Response:
        address = self._found(request)
        return web.json_response({"object": "contact", **self._contact(address), "properties": {}}) if address else _error(404, "not_found")

    async def update_contact(self, request: web.Request) -> web.StreamResponse:
        address, unsubscribed = self._found(request), (await _told(request)).get("unsubscribed")
        if address is None:
            return _error(404, "not_found")
        if not isinstance(unsubscribed, bool):
            return _error(422, "validation_error")
        answer = web.json_response({"object": "contact", "id": _id(address)})
        return await carry(request, Write(lambda: self.contacts[address].update(unsubscribed=unsubscribed), answer))

    async def delete_contact(self, request: web.Request) -> web.StreamResponse:
        address = self._found(request)
        if address is None:
            return _error(404, "not_found")
        answer = web.json_response({"object": "contact", "id": _id(address), "deleted": True})
        return await carry(request, Write(lambda: _discard(self.contacts, address), answer))

    async def list_choices(self, request: web.Request) -> web.StreamResponse:
        address = self._found(request)
        if address is None:
            return _error(404, "not_found")
        chosen = self.contacts[address]["topics"]
        return _page(request, [{**self._topic(topic), "subscription": chosen.get(topic, usual)} for topic, usual in self.topics.items()])

    async def update_choices(self, request: web.Request) -> web.StreamResponse:
        address, choices = self._found(request), self._choices(self._spelt(await _body(request)))
        if address is None:
            return _error(404, "not_found")
        if not choices:
            return _error(422, "validation_error")
        shown = [{"id": topic, "subscription": choice} for topic, choice in choices.items()]
        answer = web.json_response({"object": "contact_topics", "contact_id": _id(address), "topics": shown})
        return await carry(request, Write(lambda: self.contacts[address]["topics"].update(choices), answer))

    async def list_suppressions(self, request: web.Request) -> web.StreamResponse:
        return _page(request, [{"id": _id(address), "email": address, "origin": "manual"} for address in self.suppressions])

    def _found(self, request: web.Request) -> str | None:
        """Return the address of the contact that a path names by address or id."""
        named = request.match_info["contact"]
        return named if named in self.contacts else next((address for address in self.contacts if _id(address) == named), None)

    def _spelt(self, told: object) -> object:
        """Return the choices in the body of a change, None if they are spelt in a way that is not taken."""
        spelling, choices = ("object", told.get("topics")) if isinstance(told, dict) else ("array", told)
        return choices if self.takes in (spelling, "either") else None

    def _choices(self, told: object) -> dict[str, str] | None:
        """Return topic → choice of a request, None for one that is none or names a topic that does not exist."""
        if not isinstance(told, list) or not all(isinstance(each, dict) for each in told):
            return None
        choices = {str(each.get("id")): str(each.get("subscription")) for each in told}
        return choices if choices.keys() <= self.topics.keys() and set(choices.values()) <= set(CHOICES) else None

    def _topic(self, topic: str) -> dict[str, object]:
        return {"id": topic, "name": f"Topic {topic[:4]}", "description": "", "default_subscription": self.topics[topic]}

    def _contact(self, address: str) -> dict[str, object]:
        return {"id": _id(address), "email": address, "unsubscribed": self.contacts[address]["unsubscribed"]}


def _page(request: web.Request, entries: list[dict[str, object]]) -> web.Response:
    """Return the page that a request asks for: ``limit`` of them, behind the one with the id ``after``."""
    limit, after = int(request.query.get("limit", "20")), request.query.get("after")
    ids = [each["id"] for each in entries]
    if not 1 <= limit <= MOST or (after is not None and after not in ids):
        return _error(422, "validation_error")
    start = ids.index(after) + 1 if after is not None else 0
    return web.json_response({"object": "list", "has_more": start + limit < len(entries), "data": entries[start : start + limit]})


def _id(address: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"mailto:{address}"))


def _discard(held: dict[str, Any], key: str) -> None:
    held.pop(key, None)


async def _told(request: web.Request) -> dict[str, Any]:
    told = await _body(request)
    return told if isinstance(told, dict) else {}


async def _body(request: web.Request) -> object:
    """Return the JSON of a request, None if it has none."""
    try:
        return await request.json()
    except ValueError:
        return None


def _error(status: int, name: str) -> web.Response:
    return web.json_response({"statusCode": status, "name": name, "message": name.replace("_", " ")}, status=status)
