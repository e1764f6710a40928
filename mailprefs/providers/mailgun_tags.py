"""Mailgun's list of unsubscribes: one entry an address, with the tags of the mail that it left. Never the whole domain's mail.

Whether adding replaces an entry's tags, and whether removing one of them removes them all, is not documented: every write is made of
what was read before, and what was removed is read again after (docs/providers/mailgun.md).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from yarl import URL

from mailprefs.providers import facts, telling
from mailprefs.providers.base import Listed, Outcome, Rejected, Settlement, Unclear, Unsafe
from mailprefs.providers.calling import PAGE, Line

EVERYTHING = "*"  # as a tag: all mail of the domain, receipts too
PAGE_SIZE = 1000  # entries
LONGEST_LIST = 50_000  # pages; more of them go round in a circle
TAG = re.compile(r"[!-)+-~](?:[ -)+-~]{0,126}[!-)+-~])?")  # printable ASCII without a star
ADDED = re.compile(r"([0-9]{1,4}) address(?:es)? ha(?:s|ve) been added to the unsubscribes table\.?")
TAG_ADVICE = "Map each topic to a tag that its messages carry (o:tag, X-Mailgun-Tag), and that no transactional message does."
WHOLE_DOMAIN = Settlement(Outcome.REFUSED, "whole_domain")  # a go cannot take away what stops all mail of the domain


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in the list for one address."""

    address: str
    tags: tuple[str, ...]
    created: str = ""

    @property
    def everything(self) -> bool:
        return EVERYTHING in self.tags or not self.tags  # no tag is every tag, says the documentation

    def has(self, tag: str) -> bool:
        return tag.casefold() in {each.casefold() for each in self.tags}

    def without(self, tag: str) -> tuple[str, ...]:
        return tuple(each for each in self.tags if each.casefold() != tag.casefold())


