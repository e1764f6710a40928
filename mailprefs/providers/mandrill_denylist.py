"""Mandrill's denylist of one subaccount, read and written. Without a subaccount it would be the one that stops all mail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from mailprefs.errors import Unreadable
from mailprefs.providers import facts, reading, telling
from mailprefs.providers.base import Barred, Listed, Outcome, Settlement, Unclear, Unlisted, Unsafe
from mailprefs.providers.calling import LIMIT, PAGE, Answer
from mailprefs.providers.steady import Steady
from mailprefs.words import Kind

PATH = "/api/1.4"
MOST = 1000  # entries that it shows, and there is no second page
OURS = "custom"  # the one reason that a go takes away: the API, or the sender's own people; it never ends
FORGOTTEN = frozenset({"unsub", "spam"})  # reasons that hold for a year
SOON = timedelta(days=60)  # so long before it is forgotten, an entry counts no more: it is asserted again while it still holds
KINDS: Mapping[str, Kind] = {"spam": Kind.COMPLAINED, "hard-bounce": Kind.BOUNCED_HARD}  # by reason; all others are choices
PASSING = "soft-bounce"  # holds for a day, and says nothing of anybody
KEPT: Mapping[str, Settlement] = {  # by reason: what a go comes to where it is not ours that stands there
    "spam": Settlement(Outcome.REFUSED, "complaint"),
    "unsub": Settlement(Outcome.REFUSED, "left_there"),
    "hard-bounce": telling.DONE,  # the choice is not there, and the bounce is none of it
    PASSING: telling.DONE,
}
_LONG = (
    "Mandrill shows a thousand entries of a denylist at most, and this one has as many: it cannot be compared. Each stop is told again "
    "after 45 days instead, before Mandrill forgets it."
)
_STRANGE = Settlement(Outcome.REFUSED, "other_reason")

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Shown:
    """Entries that hold at one moment, by Mandrill's own clock."""

    entries: list[Entry]
    now: datetime | None

    def lasts(self, entry: Entry) -> bool:
        """True for an entry that stands for good, or for some time yet. A bounce is forgotten after days."""
        if entry.get("reason") == OURS:
            return True
        ends = _moment(entry.get("expires_at"))
        return entry.get("reason") in FORGOTTEN and ends is not None and self.now is not None and ends - self.now > SOON


