"""The contact list of Amazon SES: each contact's choice, topic by topic. Never the account's suppression list, which stops all mail.

A write replaces everything that stands for a contact, and none can be made conditional: each is made of what was read just before,
and read again after. In one process two writers never have the same contact in hand (docs/providers/ses.md).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from weakref import WeakValueDictionary

from yarl import URL

from mailprefs.errors import Misconfigured
from mailprefs.providers import facts, sigv4, telling
from mailprefs.providers.base import Credential, Listed, Outcome, Settlement, Unclear, Unsafe
from mailprefs.providers.calling import PAGE, Answer, Line, base_of
from mailprefs.providers.steady import Steady

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_AREAS = {  # how many regions with SES each has, numbered from one
    **dict.fromkeys(("us-east", "us-west", "eu-central", "eu-south", "ap-south"), 2),
    **dict.fromkeys(("eu-west", "ap-northeast"), 3),
    **dict.fromkeys(("ca-central", "ca-west", "mx-central", "sa-east", "eu-north", "af-south", "il-central", "me-central", "me-south"), 1),
    **dict.fromkeys(("us-gov-east", "us-gov-west"), 1),
    "ap-southeast": 7,
}
REGIONS = (*(f"{area}-{n + 1}" for area, count in _AREAS.items() for n in range(count)), "ap-east-2")
HOSTS = tuple(f"{name}.{region}.amazonaws.com" for name in ("email", "email-fips") for region in REGIONS)
SECRETS = ("access_key_id", "secret_access_key")
_KEY_ADVICE = (
    "At AWS, IAM makes an access key; its user needs ses:GetContactList, ses:GetContact, ses:ListContacts, ses:CreateContact and "
    "ses:UpdateContact, and nothing else."
)

IN, OUT = "OPT_IN", "OPT_OUT"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # of a contact list, and of a topic
SIZES = (1000, 100)  # contacts in a page: which of them is too many is not documented
LONGEST_LIST = 1_000_000  # pages; more of them go round in a circle
ADVICE = "In the SES console, Configuration → Email lists → Contact lists shows the contact list and its topics."
LEFT_ALL = Settlement(Outcome.REFUSED, "unsubscribed_all")  # a go for one topic cannot take back what is about all of them

Locks = WeakValueDictionary[tuple[str, str, str], asyncio.Lock]  # by base, contact list and address


def check(credential: Credential) -> None:
    """Raise Misconfigured, naming account, setting and what to do, unless the account's contact list could be told."""
    for secret, shortest in zip(SECRETS, (16, 32), strict=True):
        credential.needed(secret, shortest, _KEY_ADVICE)
    region, name = credential.options.get("region"), credential.options.get("contact_list")
    if region not in REGIONS:
        raise Misconfigured(f"Account '{credential.account}': region is missing, or not one of those with SES: {', '.join(REGIONS)}.")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Misconfigured(f"Account '{credential.account}': contact_list is missing, or no name of one. {ADVICE}")
    _base(credential)


def _base(credential: Credential) -> str:
    """Return where the account's region is. What is signed for one counts in no other."""
    return base_of(credential, [host for host in HOSTS if f".{credential.options.get('region')}." in host])


@dataclass(frozen=True, slots=True)
class Signed(Steady):
    """A line whose every request is signed for AWS."""

    key: sigv4.Key = field(kw_only=True)
    clock: Callable[[], datetime] = field(kw_only=True)

    def dressed(self, method: str, url: URL, body: bytes) -> Mapping[str, str]:
        """Return the headers of one request, with its proof. What a proxy may change is not signed."""
        named = {"Content-Type": "application/json"} if body else {}
        return {**self.headers, **sigv4.signed(self.key, method, url, body, self.clock(), named)}

    def is_slow(self, response: ClientResponse) -> bool:
        """True for a 429, and for the throttling that all of AWS has in common, which may come as a 400."""
        return Line.is_slow(self, response) or response.headers.get("x-amzn-ErrorType", "").startswith("Throttling")


def line(http: ClientSession, credential: Credential, pause: timedelta, clock: Callable[[], datetime]) -> Signed:
    """Return the way to the account's region."""
    id_, secret = (credential.lent(name, _KEY_ADVICE) for name in SECRETS)
    key = sigv4.Key(id_, secret, str(credential.options.get("region")), "ses")
    return Signed(http, _base(credential), {"Accept": "application/json"}, pause, key=key, clock=clock)


@dataclass(frozen=True, slots=True)
class Contact:
    """What stands in the list for one address, as it came."""

    told: Mapping[str, Any]
    choices: Mapping[str, str]
    defaults: Mapping[str, str]

    @property
    def address(self) -> str:
        return str(self.told["EmailAddress"])

    @property
    def left_all(self) -> bool:
        return self.told.get("UnsubscribeAll") is True

    def choice(self, topic: str) -> str | None:
        """Return what counts for the topic: the contact's own choice, else the topic's default."""
        return self.choices.get(topic) or self.defaults.get(topic)

    def choosing(self, topic: str, choice: str) -> dict[str, Any]:
        """Return everything that stands for the contact, with this choice in it. What is left out of a write is forgotten."""
        choices = {**self.choices, topic: choice}
        kept = {name: self.told[name] for name in ("UnsubscribeAll", "AttributesData") if self.told.get(name) is not None}
        return {"TopicPreferences": _preferences(choices), **kept}


