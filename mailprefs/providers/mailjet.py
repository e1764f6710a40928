"""Mailjet: its Event API in, known by user and password, its contact lists out. What is known of it: docs/providers/mailjet.md."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from mailprefs.errors import Misconfigured
from mailprefs.providers import facts, offsets, reading, samples, telling
from mailprefs.providers.base import (
    OURS,
    Credential,
    Delivery,
    Heard,
    Listed,
    Outcome,
    Sample,
    Settlement,
    Telling,
    Unclear,
    Unsafe,
)
from mailprefs.providers.calling import PAGE, Answer, Line, base_of
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.steady import Steady
from mailprefs.providers.unsigned import Unsigned
from mailprefs.words import Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

WORDS: Mapping[str, Kind | str] = {
    "sent": Kind.DELIVERED,  # the receiving side took it
    "open": "engagement is no consent",
    "click": "engagement is no consent",
    "bounce/hard": Kind.BOUNCED_HARD,
    "bounce/soft": Kind.BOUNCED_SOFT,
    "bounce/spam": Kind.BLOCKED,
    "bounce/greylisted": Kind.DEFERRED,  # Mailjet tries again
    "bounce/mailjet": Kind.DROPPED,
    "blocked": Kind.DROPPED,  # held back for what Mailjet knew before: an echo, whatever its error says
    "spam": Kind.COMPLAINED,
    "unsub": Kind.UNSUBSCRIBED,
}
_ADDRESS = ("recipient", "domain", "", None)  # what an error may be related to if the address is to blame, or nothing is said
_PASSING = ("quota exceeded", "greylisted")  # errors that are not permanent, by the table, whatever the flag says

_ADVICE = (
    "Make up both, and write them into the address at Mailjet, Account settings → Event notifications (webhooks): "
    "https://USER:PASSWORD@YOUR-HOST/hooks/…"
)

REST = "/v3/REST"
ENTRIES = 1000  # in one page of a listing, the most it gives
_LIST = re.compile(r"[1-9][0-9]{0,17}")
_API_ADVICE = "At Mailjet, Account settings → API key management shows both the API key and the secret key."
_MAP_ADVICE = "A contact list is known by its number, such as 10012345: Contacts → Contact lists shows it."


@dataclass(frozen=True, slots=True)
class Mailjet(Unsigned):
    """Mailjet both ways. Exactly 200 is kept to it: any other code is sent again (docs/providers/mailjet.md)."""

    budget: timedelta = telling.BUDGET

    name: ClassVar[str] = "mailjet"
    advice: ClassVar[str] = _ADVICE
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_out: ClassVar[tuple[str, ...]] = ("api_key", "api_secret")
    hosts: ClassVar[tuple[str, ...]] = ("api.mailjet.com", "api.us.mailjet.com")
    batch: ClassVar[int] = 5  # each is five requests, or eight for one who was unknown
    pace: ClassVar[float] = 0.2  # no limit is documented: about five requests a second are none that anybody would set

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        Unsigned.check(self, credential)
        if credential.groups or not credential.secrets.keys().isdisjoint(self.secrets_out):
            for name in self.secrets_out:
                credential.needed(name, 16, _API_ADVICE)
        if strange := [group for group in credential.groups if not _LIST.fullmatch(group)]:
            raise Misconfigured(
                f"Account '{credential.account}': scopes maps to '{strange[0]}', which is no number of a contact list. {_MAP_ADVICE}"
            )
        base_of(credential, self.hosts)

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery: one event, or the array of a second. Never raises; events, kept and counted are as many as it told."""
        return sort(reading.one_or_more(delivery.body), lambda told: _read(told, delivery))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Mailjet would tell this: as an array, as grouped events come."""
        word = "unsub" if told.kind is Kind.UNSUBSCRIBED else "sent"
        left = {"mj_list_id": int(told.group)} if told.group.isdecimal() else {}
        return samples.spelt([{"event": word, "time": samples.unix(told.at), "Message_GUID": told.id, "email": told.address, **left}])

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling in its contact list, never in the exclusion list, which is about all of an account's marketing."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            line = await self._line(http, credential, group)
            await telling.each(addresses, settled, partial(_stopped if stop else _let_go, line, int(group)))

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List everyone who is unsubscribed from the contact list, and since when. Holds the numbers of all of them."""
        line = await self._line(http, credential, group)
        left = await _left(line, int(group))
        if left:  # a membership names a contact by number alone: the list's contacts have the addresses
            async for contact in offsets.walk(partial(_page, line, f"contact?ContactsList={group}"), "ID"):
                if (number := _number(contact.get("ID"))) in left:
                    yield Listed(_address(contact), group, left.pop(number))
        for number, since in left.items():  # whom that listing does not show
            if found := await _contact(line, str(number)):
                yield Listed(_address(found), group, since)

    async def _line(self, http: ClientSession, credential: Credential, group: str) -> Line:
        """Return the way to a contact list. Raises Unsafe unless it exists."""
        if not _LIST.fullmatch(group):
            raise Unsafe(f"The account maps a topic to what is no number of a contact list. {_MAP_ADVICE}")
        key, secret = (credential.lent(name, _API_ADVICE) for name in self.secrets_out)
        headers = {"Authorization": f"Basic {b64encode(f'{key}:{secret}'.encode()).decode()}", "Accept": "application/json"}
        line = Steady(http, base_of(credential, self.hosts), headers)
        answer = await line.call("GET", f"{REST}/contactslist/{group}")
        found = [] if answer.status == 404 else _entries(answer)
        if not found or found[0].get("IsDeleted") is True:
            raise Unsafe(f"Mailjet has no contact list {group} (any more). Map the topic to one that exists.")
        if _number(found[0].get("ID")) != int(group):
            raise Unclear("other_list")
        return line


