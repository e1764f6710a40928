"""SparkPost as its documentation describes it: one suppression list of entries, each with a type and, if it has one, a List-Id."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show, soon

MOST = 10_000  # entries in a request, and of a page
TYPES = ("transactional", "non_transactional")
OURS, FINAL = "Manually Added", "Compliance"  # the source of what is written, and of what only SparkPost's people change
PRIMARY = "0"  # the account itself
_LIST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")

Entry = dict[str, str]
Key = tuple[str, str, str, str]


class SparkPost:
    """One SparkPost account, its subaccounts included: whom it sends nothing of a type, or of a list."""

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``entries`` with recipient, type, list_id ("" for none), source, subaccount_id and created."""
        return {"entries": list(self.entries.values())}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        whole = [entry(**told) for told in state["entries"]]
        self.entries = {_key(each): each for each in whole}

    def routes(self) -> Iterable[web.RouteDef]:
        path = "/api/v1/suppression-list"
        return (
            web.get(path, self.search),
            web.put(f"{path}/", self.put),
            web.get(f"{path}/{{recipient}}", self.show),
            web.delete(f"{path}/{{recipient}}", self.delete),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without a key, None to one that has any."""
        return None if request.headers.get("Authorization") else _error(401, "Unauthorized.")

    async def search(self, request: web.Request) -> web.StreamResponse:
        per_page, cursor = int(request.query.get("per_page", "1000")), request.query.get("cursor", "initial")
        list_ = request.query.get("list_id")
        if not 1 <= per_page <= MOST or (list_ and not _LIST.fullmatch(list_)):
            return _error(400, "Invalid parameters.")
        found = [each for each in self._visible(request) if list_ is None or each["list_id"].casefold() == list_.casefold()]
        start = 0 if cursor == "initial" else int(cursor)
        behind = {"cursor": str(start + per_page), "per_page": str(per_page)}
        links = [{"href": f"/api/v1/suppression-list?{urlencode(behind)}", "rel": "next"}] if start + per_page < len(found) else []
        page = [_shown(each) for each in found[start : start + per_page]]
        return await show(request, web.json_response({"results": page, "links": links, "total_count": len(found)}))

    async def put(self, request: web.Request) -> web.StreamResponse:
        told = _recipients(await _told(request), request.headers.get("X-MSYS-SUBACCOUNT", PRIMARY))
        if told is None:
            return _error(400, "PUT body contains invalid or malformed recipient(s)")

        def write(these: Iterable[Entry]) -> None:
            for each in these:
                if self.entries.get(_key(each), {}).get("source") != FINAL:
                    self.entries[_key(each)] = each

        def answer() -> web.Response:
            return web.json_response({"results": {"message": "Suppression List successfully updated"}})

        partly = Write(lambda: write(told[1:]), answer())
        return await carry(request, Write(lambda: write(told), answer(), partly))

    async def show(self, request: web.Request) -> web.Response:
        found = self._about(request, lambda _: True)
        if not found:
            return _error(404, "Recipient could not be found")
        return web.json_response({"results": [_shown(each) for each in found], "links": [], "total_count": len(found)})

    async def delete(self, request: web.Request) -> web.StreamResponse:
        type_, list_ = (await _told(request)).get("type"), request.query.get("list_id")

        def meant(each: Entry) -> bool:
            return type_ in (None, each["type"]) and (list_ is None or each["list_id"].casefold() == list_.casefold())

        subaccount = request.headers.get("X-MSYS-SUBACCOUNT", PRIMARY)
        found = [each for each in self._about(request, meant) if each["subaccount_id"] == subaccount]
        if type_ not in (None, *TYPES):
            return _error(400, "Type must be one of: 'transactional', 'non_transactional'")
        if not found:
            return _error(404, "Recipient could not be found")
        if any(each["source"] == FINAL for each in found):
            return _error(403, "Recipient could not be removed - Compliance")

        def remove() -> None:
            for each in found:
                self.entries.pop(_key(each), None)

        return await carry(request, Write(remove, web.Response(status=204)))

    def _visible(self, request: web.Request) -> Iterable[Entry]:
        """Return the entries that a question may show: of one subaccount, or of all, and of the types that it names."""
        subaccount, types = request.headers.get("X-MSYS-SUBACCOUNT"), request.query.get("types", ",".join(TYPES)).split(",")
        return (each for each in self.entries.values() if each["type"] in types and subaccount in (None, each["subaccount_id"]))

    def _about(self, request: web.Request, meant: Callable[[Entry], bool]) -> list[Entry]:
        recipient = request.match_info["recipient"].casefold()
        return [each for each in self._visible(request) if each["recipient"].casefold() == recipient and meant(each)]


def entry(recipient: str, type: str = "non_transactional", list_id: str = "", source: str = OURS, **more: str) -> Entry:
    """Return one entry of the list, as it is held."""
    created = soon().isoformat(timespec="seconds")
    return {
        "recipient": recipient,
        "type": type,
        "list_id": list_id,
        "source": source,
        "subaccount_id": PRIMARY,
        "created": created,
        **more,
    }


def _key(held: Entry) -> Key:
    return held["recipient"].casefold(), held["type"], held["list_id"].casefold(), held["subaccount_id"]


def _shown(held: Entry) -> dict[str, object]:
    """Return an entry as it is shown: what it has none of is left out."""
    named = {name: value for name, value in held.items() if value and not (name == "subaccount_id" and value == PRIMARY)}
    return {**named, "updated": held["created"], held["type"]: True}


def _recipients(told: Mapping[str, Any], subaccount: str) -> list[Entry] | None:
    """Return the entries of a request, None if it is not one: it is refused as a whole."""
    listed = told.get("recipients")
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST or not all(map(_sound, listed)):
        return None
    return [entry(each["recipient"], each["type"], each.get("list_id", ""), subaccount_id=subaccount) for each in listed]


def _sound(told: object) -> bool:
    if not isinstance(told, dict) or not isinstance(told.get("recipient"), str) or "@" not in told["recipient"]:
        return False
    list_ = told.get("list_id")
    return told.get("type") in TYPES and (list_ is None or (isinstance(list_, str) and _LIST.fullmatch(list_) is not None))


async def _told(request: web.Request) -> dict[str, Any]:
    try:
        told = await request.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"errors": [{"message": message}]}, status=status)
