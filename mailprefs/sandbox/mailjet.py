"""Mailjet as its documentation describes it: contacts, contact lists, who stands in which and has left it, and the exclusion list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show, soon

LISTS = ("10012345", "10012346")  # there from the start
FIRST = 1_900_000_001  # the number of the first contact; memberships count from there as well
DEFAULT, MOST = 10, 1000  # entries of a page

Entry = dict[str, Any]


class Mailjet:
    """One Mailjet account. ``adds`` and ``totals`` are what its documentation leaves open: set them, to try the other reading."""

    def __init__(self) -> None:
        self.contacts: list[str] = []
        self.excluded: list[str] = []
        self.lists: dict[str, dict[str, Entry]] = {list_: {} for list_ in LISTS}
        self.made = 0
        self.adds = True
        self.totals = True

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``contacts`` and who of them is ``excluded`` from all campaigns, ``lists`` with their members.

        A member has ``left``, ``since`` (when it was subscribed, "" for never) and ``until`` (when it left). ``adds``: who leaves a list
        without being in it is put in as one who left. ``totals``: Total counts all entries, not those of the page.
        """
        return {name: getattr(self, name) for name in ("contacts", "excluded", "lists", "adds", "totals")}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.excluded = list(state.get("excluded", ()))
        self.adds, self.totals = bool(state.get("adds", True)), bool(state.get("totals", True))
        self.lists = {
            list_: {address: self._new(since="2026-01-05T09:00:00Z") | member for address, member in members.items()}
            for list_, members in state["lists"].items()
        }
        there = (address for members in self.lists.values() for address in members)
        self.contacts = list(dict.fromkeys([*state.get("contacts", ()), *there]))

    def routes(self) -> Iterable[web.RouteDef]:
        return (
            web.get("/v3/REST/contactslist/{list}", self.show_list),
            web.post("/v3/REST/contactslist/{list}/managecontact", self.manage),
            web.get("/v3/REST/contact", self.list_contacts),
            web.get("/v3/REST/contact/{contact}", self.show_contact),
            web.get("/v3/REST/listrecipient", self.list_members),
            web.post("/v3/REST/listrecipient", self.create_member),
            web.put("/v3/REST/listrecipient/{id}", self.update_member),
            web.delete("/v3/REST/listrecipient/{id}", self.delete_member),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without keys, None to one that has any."""
        scheme, _, keys = request.headers.get("Authorization", "").partition(" ")
        return None if scheme == "Basic" and keys else _error(401, "API key authentication/authorization failure.")

    async def show_list(self, request: web.Request) -> web.Response:
        list_ = request.match_info["list"]
        if list_ not in self.lists:
            return _error(404, "Object not found")
        shown = {"ID": int(list_), "Name": f"List {list_[-2:]}", "IsDeleted": False, "SubscriberCount": len(self.lists[list_])}
        return _answer([shown])

    async def show_contact(self, request: web.Request) -> web.Response:
        named = request.match_info["contact"]
        found = next((each for each in self.contacts if named in (str(self._number(each)), each)), None)
        return _answer([self._contact(found)]) if found else _error(404, "Object not found")

    async def list_contacts(self, request: web.Request) -> web.StreamResponse:
        within = self.lists.get(request.query.get("ContactsList", ""), {})
        return await self._page(request, [self._contact(each) for each in self.contacts if each in within])

    async def list_members(self, request: web.Request) -> web.StreamResponse:
        list_, of, unsub = (request.query.get(name) for name in ("ContactsList", "Contact", "Unsub"))
        found = [self._member(str(list_), address) for address in self.lists.get(str(list_), {})]
        found = [each for each in found if of in (None, str(each["ContactID"]))]
        found = [each for each in found if unsub is None or each["IsUnsubscribed"] is (unsub == "true")]
        found.sort(key=lambda each: int(each["ID"]))
        return self._cut(request, found) if of else await self._page(request, found)

    async def manage(self, request: web.Request) -> web.StreamResponse:
        list_, told = request.match_info["list"], await _told(request)
        address, action = told.get("Email"), told.get("Action")
        if list_ not in self.lists or not isinstance(address, str) or "@" not in address or action != "unsub":
            return _error(400, "Object properties invalid")

        def apply() -> None:
            self._know(address)
            if self.adds or address in self.lists[list_]:
                self._leave(list_, address)

        return await carry(request, Write(apply, _answer([{"ContactID": self.made + FIRST, "Email": address, "Action": action}], 201)))

    async def create_member(self, request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        list_, address = str(told.get("ListID")), told.get("ContactAlt")
        if list_ not in self.lists or address not in self.contacts or told.get("IsUnsubscribed") is not True:
            return _error(400, "Object properties invalid")
        if address in self.lists[list_]:
            return _error(400, "A duplicate ListRecipient already exists.")
        return await carry(request, Write(lambda: self._leave(list_, str(address)), _answer([{"ListID": int(list_)}], 201)))

    async def update_member(self, request: web.Request) -> web.StreamResponse:
        found, told = self._found(request), await _told(request)
        if found is None or told != {"IsUnsubscribed": False}:
            return _error(404 if found is None else 400, "Object not found" if found is None else "Object properties invalid")
        list_, address = found

        def apply() -> None:
            if address in self.lists[list_]:
                self.lists[list_][address].update(left=False, until="")

        return await carry(request, Write(apply, _answer([self._member(list_, address) | told])))

    async def delete_member(self, request: web.Request) -> web.StreamResponse:
        if (found := self._found(request)) is None:
            return _error(404, "Object not found")
        list_, address = found
        return await carry(request, Write(lambda: _discard(self.lists[list_], address), web.Response(status=204)))

    def _found(self, request: web.Request) -> tuple[str, str] | None:
        """Return list and address of the membership that a path names."""
        named = request.match_info["id"]
        everyone = ((list_, address, member) for list_, members in self.lists.items() for address, member in members.items())
        return next(((list_, address) for list_, address, member in everyone if str(member["id"]) == named), None)

    def _know(self, address: str) -> None:
        if address not in self.contacts:
            self.contacts.append(address)

    def _leave(self, list_: str, address: str) -> None:
        now = soon().isoformat(timespec="seconds").replace("+00:00", "Z")
        self.lists[list_].setdefault(address, self._new()).update(left=True, until=now)

    def _new(self, since: str = "") -> Entry:
        self.made += 1
        return {"id": FIRST + self.made, "left": False, "since": since, "until": ""}

    def _number(self, address: str) -> int:
        return FIRST + self.contacts.index(address)

    def _contact(self, address: str) -> Entry:
        excluded = address in self.excluded
        return {"ID": self._number(address), "Email": address, "Name": "", "IsExcludedFromCampaigns": excluded}

    def _member(self, list_: str, address: str) -> Entry:
        member = self.lists[list_][address]
        dates = {"SubscribedAt": member["since"], "UnsubscribedAt": member["until"]}
        named = {"ID": member["id"], "ContactID": self._number(address), "ListID": int(list_), "ListName": f"List {list_[-2:]}"}
        return {**named, "IsActive": True, "IsUnsubscribed": member["left"], **dates}

    async def _page(self, request: web.Request, entries: Sequence[Entry]) -> web.StreamResponse:
        return await show(request, self._cut(request, entries))

    def _cut(self, request: web.Request, entries: Sequence[Entry]) -> web.Response:
        """Return the entries that a request asks for."""
        limit, offset = int(request.query.get("Limit", DEFAULT)), int(request.query.get("Offset", "0"))
        shown = entries[offset : offset + min(limit or MOST, MOST)]
        return _answer(shown, total=len(entries) if self.totals else len(shown))


def _answer(entries: Sequence[Mapping[str, Any]], status: int = 200, total: int | None = None) -> web.Response:
    body = {"Count": len(entries), "Data": entries, "Total": len(entries) if total is None else total}
    return web.json_response(body, status=status)


def _discard(held: dict[str, Entry], key: str) -> None:
    held.pop(key, None)


async def _told(request: web.Request) -> dict[str, Any]:
    try:
        told = await request.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"ErrorInfo": "", "ErrorMessage": message, "StatusCode": status}, status=status)
