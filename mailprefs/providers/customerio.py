"""Customer.io: its signed reporting webhooks in, its subscription preferences out. What is known of it: docs/providers/customerio.md."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mailprefs.errors import Forged, Misconfigured, Unreadable
from mailprefs.providers import facts, reading, samples, signing, telling
from mailprefs.providers.base import Answers, Credential, Delivery, Heard, Listed, Outcome, Sample, Settlement, Telling
from mailprefs.providers.customerio_people import ADVICE, HOSTS, TOPIC, Lines, Person
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

_UNDERWAY = "it is on its way, or was only drafted; the recipient's side has said nothing yet"
_OURS = "Customer.io could not or would not send it, which says nothing of the recipient"
EMAIL: Mapping[str, Kind | str] = {
    "drafted": _UNDERWAY,
    "attempted": Kind.DEFERRED,
    "sent": _UNDERWAY,
    "delivered": Kind.DELIVERED,
    "bounced": Kind.BOUNCED_SOFT,  # hard where its failure_message blames the address itself
    "dropped": Kind.DROPPED,
    "spammed": Kind.COMPLAINED,
    "failed": _OURS,
    "undeliverable": _OURS,
    "opened": "engagement is no consent",
    "clicked": "engagement is no consent",
    "converted": "engagement is no consent",
    "unsubscribed": Kind.UNSUBSCRIBED,
}
PERSON: Mapping[str, Kind | str] = {
    "subscribed": Kind.RESUBSCRIBED,
    "unsubscribed": Kind.UNSUBSCRIBED,  # from everything, whichever channel it came by
    "cio_subscription_preferences_changed": Kind.UNSUBSCRIBED,  # from each topic that was turned off
}
OTHERS = ("sms", "push", "in_app", "slack", "webhook", "whatsapp")  # what else it carries
_OTHER = "it is about a message of another channel; a person's own choice is heard by whichever channel it comes"
PREFERENCES = "cio_subscription_preferences_changed"
_LEFT = "\0left"  # what was turned off; no field of theirs, since strict JSON holds no NUL

SIGNATURE, TIMESTAMP = "X-CIO-Signature", "X-CIO-Timestamp"
_UNIX_TIME = re.compile(r"[0-9]{1,18}")
_KEY_ADVICE = "At Customer.io, Data & Integrations → Integrations → Reporting Webhooks shows the webhook's signing key; set it unchanged."


@dataclass(frozen=True, slots=True)
class CustomerIo:
    """Customer.io both ways. Holds no state."""

    budget: timedelta = telling.BUDGET
    pause: timedelta = timedelta(seconds=0.12)  # between two questions: ten a second are what it lets a workspace ask

    name: ClassVar[str] = "customerio"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers()  # whatever is kept is a 200: all that follows waits behind any other answer, for days
    kinds: ClassVar[Mapping[str, Kind | str]] = {
        **{f"email/{metric}": kind for metric, kind in EMAIL.items()},
        **{f"customer/{metric}": kind for metric, kind in PERSON.items()},
        **dict.fromkeys(OTHERS, _OTHER),
    }
    secrets_in: ClassVar[tuple[str, ...]] = ("webhook_key",)
    seals: ClassVar[tuple[str, ...]] = (SIGNATURE,)
    secrets_out: ClassVar[tuple[str, ...]] = tuple(ADVICE)
    hosts: ClassVar[tuple[str, ...]] = HOSTS
    batch: ClassVar[int] = 10  # each is four questions and a write, which fit the budget at that distance
    pace: ClassVar[float] = 0.1

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        signing.check(credential, "webhook_key", 16, _KEY_ADVICE)
        if credential.groups:
            for name, advice in ADVICE.items():
                credential.needed(name, 16, advice)
        if strange := [group for group in credential.groups if not TOPIC.fullmatch(group)]:
            raise Misconfigured(
                f"Account '{credential.account}': scopes maps to '{strange[0]}', but Customer.io knows a topic by an identifier such as "
                "topic_7. Workspace Settings → Subscription center shows its number."
            )
        Lines.check(credential)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the raw bytes were signed for this account. Its retries may come for seven days: no window."""
        timestamp = delivery.header(TIMESTAMP) or ""
        if not _UNIX_TIME.fullmatch(timestamp):  # so that no colon of it can stand for the one that ends it
            raise Forged
        signed = (b"v0:", timestamp.encode(), b":", delivery.body)
        signing.hmac(credential.valid("webhook_key"), delivery.header(SIGNATURE), *signed)

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery, which tells one event. Never raises; a change of preferences is an event for each topic turned off."""
        return sort(reading.one_or_more(delivery.body).apart(_apart), lambda told: _read(told, delivery))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Customer.io would tell this: of a message, or of a person who left everything."""
        of, name = ("customer", "email_address") if told.kind is Kind.UNSUBSCRIBED else ("email", "recipient")
        about = {"object_type": of, "metric": told.kind, "timestamp": samples.unix(told.at)}
        return samples.spelt({"event_id": told.id, **about, "data": {name: told.address}})

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a body, signed with the webhook's key."""
        timestamp = str(samples.unix(at))
        signature = signing.hmac_of(credential.secrets["webhook_key"], f"v0:{timestamp}:".encode(), body)
        return samples.posted(body, at, {TIMESTAMP: timestamp, SIGNATURE: signature})

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling in its topic, never by ``unsubscribed``, which is everything, nor by suppressing, which deletes people."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            lines = Lines.of(http, credential, self.pause)
            await lines.topic(group)
            await telling.each(addresses, settled, partial(_stopped if stop else _let_go, lines, group))

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List everyone who turned the topic off, or left everything, and the latest time at which that can have been."""
        lines = Lines.of(http, credential, self.pause * 2)  # half of what it lets us ask is left to the courier
        await lines.topic(group, listing=True)
        async for person in lines.everyone(group):
            if person.address and (person.off or person.left):
                yield Listed(person.address, group, person.since)


# In


def _read(told: Mapping[str, Any], delivery: Delivery) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    word, about = _word(told), told.get("data")
    kind = place(word, CustomerIo.kinds.get(word))
    if not isinstance(kind, Kind):
        return kind
    if told.get("metric") == PREFERENCES and _LEFT not in told:
        return "no_topics" if _preferences(told) is None else Counted(PREFERENCES)
    address = _address(about)
    if not address:
        return "other_channel" if facts.text(facts.within(about, "recipient")) else "no_recipient"
    status = facts.status(facts.within(about, "failure_message"))
    if kind is Kind.BOUNCED_SOFT and status in facts.NO_SUCH_MAILBOX:
        kind = Kind.BOUNCED_HARD
    id_ = facts.name_of(told.get("event_id"), word, address, told.get("timestamp"), facts.within(about, "delivery_id"))
    if group := told.get(_LEFT):
        id_ = f"{id_}/{group}"
    return Event(kind, id_, facts.moment(told.get("timestamp"), delivery.received_at), address, None, told.get(_LEFT), status)


def _word(told: Mapping[str, Any]) -> str:
    """Return the key of an event's kind: a person's own choice is the same by whichever channel it was made."""
    of, metric = told.get("object_type"), told.get("metric")
    if of == "email" and isinstance(metric, str) and metric in EMAIL:
        return f"email/{metric}"
    if isinstance(metric, str) and metric in PERSON:
        return f"customer/{metric}"
    return of if isinstance(of, str) and of in OTHERS else ""


def _address(about: object) -> str | None:
    """Return whom an event is about: the message's recipient, else the person's address."""
    places = (("recipient",), ("email_address",), ("identifiers", "email"))
    found = [facts.text(facts.within(about, *names)) for names in places]
    return next((address for address in found if address and "@" in address), None)


def _apart(told: Any) -> list[Any]:
    """Return a change of preferences once for each thing that was turned off, with its group; everything else as it is."""
    if not isinstance(told, dict) or told.get("metric") != PREFERENCES:
        return [told]
    preferences = _preferences(told) or {}
    topics, channels = preferences.get("topics"), preferences.get("channels")
    # Anything but true counts as off: stopping too much is the safe reading of a form that may change.
    off: list[str | None] = [name if TOPIC.fullmatch(name) else "" for name, on in _items(topics) if on is not True]
    off += [None for name, on in _items(channels) if name == "email" and on is not True]
    return [told | {_LEFT: group} for group in off] or [told]


def _preferences(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a person chose, which stands as JSON in a text; None where the webhook leaves it out."""
    content = facts.within(told.get("data"), "content")
    try:
        found = reading.value(content.encode()) if isinstance(content, str) else None
    except Unreadable:
        return None
    return found if isinstance(found, dict) and (_items(found.get("topics")) or _items(found.get("channels"))) else None