@dataclass(frozen=True, slots=True)
class Denylist:
    """The denylist of one subaccount. Nothing is done until it is read back."""

    line: Steady
    key: str = field(repr=False)
    subaccount: str

    async def must_exist(self) -> None:
        """Raise Unsafe unless Mandrill has the subaccount: whether an unknown one is refused, or passed over, is not known."""
        answer = await self._call("subaccounts/info", {"id": self.subaccount}, asks=True)
        if _error(answer) == "Unknown_Subaccount":
            raise Unsafe(
                f"Mandrill has no subaccount '{self.subaccount}' (any more). Make it under Subaccounts, or correct subaccount and scopes."
            )
        if facts.within(answer.json(200), "id") != self.subaccount:
            raise Unclear("other_subaccount")

    async def add(self, address: str) -> Settlement:
        """Put one address on the list, and look whether it is there to stay. Who is there to stay already is left as they are."""
        if await self._lasts(address):
            return telling.DONE
        answer = await self._call("rejects/add", {"email": address, "subaccount": self.subaccount})
        if refused := _refused(answer):
            return refused
        if _said(answer, address, "added") is False:
            return Settlement(Outcome.REFUSED, "not_added")  # such as who is on the allowlist
        return telling.DONE if await self._lasts(address) else Settlement(Outcome.UNKNOWN, "not_confirmed")

    async def let_go(self, address: str) -> Settlement:
        """Take off the list what is ours, and look whether it is gone; what a bounce, a complaint or the recipient put there stays."""
        reasons = [entry.get("reason") for entry in (await self._of(address)).entries]
        if others := [reason for reason in reasons if reason != OURS]:
            return KEPT.get(str(others[0]), _STRANGE)
        if not reasons:
            return telling.DONE
        answer = await self._call("rejects/delete", {"email": address, "subaccount": self.subaccount})
        if refused := _refused(answer):
            return refused
        _said(answer, address, "deleted")
        return Settlement(Outcome.UNKNOWN, "not_confirmed") if (await self._of(address)).entries else telling.DONE

    async def everyone(self) -> list[Listed]:
        """Return whom the list holds, but not whom it forgets soon: they are told anew. Raises Unlisted if some may be left out."""
        shown = await self._entries({})
        return [
            Listed(
                entry["email"], self.subaccount, _moment(entry.get("created_at")), KINDS.get(str(entry.get("reason")), Kind.UNSUBSCRIBED)
            )
            for entry in shown.entries
            if entry.get("reason") != PASSING and (entry.get("reason") not in FORGOTTEN or shown.lasts(entry))
        ]

    async def _lasts(self, address: str) -> bool:
        shown = await self._of(address)
        return any(map(shown.lasts, shown.entries))

    async def _of(self, address: str) -> _Shown:
        """Return the entries of an address; to search for it may show others as well."""
        shown = await self._entries({"email": address})
        return _Shown([entry for entry in shown.entries if entry["email"].casefold() == address.casefold()], shown.now)

    async def _entries(self, narrowed: Mapping[str, str]) -> _Shown:
        """Return the entries of the subaccount that hold now. The question says so too, but whether all of it is heeded is not known."""
        answer = await self._call("rejects/list", {**narrowed, "subaccount": self.subaccount}, asks=True, most=PAGE)
        found = answer.json(200)
        if not isinstance(found, list) or not all(isinstance(facts.within(each, "email"), str) for each in found):
            raise Unclear("other_shape")
        if len(found) >= MOST:
            raise Unclear("cut_short") if narrowed else Unlisted(_LONG)
        here = [each for each in found if each.get("subaccount") == self.subaccount and each.get("expired") is not True]
        return _Shown(here, parsedate_to_datetime(answer.date) if answer.date else None)

    async def _call(self, call: str, more: Mapping[str, str], *, asks: bool = False, most: int = LIMIT) -> Answer:
        """Return the answer to one call. Each is a POST, with the key in its body."""
        answer = await self.line.call("POST", f"{PATH}/{call}", json={"key": self.key, **more}, asks=asks, most=most)
        if _error(answer) == "Invalid_Key":
            raise Barred
        return answer


def _error(answer: Answer) -> object:
    """Return the name of an error, which may come with any status but 200; None for what is none."""
    if answer.status == 200:
        return None
    try:
        return facts.within(reading.value(answer.body), "name")
    except Unreadable:
        return None


def _refused(answer: Answer) -> Settlement | None:
    """Return the refusal of a write. Raises Unsafe if the subaccount went away meanwhile."""
    name = _error(answer)
    if name == "Unknown_Subaccount":
        raise Unsafe("Mandrill has no such subaccount any more. Make it under Subaccounts, or correct subaccount and scopes.")
    if name == "ValidationError":
        return Settlement(Outcome.REFUSED, "invalid")
    return Settlement(Outcome.REFUSED, f"http_{answer.status}") if answer.status in telling.REFUSED else None


def _said(answer: Answer, address: str, word: str) -> bool:
    """Return what an answer says of one address. Raises Unclear unless it is of that one."""
    said = answer.json(200)
    email, became = facts.within(said, "email"), facts.within(said, word)
    if not isinstance(email, str) or email.casefold() != address.casefold() or not isinstance(became, bool):
        raise Unclear("other_shape")
    return became


def _moment(written: object) -> datetime | None:
    """Return the moment of a time in UTC, which it writes without saying so."""
    return facts.dated(f"{written}Z") if isinstance(written, str) else None