@dataclass(frozen=True, slots=True)
class Contacts:
    """One contact list."""

    line: Signed
    name: str
    locks: Locks

    @property
    def path(self) -> str:
        return f"/v2/email/contact-lists/{self.name}"

    async def must_have(self, topic: str) -> None:
        """Raise Unsafe unless the contact list has the topic."""
        if not NAME.fullmatch(topic):
            raise Unsafe(f"The account maps a topic to what is no name of a topic of SES. {ADVICE}")
        answer = await self.line.call("GET", self.path)
        if answer.status == 404:
            raise Unsafe(f"SES has no such contact list in this region. Correct contact_list or region in mailprefs.toml. {ADVICE}")
        found = answer.json(200)
        if facts.within(found, "ContactListName") != self.name:
            raise Unclear("other_list")
        topics = facts.within(found, "Topics")
        if topic not in [facts.within(each, "TopicName") for each in (topics if isinstance(topics, list) else [])]:
            raise Unsafe(f"The contact list of SES has no topic '{topic}' (any more). Map to one that exists. {ADVICE}")

    async def stop(self, topic: str, address: str) -> Settlement:
        """Opt a contact out of the topic, one that has to be made first if need be, and look whether it is so."""
        async with self._alone(address):
            contact = await self.contact(address)
            if contact is None:
                return await self._created(topic, address)
            if contact.left_all or contact.choices.get(topic) == OUT:
                return telling.DONE
            return await self._written(contact, topic, OUT)

    async def go(self, topic: str, address: str) -> Settlement:
        """Opt a contact in to the topic, and look whether it is so. Nobody is made a contact, or brought back to all the others."""
        async with self._alone(address):
            contact = await self.contact(address)
            if contact and contact.left_all:
                return LEFT_ALL
            if contact is None or contact.choice(topic) != OUT:
                return telling.DONE
            return await self._written(contact, topic, IN)

    async def contact(self, address: str) -> Contact | None:
        """Return what stands in the list for an address, None if nothing does."""
        answer = await self.line.call("GET", self._of(address))
        if answer.status == 404:
            return None
        found = _contact(answer.json(200))
        if found.address.casefold() != address.casefold():
            raise Unclear("other_address")
        return found

    async def listed(self, topic: str) -> AsyncIterator[Listed]:
        """List every contact that left the topic, or everything. There is no date of a choice: a contact has one for all of them."""
        await self.must_have(topic)
        size, token = SIZES[0], None
        for _ in range(LONGEST_LIST):
            answer = await self._page(size, token)
            if answer.status == 400 and size != SIZES[-1] and token is None:
                size = SIZES[-1]
                continue
            told = answer.json(200)
            for contact in map(_contact, _each(facts.within(told, "Contacts"))):
                if contact.left_all or contact.choices.get(topic) == OUT:
                    yield Listed(contact.address, topic)
            before, token = token, facts.within(told, "NextToken")
            if token is None:
                return
            if not isinstance(token, str) or not token or token == before:
                raise Unclear("no_next")
        raise Unclear("too_long")

    async def _page(self, size: int, token: object) -> Answer:
        told = {"PageSize": size} | ({"NextToken": token} if token else {})
        return await self.line.call("POST", f"{self.path}/contacts/list", json=told, most=PAGE, asks=True)

    def _alone(self, address: str) -> asyncio.Lock:
        """Return what only one writer of this contact holds."""
        return self.locks.setdefault((self.line.base, self.name, address.casefold()), asyncio.Lock())

    def _of(self, address: str) -> str:
        return f"{self.path}/contacts/{quote(address, safe='')}"

    async def _created(self, topic: str, address: str) -> Settlement:
        told = {"EmailAddress": address, "TopicPreferences": _preferences({topic: OUT})}
        answer = await self.line.call("POST", f"{self.path}/contacts", json=told)
        if answer.status == 400 and await self.contact(address):
            return Settlement(Outcome.UNKNOWN, "made_meanwhile")
        return await self._confirmed(answer, topic, address, OUT)

    async def _written(self, contact: Contact, topic: str, choice: str) -> Settlement:
        answer = await self.line.call("PUT", self._of(contact.address), json=contact.choosing(topic, choice))
        if answer.status == 404:
            return Settlement(Outcome.UNKNOWN, "gone_meanwhile")
        return await self._confirmed(answer, topic, contact.address, choice)

    async def _confirmed(self, answer: Answer, topic: str, address: str, choice: str) -> Settlement:
        """Return what a write came to: done is what SES says when it is asked."""
        if answer.status in telling.REFUSALS:
            return Settlement(Outcome.REFUSED, f"http_{answer.status}")
        answer.json(200)
        contact = await self.contact(address)
        return telling.DONE if contact and contact.choices.get(topic) == choice else Settlement(Outcome.UNKNOWN, "not_there")


def _preferences(choices: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"TopicName": topic, "SubscriptionStatus": choice} for topic, choice in choices.items()]


def _contact(told: Any) -> Contact:
    if not isinstance(told, dict) or not facts.text(told.get("EmailAddress")):
        raise Unclear("other_shape")
    return Contact(told, dict(_choices(told.get("TopicPreferences"))), dict(_choices(told.get("TopicDefaultPreferences"))))


def _choices(told: object) -> Iterator[tuple[str, str]]:
    for each in _each(told):
        topic, choice = facts.within(each, "TopicName"), facts.within(each, "SubscriptionStatus")
        if not isinstance(topic, str) or choice not in (IN, OUT):
            raise Unclear("other_shape")
        yield topic, str(choice)


def _each(told: object) -> list[Any]:
    """Return the elements of a list that may be missing. Raises Unclear for anything else."""
    if told is not None and not isinstance(told, list):
        raise Unclear("other_shape")
    return told or []