@dataclass(frozen=True, slots=True)
class Unsubscribes:
    """The list of one sending domain."""

    line: Line
    domain: str

    @property
    def path(self) -> str:
        return f"/v3/{self.domain}/unsubscribes"

    async def must_be_safe(self, tag: str) -> str:
        """Return Mailgun's own time. Raises Unsafe for a tag that would mean all mail, and where there is no such domain."""
        if not TAG.fullmatch(tag):
            raise Unsafe(f"The account maps a topic to what is no tag, or to all mail of the domain. {TAG_ADVICE}")
        answer = await self.line.call("GET", _page(self.path, 1))
        if answer.status == 404:
            raise Unsafe("Mailgun has no such sending domain. Correct domain in mailprefs.toml, or api_base for an account in the EU.")
        _items(answer.json(200))
        return answer.date

    async def stop(self, tag: str, addresses: list[str], settled: telling.Settled) -> None:
        """Add the tag to the addresses' entries, beside those that are there."""
        now = await self.must_be_safe(tag)
        left = {}
        for address in addresses:
            entry = await self.entry(address)
            if entry and (entry.everything or entry.has(tag)):
                settled[address] = telling.DONE
            else:
                left[address] = Entry(address, (*(entry.tags if entry else ()), tag), entry.created if entry else now)
        if left and await self._add(list(left.values())):
            settled |= dict.fromkeys(left, telling.DONE)
        for address in left:
            if address not in settled:
                found = await self.entry(address)
                settled[address] = telling.DONE if found and found.has(tag) else Settlement(Outcome.UNKNOWN, "not_added")

    async def go(self, tag: str, addresses: list[str], settled: telling.Settled) -> None:
        """Take the tag out of the addresses' entries, and leave the others in."""
        await self.must_be_safe(tag)

        async def one(address: str) -> Settlement:
            before = await self.entry(address)
            if before is None:
                return telling.DONE
            if before.everything:
                return WHOLE_DOMAIN
            return await self._remove(before, tag) if before.has(tag) else telling.DONE

        await telling.each(addresses, settled, one)

    async def entry(self, address: str) -> Entry | None:
        """Return what stands in the list for an address, None if nothing does."""
        answer = await self.line.call("GET", self._of(address))
        if answer.status == 404:
            return None
        found = _entry(answer.json(200))
        if found.address.casefold() != address.casefold():
            raise Unclear("other_address")
        return found

    async def listed(self, tag: str) -> AsyncIterator[Listed]:
        """List everyone who left the tag, or all mail of the domain."""
        await self.must_be_safe(tag)
        after = ""
        for _ in range(LONGEST_LIST):
            answer = await self.line.call("GET", _page(self.path, PAGE_SIZE, after), most=PAGE)
            told = answer.json(200)
            items = [_entry(item) for item in _items(told)]
            for entry in items:
                if entry.everything or entry.has(tag):
                    yield Listed(entry.address, tag, _moment(entry.created))
            if not items:
                return
            before, after = after, _next(told)
            if before == after:
                raise Unclear("same_page")
        raise Unclear("too_long")

    def _of(self, address: str) -> str:
        if not address:
            raise ValueError("an empty address would mean everyone")  # DELETE of that path clears the list
        return f"{self.path}/{quote(address, safe='')}"

    async def _add(self, entries: list[Entry]) -> bool:
        """Add the entries and return whether Mailgun says that all of them were."""
        told = [
            {"address": each.address, "tags": list(each.tags)} | ({"created_at": each.created} if each.created else {}) for each in entries
        ]
        answer = await self.line.call("POST", self.path, json=told)
        if answer.status in telling.REFUSALS:
            raise Rejected(f"Mailgun refused a request with status {answer.status}.")
        said = ADDED.fullmatch(str(facts.within(answer.json(200), "message")))
        if said is None:
            raise Unclear("other_shape")
        return int(said[1]) == len(entries)

    async def _remove(self, before: Entry, tag: str) -> Settlement:
        answer = await self.line.call("DELETE", f"{self._of(before.address)}?tag={quote(tag, safe='')}")
        if answer.status in telling.REFUSED:
            return Settlement(Outcome.REFUSED, f"http_{answer.status}")
        if answer.status != 404:
            answer.json(200)
        after, others = await self.entry(before.address), before.without(tag)
        if after and after.has(tag):
            return Settlement(Outcome.UNKNOWN, "still_listed")
        if not others and after and after.everything:  # an entry without tags would stop all mail
            answer = await self.line.call("DELETE", self._of(before.address))
            return (
                telling.DONE
                if answer.status in (200, 404) and not await self.entry(before.address)
                else Settlement(Outcome.UNKNOWN, "left_over")
            )
        left = after.tags if after else ()
        if set(others) <= set(left):
            return telling.DONE
        whole = Entry(before.address, tuple(dict.fromkeys((*others, *left))), before.created)  # it took more than it was asked to
        return telling.DONE if await self._add([whole]) else Settlement(Outcome.UNKNOWN, "not_restored")


def _page(path: str, size: int, after: str = "") -> str:
    """Return the path of a page of the list. Mailgun's own address of the next page is never followed, wherever it points to."""
    return f"{path}?limit={size}&page={'next' if after else ''}&address={quote(after, safe='')}&term="


def _next(told: object) -> str:
    """Return the address behind which the next page begins."""
    url = facts.within(told, "paging", "next")
    try:
        query = URL(url).query if isinstance(url, str) else {}
    except ValueError:
        query = {}
    if query.get("page") != "next" or not query.get("address"):
        raise Unclear("no_next")
    return query["address"]


def _items(told: object) -> list[Any]:
    items = facts.within(told, "items")
    if not isinstance(items, list):
        raise Unclear("other_shape")
    return items


def _entry(told: object) -> Entry:
    address, tags, created = (facts.within(told, name) for name in ("address", "tags", "created_at"))
    if not isinstance(address, str) or not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise Unclear("other_shape")
    return Entry(address, tuple(tags), created if isinstance(created, str) else "")


def _moment(created: str) -> datetime | None:
    """Return the moment of an RFC 2822 date; None for none, and for Mailgun's own zero in the year 1."""
    try:
        found = parsedate_to_datetime(created)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo and found >= facts.EARLIEST else None