# In


def _read(told: Mapping[str, Any], delivery: Delivery) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    event = told.get("event")
    word = f"bounce/{_fault(told)}" if event == "bounce" else event if isinstance(event, str) else ""
    kind = place(word, WORDS.get(word))
    if not isinstance(kind, Kind):
        return kind
    address, token = facts.text(told.get("email")), facts.text(reading.member(told.get("Payload"), OURS))
    if not address and not token:
        return "no_recipient"
    group = _list(told.get("mj_list_id")) if kind is Kind.UNSUBSCRIBED else None
    named = facts.name_of(None, word, *(told.get(name) for name in ("email", "MessageID", "Message_GUID", "time", "mj_list_id")))
    happened_at = facts.moment(told.get("time"), delivery.received_at)
    return Event(kind, named, happened_at, address, token, group, facts.status(told.get("comment")))


def _fault(told: Mapping[str, Any]) -> str:
    """Return what kind of bounce it is. Permanent alone is not hard: the address must be to blame, by Mailjet's table of errors."""
    hard, related, error = told.get("hard_bounce") is True, told.get("error_related_to"), told.get("error")
    if related in ("spam", "mailjet"):
        return str(related)
    if error == "greylisted" and not hard:
        return "greylisted"
    return "hard" if hard and related in _ADDRESS and error not in _PASSING else "soft"


def _list(number: object) -> str | None:
    """Return the list that was left, None for no list at all. "" for one that cannot be read: it stops all marketing."""
    if number is None or (type(number) is int and number == 0):
        return None  # the message was sent to no list: what was left is all marketing
    written = str(number) if type(number) is int else number
    return written if isinstance(written, str) and written.isascii() and written.isdigit() and len(written) <= 18 else ""


# Out


@dataclass(frozen=True, slots=True)
class _Member:
    """A contact as it stands in the list."""

    id: int  # of the membership, not of the contact
    stopped: bool
    was_in: bool  # it was subscribed once


async def _stopped(line: Line, list_: int, address: str) -> Settlement:
    """Unsubscribe a contact, one that is made for it if need be, and look whether it is so.

    Who is unsubscribed already is left as it is: since when may be all that tells one who was in from one who never was.
    """
    _, member = await _membership(line, list_, address)
    if member and member.stopped:
        return telling.DONE
    unsub = {"Email": address, "Action": "unsub"}
    if refused := _refusal(await line.call("POST", f"{REST}/contactslist/{list_}/managecontact", json=unsub)):
        return refused
    contact, member = await _membership(line, list_, address)
    if contact and not member:  # who was in no list may have been left out of it, for the next import to put in
        made = {"ContactAlt": address, "ListID": list_, "IsUnsubscribed": True}
        if refused := _refusal(await line.call("POST", f"{REST}/listrecipient", json=made)):
            return refused
        contact, member = await _membership(line, list_, address)
    return telling.DONE if member and member.stopped else Settlement(Outcome.UNKNOWN, "not_confirmed")


