"""SparkPost's suppression list: one for all that is not transactional, and one for each List-Id, read and written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from mailprefs.providers import facts, telling
from mailprefs.providers.base import Listed, Outcome, Rejected, Settlement, Unclear
from mailprefs.providers.calling import PAGE, Line
from mailprefs.words import Kind

TYPE = "non_transactional"  # of every entry that is written, taken away or listed: the other type would stop receipts
EVERYTHING = TYPE  # the group that stands for all mail that is not transactional; no List-Id, which has a full stop
ENTRIES = 1000  # in one page of a listing; it gives ten thousand
PATH = "/api/v1/suppression-list"
OURS = "Manually Added"  # the one source that a go takes away: the API, or the sender's own people
COMPLIANCE = "Compliance"  # put there by SparkPost's people: nobody else changes it, and to try is 403
KINDS: Mapping[str, Kind] = {"Spam Complaint": Kind.COMPLAINED, "Bounce Rule": Kind.BOUNCED_HARD}  # by source; all others are choices
KEPT: Mapping[str, Settlement] = {  # by source: what a go comes to where it is not ours that stands there
    "Bounce Rule": telling.DONE,  # the choice is not there, and the bounce is none of it
    "Spam Complaint": Settlement(Outcome.REFUSED, "complaint"),
    "List Unsubscribe": Settlement(Outcome.REFUSED, "left_there"),
    "Unsubscribe Link": Settlement(Outcome.REFUSED, "left_there"),
    COMPLIANCE: Settlement(Outcome.REFUSED, "compliance"),
}
_STRANGE = Settlement(Outcome.REFUSED, "other_reason")
_UNCONFIRMED = Settlement(Outcome.UNKNOWN, "not_confirmed")

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Suppressions:
    """What one account, or subaccount, holds under one List-Id, or under none. Nothing is done until it is read back."""

    asks: Line
    writes: Line
    group: str
    subaccount: str

    async def close(self, addresses: Sequence[str], settled: telling.Settled) -> None:
        """Put the addresses on the list. Who stands there already stays as it is: a write might make a complaint look like ours."""
        left = []
        for address in addresses:
            if any(self._stops(entry) for entry in await self._of(address)):
                settled[address] = telling.DONE
            else:
                left.append(address)
        if left:
            await self._write(left)
            for address in left:
                there = any(self._stops(entry) for entry in await self._of(address))
                settled[address] = telling.DONE if there else _UNCONFIRMED

    async def open(self, addresses: Sequence[str], settled: telling.Settled) -> None:
        """Take off the list what is ours; what a bounce, a complaint or the recipient put there stays."""
        await telling.each(addresses, settled, self._let_go)

    async def everyone(self) -> AsyncIterator[Listed]:
        """Yield whom the list holds over all its pages. Raises Unclear if one is missing, or is none."""
        cursor, seen, promised = "initial", 0, list[int]()
        while cursor:
            path = f"{PATH}?types={TYPE}&list_id={self._id}&cursor={quote(cursor, safe='')}&per_page={ENTRIES}"
            found = (await self.asks.call("GET", path, most=PAGE)).json(200)
            entries, total = _entries(found), facts.within(found, "total_count")
            if type(total) is not int:
                raise Unclear("other_shape")
            for entry in filter(self._is_here, entries):
                kind = KINDS.get(str(entry.get("source")), Kind.UNSUBSCRIBED)
                yield Listed(entry["recipient"], self.group, facts.dated(entry.get("created")), kind)
            seen, before, cursor = seen + len(entries), cursor, _next(found)
            promised.append(total)
            if cursor == before or (cursor and not entries):
                raise Unclear("other_page")
        if seen < min(promised):  # whoever left meanwhile is in no total behind
            raise Unclear("cut_short")

    @property
    def _id(self) -> str:
        return "" if self.group == EVERYTHING else self.group  # an empty one asks for entries without any; none asks for all

    def _is_here(self, entry: Entry) -> bool:
        """True for an entry of this very list. The question says so too, but whether all of it is heeded is not known."""
        return str(entry.get("list_id") or "").casefold() == self._id.casefold() and self._is_marketing(entry)

    def _is_marketing(self, entry: Entry) -> bool:
        return entry.get("type") == TYPE and str(entry.get("subaccount_id") or 0) == self.subaccount

    def _stops(self, entry: Entry) -> bool:
        """True for what stops the list's mail for good: an entry of its own, or one of SparkPost's people, beside which none can be."""
        return self._is_here(entry) or (entry.get("source") == COMPLIANCE and not entry.get("list_id") and self._is_marketing(entry))

    async def _of(self, address: str) -> list[Entry]:
        """Return the entries of an address."""
        answer = await self.asks.call("GET", f"{_path(address)}?types={TYPE}&per_page={ENTRIES}")
        if answer.status == 404:
            return []
        found = answer.json(200)
        entries, total = _entries(found), facts.within(found, "total_count")
        if type(total) is int and total > len(entries):
            raise Unclear("cut_short")
        if any(entry["recipient"].casefold() != address.casefold() for entry in entries):
            raise Unclear("other_recipient")
        return entries

    async def _write(self, addresses: Sequence[str]) -> None:
        """Write the addresses in one request, whose answer says nothing of any of them."""
        list_ = {"list_id": self._id} if self._id else {}
        recipients = [{"recipient": address, "type": TYPE, **list_} for address in addresses]
        answer = await self.writes.call("PUT", f"{PATH}/", json={"recipients": recipients})
        if answer.status in telling.REFUSALS:
            raise Rejected(f"SparkPost refused a request with status {answer.status}.")
        results = facts.within(answer.json(200), "results")  # a text, or an object that holds it: both were seen
        if not facts.text(facts.within(results, "message") or results):
            raise Unclear("other_shape")

    async def _let_go(self, address: str) -> Settlement:
        """Take one address off the list, and look whether it is gone."""
        if not (here := await self._here(address)):
            return telling.DONE
        if others := [str(entry.get("source")) for entry in here if entry.get("source") != OURS]:
            return KEPT.get(others[0], _STRANGE)
        # Without a type both types would go, and without a list_id those of all lists.
        answer = await self.writes.call("DELETE", f"{_path(address)}?list_id={self._id}", json={"type": TYPE})
        if answer.status in (400, 413, 422):
            return Settlement(Outcome.REFUSED, f"http_{answer.status}")
        if answer.status not in (204, 404):
            raise answer.unclear
        return _UNCONFIRMED if await self._here(address) else telling.DONE

    async def _here(self, address: str) -> list[Entry]:
        return [entry for entry in await self._of(address) if self._is_here(entry)]


def _path(address: str) -> str:
    return f"{PATH}/{quote(address, safe='')}"


def _entries(found: object) -> list[Entry]:
    """Return the entries of an answer. Raises Unclear unless each of them names an address."""
    entries = facts.within(found, "results")
    if not isinstance(entries, list) or not all(isinstance(facts.within(each, "recipient"), str) for each in entries):
        raise Unclear("other_shape")
    return entries


def _next(found: object) -> str:
    """Return the cursor of the page behind, "" for none. Of its address nothing else is believed."""
    links = facts.within(found, "links")
    named = [facts.within(each, "href") for each in links if facts.within(each, "rel") == "next"] if isinstance(links, list) else []
    href = named[0] if named else facts.within(links, "next")
    if href is None:
        return ""
    cursors = parse_qs(urlsplit(href).query).get("cursor", []) if isinstance(href, str) else []
    if len(cursors) != 1:
        raise Unclear("other_page")
    return cursors[0]
