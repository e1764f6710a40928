"""Brevo: its webhooks in, known by user and password, its blocklist of campaigns out. What is known of it: docs/providers/brevo.md."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from mailprefs.errors import Misconfigured
from mailprefs.providers import facts, offsets, reading, samples, signing, telling
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
from mailprefs.providers.calling import PAGE, Line, base_of
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.steady import Steady
from mailprefs.providers.unsigned import Unsigned
from mailprefs.words import Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

_ENGAGED = "engagement is no consent"
WORDS: Mapping[str, Kind | str] = {
    "request": "Brevo took the message over; the recipient's side has said nothing yet",
    "sent": "Brevo took the message over; the recipient's side has said nothing yet",
    "delivered": Kind.DELIVERED,
    "deferred": Kind.DEFERRED,
    "hard_bounce": Kind.BOUNCED_HARD,
    "invalid_email": Kind.BOUNCED_HARD,
    "invalid": Kind.BOUNCED_HARD,
    "soft_bounce": Kind.BOUNCED_SOFT,
    "blocked": Kind.DROPPED,  # held back for what stands on its blocklist: an echo, whatever its reason
    "error": "Brevo failed by itself, which tells nothing of the recipient",
    "spam": Kind.COMPLAINED,
    "complaint": Kind.COMPLAINED,
    "unsubscribe": Kind.UNSUBSCRIBED,
    "unsubscribed": Kind.UNSUBSCRIBED,
    "list_addition": Kind.RESUBSCRIBED,
    "contact_updated": "fields of a contact changed, which is no wish of the recipient's",
    "contact_deleted": "a contact was deleted at Brevo, which lifts nothing here",
    "unique_opened": _ENGAGED,
    "opened": _ENGAGED,
    "first_opening": _ENGAGED,
    "unique_proxy_open": _ENGAGED,
    "proxy_open": _ENGAGED,
    "loaded_by_proxy": _ENGAGED,
    "click": _ENGAGED,
    "clicked": _ENGAGED,
}

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_MILLISECONDS = 10**11  # a time from here on is not in seconds: those would be of the year 5138
_LATE = 14 * 3600  # seconds by which ts_event may run before UTC: it was seen nine hours before (docs/providers/brevo.md)
_ADVICE = "Make up both, and set them at Brevo when the webhook is made, as its authentication: Settings → Webhooks → Add a new webhook."

CAMPAIGNS = "campaigns"  # Brevo's one blocklist of its own for marketing, by the name that scopes gives it
ENTRIES = 500  # contacts in one page of a listing; Brevo gives a thousand, whose attributes may be many
_THEIRS = {  # what a contact's last 90 days may hold that no go of ours may undo, and how it is called
    ("statistics", "unsubscriptions", "userUnsubscription"): "left_there",
    ("statistics", "complaints"): "left_there",
    ("statistics", "hardBounces"): "bounced_there",
}
_API_ADVICE = "At Brevo, SMTP & API → API keys makes one (begins with xkeysib-)."
_MAP_ADVICE = (
    "Brevo keeps one blocklist for all campaigns of an account: map one scope to it, as a rule marketing: "
    'scopes = { marketing = "campaigns" }.'
)


@dataclass(frozen=True, slots=True)
class Brevo(Unsigned):
    """Brevo both ways. Holds no state."""

    budget: timedelta = telling.BUDGET
    pause: timedelta = timedelta(seconds=0.12)  # between two requests: ten a second are what it lets an account ask about contacts

    name: ClassVar[str] = "brevo"
    advice: ClassVar[str] = _ADVICE
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_out: ClassVar[tuple[str, ...]] = ("api_key",)
    hosts: ClassVar[tuple[str, ...]] = ("api.brevo.com",)
    batch: ClassVar[int] = 20  # each is two requests, or three, which take 7.2 seconds at that distance
    pace: ClassVar[float] = 0.135  # so that one is over before the next begins

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        Unsigned.check(self, credential)
        if credential.groups or "api_key" in credential.secrets:
            credential.needed("api_key", 16, _API_ADVICE)
        if strange := [group for group in credential.groups if group != CAMPAIGNS]:
            raise Misconfigured(f"Account '{credential.account}': scopes maps to '{strange[0]}'. {_MAP_ADVICE}")
        base_of(credential, self.hosts)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the delivery came with the account's user and password, or bears the password as its token."""
        authorization = delivery.header("Authorization")
        if authorization and authorization.startswith("Bearer "):
            signing.bearer(credential.valid("webhook_password"), authorization)
        else:
            signing.basic(credential, authorization)

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery: one event, or an array of them. Never raises; events, kept and counted are as many as it told."""
        return sort(reading.one_or_more(delivery.body), lambda told: _read(told, delivery.received_at))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Brevo would tell this."""
        named = {"email": told.address, "message-id": f"<{told.id}@example.com>", "subject": samples.SUBJECT}
        return samples.spelt({"event": told.kind, **named, "ts_epoch": samples.unix(told.at) * 1000})

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling in the blocklist of campaigns, never in that of senders, which stops transactional mail."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            line = self._line(http, credential, group, self.pause)
            await telling.each(addresses, settled, partial(_blocked if stop else _let_go, line))

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List everyone on the blocklist of campaigns, without dates. It is read out of all contacts that Brevo has."""
        line = self._line(http, credential, group, self.pause * 5)
        async for contact in offsets.walk(partial(_page, line), "id"):
            address = contact.get("email")
            if _is_blocked(contact) and address is not None:  # some have a telephone number alone
                if not facts.text(address):
                    raise Unclear("other_shape")
                yield Listed(str(address), group)

    def _line(self, http: ClientSession, credential: Credential, group: str, pause: timedelta) -> Line:
        if group != CAMPAIGNS:
            raise Unsafe(f"The account maps a topic to what is not Brevo's blocklist of campaigns. {_MAP_ADVICE}")
        headers = {"api-key": credential.lent("api_key", _API_ADVICE), "Accept": "application/json"}
        return Steady(http, base_of(credential, self.hosts), headers, pause)


# In


def _read(told: Mapping[str, Any], received_at: datetime) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    event = told.get("event")
    word = _HUMP.sub("_", event).lower() if isinstance(event, str) else ""  # hardBounce is configured, hard_bounce is posted
    kind = place(word, WORDS.get(word))
    if not isinstance(kind, Kind):
        return kind
    address, token = facts.text(told.get("email")), _token(told.get("X-Mailin-custom"))
    if not address and not token:
        return "no_recipient"
    # Whoever unsubscribes is put on the blocklist for all campaigns, or of a sender: a list only says what the message was sent to.
    return Event(kind, _id(told, word), _moment(told, received_at), address, token, None, facts.status(told.get("reason")))


def _token(custom: object) -> str | None:
    """Return our token from the header that was sent with the message. Text that is JSON comes back as that text."""
    return facts.text(facts.within(custom, OURS)) or facts.text(reading.member(custom, OURS))


def _id(told: Mapping[str, Any], word: str) -> str:
    """Return one name for every repetition of the same event. ``id`` is the webhook's own, not the event's."""
    names = ("email", "message-id", "camp_id", "ts_epoch", "ts_event", "ts", "date", "list_id")
    return facts.name_of(None, word, *(told.get(name) for name in names))


def _moment(told: Mapping[str, Any], received_at: datetime) -> datetime:
    """Return when it happened. Without a time that is surely UTC, the latest moment that it can have been."""
    epoch, seconds = told.get("ts_epoch"), told.get("ts_event")
    if isinstance(epoch, int | float) and not isinstance(epoch, bool):
        return facts.moment(epoch / 1000 if _MILLISECONDS <= epoch < _MILLISECONDS * 1000 else epoch, received_at)
    return facts.moment(seconds + _LATE if type(seconds) is int else None, received_at)


# Out


async def _blocked(line: Line, address: str) -> Settlement:
    """Put a contact on the blocklist, one that is made for it if need be, and look whether it is there."""
    contact = {"email": address, "emailBlacklisted": True, "updateEnabled": True}
    return await _written(line, "POST", "/v3/contacts", contact, address)


async def _let_go(line: Line, address: str) -> Settlement:
    """Take a contact off the blocklist, and look whether that is so. What the recipient did there is not undone."""
    contact = await _contact(line, address)
    if contact is None or not _is_blocked(contact):
        return telling.DONE
    for names, detail in _THEIRS.items():
        if facts.within(contact, *names):
            return Settlement(Outcome.REFUSED, detail)
    return await _written(line, "PUT", _path(address), {"emailBlacklisted": False}, address)


async def _written(line: Line, method: str, path: str, contact: Mapping[str, object], address: str) -> Settlement:
    answer = await line.call(method, path, json=contact)
    if answer.status in telling.REFUSED:
        return Settlement(Outcome.REFUSED, f"http_{answer.status}")
    if answer.status not in (201, 204):  # made, changed
        raise answer.unclear
    found = await _contact(line, address)
    done = found is not None and _is_blocked(found) is contact["emailBlacklisted"]
    return telling.DONE if done else Settlement(Outcome.UNKNOWN, "not_confirmed")


async def _contact(line: Line, address: str) -> object:
    """Return what Brevo has of a contact, None if it has none."""
    answer = await line.call("GET", _path(address), most=PAGE)  # with all that it was sent in 90 days
    return None if answer.status == 404 else answer.json(200)


def _path(address: str) -> str:
    return f"/v3/contacts/{quote(address, safe='')}?identifierType=email_id"


def _is_blocked(contact: object) -> bool:
    blocked = facts.within(contact, "emailBlacklisted")
    if not isinstance(blocked, bool):
        raise Unclear("other_shape")
    return blocked


async def _page(line: Line, offset: int) -> offsets.Page:
    """Return the contacts from an offset on, the newest last."""
    answer = await line.call("GET", f"/v3/contacts?limit={ENTRIES}&offset={offset}&sort=asc", most=PAGE)
    found = answer.json(200)
    contacts, count = facts.within(found, "contacts"), facts.within(found, "count")
    if not isinstance(contacts, list) or not all(isinstance(each, dict) for each in contacts) or type(count) is not int:
        raise Unclear("other_shape")
    return contacts, count
