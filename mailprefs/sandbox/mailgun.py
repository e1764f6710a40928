"""Mailgun as its documentation describes it: a list of unsubscribes for each sending domain, by tag, and all the ways it can be cleared.

What the documentation leaves open are switches in its state: ``merges`` (adding keeps the tags that were there), ``forgets`` (taking one
tag out removes the whole entry) and ``keeps`` (an entry whose last tag was taken out stays, and means all mail).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from email.utils import format_datetime
from typing import Any

from aiohttp import web
from yarl import URL

from mailprefs.sandbox.faults import Write, carry, show, soon

DOMAIN = "mg.example.com"  # there from the start
MOST = 999  # entries in a request
PAGE, LARGEST_PAGE = 100, 1000  # entries

Entry = dict[str, Any]


class Mailgun:
    """One Mailgun account: its sending domains, each with its list of unsubscribes."""

    def __init__(self) -> None:
        self.domains: dict[str, dict[str, Entry]] = {DOMAIN: {}}
        self.merges = self.forgets = self.keeps = False

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``domains`` by name, and in each the entries by address; ``merges``, ``forgets`` and ``keeps``."""
        return {"domains": self.domains, "merges": self.merges, "forgets": self.forgets, "keeps": self.keeps}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.domains = {str(domain): dict(entries) for domain, entries in state["domains"].items()}
        self.merges, self.forgets, self.keeps = (bool(state.get(name)) for name in ("merges", "forgets", "keeps"))

    def routes(self) -> Iterable[web.RouteDef]:
        path = "/v3/{domain}/unsubscribes"
        return (
            web.get(path, self.list_entries),
            web.post(path, self.add),
            web.delete(path, self.clear),
            web.delete(f"{path}/", self.clear),
            web.get(path + "/{address}", self.look_up),
            web.delete(path + "/{address}", self.remove),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without a key, None to one that has any."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        return None if scheme == "Basic" and key else web.Response(text="Forbidden", status=401)

    async def list_entries(self, request: web.Request) -> web.StreamResponse:
        """One page, in the order of the addresses; the page behind the last one is empty, and leads to itself."""
        held = self._held(request)
        if held is None:
            return _no_domain()
        size, after = int(request.query.get("limit") or PAGE), request.query.get("address", "")
        if size > LARGEST_PAGE:
            return _message(400, "The 'limit' parameter can't be larger than 1000")
        prefix = request.query.get("term", "")
        found = sorted(each for each in held if each.startswith(prefix) and (request.query.get("page") != "next" or each > after))[:size]
        here = request.url.with_query(None)
        paging = {
            "previous": _page(here, "previous", found[0] if found else after, size),
            "first": str(here.with_query(limit=size)),
            "next": _page(here, "next", found[-1] if found else after, size),
            "last": str(here.with_query(page="last", limit=size)),
        }
        return await show(request, web.json_response({"items": [held[address] for address in found], "paging": paging}))

    async def add(self, request: web.Request) -> web.StreamResponse:
        held, told = self._held(request), _entries(await request.read())
        if held is None:
            return _no_domain()
        if told is None:
            return _message(400, "Invalid JSON")
        if len(told) > MOST:
            return _message(400, "Batch size should be less than 1000")

        def added(entries: Iterable[Entry]) -> Write:
            these = list(entries)
            return Write(lambda: self._add(held, these), _message(200, f"{len(these)} addresses have been added to the unsubscribes table"))

        whole = added(told)
        return await carry(request, Write(whole.apply, whole.answer, partly=added(told[1:])))

    async def look_up(self, request: web.Request) -> web.StreamResponse:
        held = self._held(request)
        if held is None:
            return _no_domain()
        entry = held.get(request.match_info["address"])
        return web.json_response(entry) if entry else _message(404, "Address not found in unsubscribers table")

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Without a tag the whole entry goes."""
        held, address, tag = self._held(request), request.match_info["address"], request.query.get("tag")
        if held is None:
            return _no_domain()
        entry = held.get(address)
        if entry is None or (tag is not None and tag not in entry["tags"]):
            return await carry(request, Write(lambda: None, _message(404, "Unsubscribe event for this tag does not exist")))

        def apply() -> None:
            left = [each for each in held.get(address, {"tags": []})["tags"] if each != tag]
            if tag is None or self.forgets or not (left or self.keeps):
                held.pop(address, None)
            elif address in held:
                held[address] = {**held[address], "tags": left}

        return await carry(request, Write(apply, web.json_response({"message": "Unsubscribe event has been removed", "address": address})))

    async def clear(self, request: web.Request) -> web.StreamResponse:
        """Everyone is forgotten: what an empty address in a path would do."""
        held = self._held(request)
        if held is None:
            return _no_domain()
        return await carry(request, Write(held.clear, _message(200, "Unsubscribe addresses for this domain have been removed")))

    def _held(self, request: web.Request) -> dict[str, Entry] | None:
        return self.domains.get(request.match_info["domain"])

    def _add(self, held: dict[str, Entry], entries: Iterable[Entry]) -> None:
        for entry in entries:
            before = held.get(entry["address"], {"tags": []})["tags"] if self.merges else []
            tags = list(dict.fromkeys((*before, *entry["tags"]))) or ["*"]
            held[entry["address"]] = {**entry, "tags": tags}


def entry(address: str, *tags: str) -> Entry:
    """Return what stands in a list for an address that left these tags, all mail of the domain where none is named."""
    return {"address": address, "tags": list(tags) or ["*"], "created_at": format_datetime(soon()).replace("+0000", "UTC")}


def _entries(body: bytes) -> list[Entry] | None:
    """Return the entries of a request, None if it is not one."""
    try:
        return [entry(each["address"], *each.get("tags", ())) | _dated(each) for each in json.loads(body)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _dated(told: Mapping[str, Any]) -> Entry:
    return {"created_at": told["created_at"]} if told.get("created_at") else {}


def _page(here: URL, direction: str, address: str, size: int) -> str:
    return str(here.with_query(page=direction, address=address, limit=size))


def _no_domain() -> web.Response:
    return _message(404, "Domain not found")


def _message(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
