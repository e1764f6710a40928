"""Amazon SES as its service model describes it: a contact list, whose writes replace everything that stood for a contact."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show, soon

LIST = "main"  # there from the start, with two topics
TOPICS = ("newsletter", "offers")
IN, OUT = "OPT_IN", "OPT_OUT"
PAGE, LARGEST_PAGE = 100, 1000  # contacts
_PROOF = re.compile(
    r"AWS4-HMAC-SHA256 Credential=\w{16,128}/\d{8}/[a-z0-9-]+/ses/aws4_request, "
    r"SignedHeaders=[a-z0-9-]+(?:;[a-z0-9-]+)*, Signature=[0-9a-f]{64}"
)

Contact = dict[str, Any]


class SES:
    """One account in one region: its contact list, and the account's own suppression list, which stops all mail."""

    def __init__(self) -> None:
        self.lists: dict[str, dict[str, Any]] = {LIST: {"topics": dict.fromkeys(TOPICS, IN), "contacts": {}}}
        self.suppressed: list[str] = []

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``lists`` by name, each with its topics' defaults and its contacts by address; who is ``suppressed``."""
        return {"lists": self.lists, "suppressed": self.suppressed}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.lists = {
            str(name): {"topics": dict(held["topics"]), "contacts": dict(held["contacts"])} for name, held in state["lists"].items()
        }
        self.suppressed = list(state.get("suppressed", ()))

    def routes(self) -> Iterable[web.RouteDef]:
        path = "/v2/email/contact-lists/{list}"
        return (
            web.get(path, self.show_list),
            web.post(f"{path}/contacts", self.create),
            web.post(f"{path}/contacts/list", self.list_contacts),
            web.get(path + "/contacts/{address}", self.show),
            web.put(path + "/contacts/{address}", self.update),
            web.delete(path + "/contacts/{address}", self.delete),
            web.put("/v2/email/suppression/addresses", self.suppress),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request that is not signed, None to one that looks so."""
        proven = _PROOF.fullmatch(request.headers.get("Authorization", "")) and request.headers.get("X-Amz-Date")
        return None if proven else _error(403, "MissingAuthenticationTokenException", "Missing Authentication Token")

    async def show_list(self, request: web.Request) -> web.Response:
        held = self._list(request)
        if held is None:
            return _no_list()
        topics = [{"TopicName": each, "DisplayName": each, "DefaultSubscriptionStatus": held["topics"][each]} for each in held["topics"]]
        return web.json_response({"ContactListName": request.match_info["list"], "Topics": topics, "Tags": []})

    async def create(self, request: web.Request) -> web.StreamResponse:
        held, told = self._list(request), _read(await request.read())
        if held is None:
            return _no_list()
        if told is None or not _known(told, held) or "@" not in str(told.get("EmailAddress")):
            return _error(400, "BadRequestException", "Invalid contact")
        address = told["EmailAddress"]
        if address in held["contacts"]:
            return _error(400, "AlreadyExistsException", "Contact already exists")
        return await carry(request, Write(lambda: held["contacts"].setdefault(address, contact(told)), web.json_response({})))

    async def show(self, request: web.Request) -> web.Response:
        held, address = self._list(request), request.match_info["address"]
        if held is None or address not in held["contacts"]:
            return _error(404, "NotFoundException", "No such contact list or contact")
        return web.json_response({"ContactListName": request.match_info["list"], **_shown(address, held)})

    async def update(self, request: web.Request) -> web.StreamResponse:
        """Everything that stood for the contact is replaced."""
        held, told, address = self._list(request), _read(await request.read()), request.match_info["address"]
        if held is None or address not in held["contacts"]:
            return _error(404, "NotFoundException", "No such contact list or contact")
        if told is None or not _known(told, held):
            return _error(400, "BadRequestException", "Invalid topic preferences")

        def apply() -> None:
            held["contacts"][address] = contact(told)

        return await carry(request, Write(apply, web.json_response({})))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        held, address = self._list(request), request.match_info["address"]
        if held is None or address not in held["contacts"]:
            return _error(404, "NotFoundException", "No such contact list or contact")
        return await carry(request, Write(lambda: held["contacts"].pop(address, None), web.json_response({})))

    async def list_contacts(self, request: web.Request) -> web.StreamResponse:
        """One page, in the order of the addresses."""
        held, told = self._list(request), _read(await request.read() or b"{}")
        if held is None or told is None:
            return _no_list() if held is None else _error(400, "BadRequestException", "Invalid request")
        size, after = told.get("PageSize", PAGE), told.get("NextToken", "")
        if type(size) is not int or not 0 < size <= LARGEST_PAGE:
            return _error(400, "BadRequestException", "Invalid page size")
        found = sorted(each for each in held["contacts"] if each > after)
        token = {"NextToken": found[size - 1]} if len(found) > size else {}
        return await show(request, web.json_response({"Contacts": [_shown(each, held) for each in found[:size]], **token}))

    async def suppress(self, request: web.Request) -> web.StreamResponse:
        told = _read(await request.read()) or {}
        return await carry(request, Write(lambda: self.suppressed.append(str(told.get("EmailAddress"))), web.json_response({})))

    def _list(self, request: web.Request) -> dict[str, Any] | None:
        return self.lists.get(request.match_info["list"])


def contact(told: Mapping[str, Any]) -> Contact:
    """Return what stands for a contact after a write of this, and of nothing else."""
    choices = {each["TopicName"]: each["SubscriptionStatus"] for each in told.get("TopicPreferences", ())}
    return {
        "choices": choices,
        "all": told.get("UnsubscribeAll", False),
        "attributes": told.get("AttributesData"),
        "at": soon().timestamp(),
    }


def _shown(address: str, held: Mapping[str, Any]) -> Mapping[str, Any]:
    one = held["contacts"][address]
    attributes = {"AttributesData": one["attributes"]} if one["attributes"] is not None else {}
    return {
        "EmailAddress": address,
        "TopicPreferences": _preferences(one["choices"]),
        "TopicDefaultPreferences": _preferences(held["topics"]),
        "UnsubscribeAll": one["all"],
        "LastUpdatedTimestamp": one["at"],
        **attributes,
    }


def _preferences(choices: Mapping[str, str]) -> list[Mapping[str, str]]:
    return [{"TopicName": topic, "SubscriptionStatus": choice} for topic, choice in choices.items()]


def _read(body: bytes) -> Mapping[str, Any] | None:
    try:
        told = json.loads(body)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _known(told: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    choices = told.get("TopicPreferences", [])
    return all(each.get("TopicName") in held["topics"] and each.get("SubscriptionStatus") in (IN, OUT) for each in choices)


def _no_list() -> web.Response:
    return _error(404, "NotFoundException", "No such contact list")


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status, headers={"x-amzn-ErrorType": kind})
