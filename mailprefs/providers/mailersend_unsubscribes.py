"""MailerSend's list of unsubscribes of one domain: written by address, taken away by number, read page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any

from mailprefs.providers import facts, offsets, telling
from mailprefs.providers.base import Listed, Outcome, Rejected, Settlement, Slow, Unclear, Unsafe
from mailprefs.providers.calling import PAGE, Line

PATH = "/v1/suppressions/unsubscribes"
LEAST, MOST = 10, 100  # entries of a page
PAGES = 18  # that one telling reads, each in a second: a longer list is looked through bit by bit
SOON = timedelta(seconds=1)  # until the next bit
FRESH = 300  # seconds: a search that rested for longer begins anew
LEFT = Settlement(Outcome.REFUSED, "left_there")
_UNCONFIRMED = Settlement(Outcome.UNKNOWN, "not_confirmed")

Entry = dict[str, Any]


@dataclass(slots=True)
class Search:
    """Some addresses, looked for in a list that is too long to be read at once."""

    found: dict[str, list[Entry]]  # by address in lower case
    rested: float = 0  # since then, by the monotonic clock
    walk: offsets.Walk = field(default_factory=lambda: offsets.Walk("id"))


Searches = dict[tuple[str, str], Search]  # by base and domain; one at a time, as one worker owns the account


@dataclass(frozen=True, slots=True)
class Unsubscribes:
    """The unsubscribes of one domain."""

    line: Line
    domain: str
    searches: Searches = field(default_factory=dict)
    turns: Iterator[int] = field(default_factory=lambda: iter(range(PAGES)))

    async def must_exist(self) -> None:
        """Raise Unsafe unless MailerSend has the domain."""
        answer = await self.line.call("GET", f"/v1/domains/{self.domain}")
        if answer.status == 404:
            raise Unsafe(f"MailerSend has no domain {self.domain} (any more). Correct domain_id and scopes, or leave out scopes.")
        if facts.within(answer.json(200), "data", "id") != self.domain:
            raise Unclear("other_domain")

    async def add(self, addresses: Sequence[str], settled: telling.Settled) -> None:
        """Put the addresses on the list; done is who is in its echo, or, where the echo leaves somebody out, who is found there."""
        self.searches.pop(self._here, None)  # it may have passed by where they will stand
        answer = await self.line.call("POST", PATH, json={"domain_id": self.domain, "recipients": list(addresses)})
        if answer.status in telling.REFUSALS:
            raise Rejected(f"MailerSend refused a request with status {answer.status}.")
        echoed = {
            _address(entry).casefold() for entry in filter(self._is_here, _entries(answer.json(201 if answer.status == 201 else 200)))
        }
        settled |= {address: telling.DONE for address in addresses if address.casefold() in echoed}
        if left := [address for address in addresses if address not in settled]:
            found = await self._found(left)
            settled |= {address: telling.DONE if found and found[address] else _UNCONFIRMED for address in left}

    async def let_go(self, addresses: Sequence[str], settled: telling.Settled) -> None:
        """Take off the list what is ours: who left by themselves has a reason there, and stays. Raises Slow until the list is read."""
        found = await self._found(addresses)
        if found is None:
            raise Slow(SOON)
        settled |= {address: telling.DONE for address in addresses if not found[address]}
        settled |= {address: LEFT for address in addresses if any(facts.text(entry.get("reason")) for entry in found[address])}
        if left := [address for address in addresses if address not in settled]:
            await self._remove([entry["id"] for address in left for entry in found[address]])
            found = await self._found(left)  # what it answers is not documented: it counts what it shows
            settled |= {address: telling.DONE if found and not found[address] else _UNCONFIRMED for address in left}

    async def everyone(self) -> AsyncIterator[Listed]:
        """Yield whom the list holds over all its pages. Raises Unclear if one is missing, or is none."""
        async for entry in offsets.walk(self._page, "id"):
            if self._is_here(entry):
                yield Listed(_address(entry), self.domain, facts.dated(entry.get("created_at")))

    async def _remove(self, ids: Sequence[str]) -> None:
        if not ids:
            raise ValueError("a removal without ids")  # with "all" in place of them it would be everybody
        answer = await self.line.call("DELETE", PATH, json={"domain_id": self.domain, "ids": list(ids)})
        if answer.status in telling.REFUSALS:
            raise Rejected(f"MailerSend refused a request with status {answer.status}.")
        if answer.status not in (200, 204):
            raise answer.unclear

    async def _found(self, addresses: Sequence[str]) -> Mapping[str, list[Entry]] | None:
        """Return the entries of each address. None as long as the list is not read to its end: the next call goes on from there."""
        search = self._search({address.casefold() for address in addresses})
        for _ in self.turns:
            for entry in filter(self._is_here, await search.walk.page(self._page)):
                if (found := search.found.get(_address(entry).casefold())) is not None:
                    found.append(entry)
            if search.walk.over:
                return {address: search.found[address.casefold()] for address in addresses}
        search.rested = monotonic()
        self.searches[self._here] = search
        return None

    def _search(self, wanted: set[str]) -> Search:
        """Return the search that goes on, or a new one. Whoever came to the list while it rested may have come where it has been."""
        search = self.searches.pop(self._here, None)
        if search and wanted <= search.found.keys() and monotonic() - search.rested < FRESH:
            return search
        return Search({address: [] for address in wanted})

    @property
    def _here(self) -> tuple[str, str]:
        return self.line.base, self.domain

    async def _page(self, offset: int) -> offsets.Page:
        """Return entries from an offset on. Pages are numbered by their size: that one is asked for which has most of what is behind."""
        size = max(range(LEAST, MOST + 1), key=lambda size: size - offset % size)
        path = f"{PATH}?domain_id={self.domain}&page={offset // size + 1}&limit={size}"
        found = (await self.line.call("GET", path, most=PAGE)).json(200)
        entries, total = _entries(found), facts.within(found, "meta", "total")
        if type(total) is not int:
            raise Unclear("other_shape")
        return entries[offset % size :], total

    def _is_here(self, entry: Entry) -> bool:
        """True for an entry of this domain. The question says so too, but whether it is heeded is not known."""
        return facts.within(entry, "recipient", "domain", "id") in (None, self.domain)


def _entries(found: object) -> list[Entry]:
    """Return the entries of an answer. Raises Unclear unless each has an id and names an address."""
    entries = facts.within(found, "data")
    if not isinstance(entries, list) or not all(isinstance(each, dict) and facts.text(each.get("id")) for each in entries):
        raise Unclear("other_shape")
    for entry in entries:
        _address(entry)
    return entries


def _address(entry: Entry) -> str:
    address = facts.text(facts.within(entry, "recipient", "email"))
    if address is None:
        raise Unclear("other_shape")
    return address