def _items(of: object) -> list[tuple[str, object]]:
    return list(of.items()) if isinstance(of, dict) else []


# Out


async def _stopped(lines: Lines, topic: str, address: str) -> Settlement:
    """Turn a topic off for everyone with the address, or for one who is made for it, and look whether it is so."""
    return await _told(lines, topic, address, await lines.people(topic, address), stop=True)


async def _let_go(lines: Lines, topic: str, address: str) -> Settlement:
    """Turn a topic on for everyone with the address who turned it off, and look whether it is so. Nobody is made for it."""
    people = await lines.people(topic, address)
    if any(person.left for person in people):
        return Settlement(Outcome.REFUSED, "left_there")  # it is about more than this topic, and only they can take it back
    return await _told(lines, topic, address, people, stop=False)


async def _told(lines: Lines, topic: str, address: str, people: Sequence[Person], *, stop: bool) -> Settlement:
    if _is(people, stop):
        return telling.DONE
    whom = [{"cio_id": person.id} for person in people if person.off is not stop] or [{"email": address}]
    for one in whom:
        if refused := await lines.write(topic, one, on=not stop):
            return refused
    # Customer.io answers before it has looked, and a change that failed was answered as well.
    done = _is(await lines.people(topic, address), stop)
    return telling.DONE if done else Settlement(Outcome.UNKNOWN, "not_confirmed")


def _is(people: Sequence[Person], stop: bool) -> bool:
    """True if it is as told: for a stop there must be somebody in whom it is written down."""
    return all(person.off is stop for person in people) and bool(people or not stop)