async def _let_go(line: Line, list_: int, address: str) -> Settlement:
    """Take back that a contact is unsubscribed, and look whether it is so. Who was never in is taken out again, not subscribed."""
    _, member = await _membership(line, list_, address)
    if not (member and member.stopped):
        return telling.DONE
    path = f"{REST}/listrecipient/{member.id}"
    if member.was_in:
        if refused := _refusal(await line.call("PUT", path, json={"IsUnsubscribed": False})):
            return refused
    elif (answer := await line.call("DELETE", path)).status != 204:
        raise answer.unclear
    _, member = await _membership(line, list_, address)
    return Settlement(Outcome.UNKNOWN, "not_confirmed") if member and member.stopped else telling.DONE


def _refusal(answer: Answer) -> Settlement | None:
    """Return the refusal of a write, None where it was taken. Raises Unclear unless it is one or the other."""
    if answer.status in telling.REFUSED:
        return Settlement(Outcome.REFUSED, f"http_{answer.status}")
    if not _entries(answer, 201 if answer.status == 201 else 200):  # made or changed: its guides do not say when which
        raise Unclear("other_shape")
    return None


async def _membership(line: Line, list_: int, address: str) -> tuple[int | None, _Member | None]:
    """Return the number of a contact, and how it stands in the list: each None if it is not there."""
    contact = await _contact(line, quote(address, safe=""))
    if contact is None:
        return None, None
    if _address(contact).casefold() != address.casefold():
        raise Unclear("other_contact")
    number = _number(contact.get("ID"))
    entries = _entries(await line.call("GET", f"{REST}/listrecipient?Contact={number}&ContactsList={list_}&Limit={ENTRIES}", most=PAGE))
    # Whether both filters are heeded is looked at, not believed.
    found = [each for each in entries if _number(each.get("ContactID")) == number and _number(each.get("ListID")) == list_]
    if len(found) > 1 or len(found) < len(entries):
        raise Unclear("other_shape")
    return number, _member(found[0]) if found else None


def _member(entry: Mapping[str, Any]) -> _Member:
    began, ended = facts.dated(entry.get("SubscribedAt")), facts.dated(entry.get("UnsubscribedAt"))
    return _Member(_number(entry.get("ID")), _is_unsubscribed(entry), bool(began and ended and began < ended))


async def _contact(line: Line, named: str) -> dict[str, Any] | None:
    """Return a contact by its number or escaped address, None if there is none."""
    answer = await line.call("GET", f"{REST}/contact/{named}")
    if answer.status == 404:
        return None
    entries = _entries(answer)
    if len(entries) != 1:
        raise Unclear("other_shape")
    return entries[0]


async def _left(line: Line, list_: int) -> dict[int, datetime | None]:
    """Return who is unsubscribed from the list: the number of the contact, and since when."""
    left: dict[int, datetime | None] = {}
    async for entry in offsets.walk(partial(_page, line, f"listrecipient?ContactsList={list_}&Unsub=true"), "ID"):
        if _number(entry.get("ListID")) == list_ and _is_unsubscribed(entry):
            left[_number(entry.get("ContactID"))] = facts.dated(entry.get("UnsubscribedAt"))
    return left


async def _page(line: Line, what: str, offset: int) -> offsets.Page:
    """Return the entries from an offset on, new ones at the end. Whether Total counts them all or those of the page is not known."""
    answer = await line.call("GET", f"{REST}/{what}&Sort=ID&Limit={ENTRIES}&Offset={offset}", most=PAGE)
    entries, total = _entries(answer), facts.within(reading.value(answer.body), "Total")
    if type(total) is not int:
        raise Unclear("other_shape")
    # So it is asked for more until nothing more comes than what a page has in common with the one before.
    beyond = len(entries) > offsets.OVERLAP
    return entries, max(total, offset + len(entries) + beyond)


def _entries(answer: Answer, status: int = 200) -> list[dict[str, Any]]:
    """Return the objects of an answer. Raises Unclear if it is not as documented."""
    entries = facts.within(answer.json(status), "Data")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise Unclear("other_shape")
    return entries


def _number(value: object) -> int:
    """Return the number of a contact, a list or a membership. Raises Unclear for anything else."""
    if type(value) is not int or value < 1:
        raise Unclear("other_shape")
    return value


def _address(contact: Mapping[str, Any]) -> str:
    if address := facts.text(contact.get("Email")):
        return address
    raise Unclear("other_shape")


def _is_unsubscribed(entry: Mapping[str, Any]) -> bool:
    left = entry.get("IsUnsubscribed")
    if not isinstance(left, bool):
        raise Unclear("other_shape")
    return left
