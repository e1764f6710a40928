"""Resend: its webhooks in, which Svix sends, and its contacts' topics out. What is known of it: docs/providers/resend.md."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from mailprefs.errors import Misconfigured
from mailprefs.providers import attempts, bounces, facts, reading, returned, samples, telling
from mailprefs.providers.attempts import Attempt, Attempted
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
    Unlisted,
    Unsafe,
)
from mailprefs.providers.calling import Answer, Line, base_of
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.steady import Steady
from mailprefs.words import Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

WORDS: Mapping[str, Kind | str] = {
    "email.sent": "Resend took the message over; the recipient's side has said nothing yet",
    "email.scheduled": "it is about a message that has not been sent",
    "email.received": "it is about mail that was received, not sent",
    "email.delivered": Kind.DELIVERED,
    "email.delivery_delayed": Kind.DEFERRED,
    "email.opened": "engagement is no consent",
    "email.clicked": "engagement is no consent",
    "email.complained": Kind.COMPLAINED,
    "email.failed": Kind.DROPPED,  # it never left, for a quota or a domain
    "email.suppressed": Kind.DROPPED,  # held back for what Resend knew before: an echo
    "suppression.added": Kind.DROPPED,  # what led to it is told as an event of its own; else it was put there by hand, or by us
    "suppression.removed": "taken off Resend's own list by hand, which is no wish of the recipient",
    "contact.created/unsubscribed": Kind.UNSUBSCRIBED,
    "contact.created/subscribed": "to be in a list is no consent",
    "contact.updated/unsubscribed": Kind.UNSUBSCRIBED,
    "contact.updated/subscribed": Kind.RESUBSCRIBED,
    "contact.topics.updated/opt_out": Kind.UNSUBSCRIBED,
    "contact.topics.updated/opt_in": Kind.RESUBSCRIBED,
    "contact.deleted": "to be in no list says nothing of what a person wants",
    "topic.created": "it is about a topic, and no recipient",
    "topic.updated": "it is about a topic, and no recipient",
    "topic.deleted": "it is about a topic, and no recipient",
    "domain.created": "it is about a domain, and no recipient",
    "domain.updated": "it is about a domain, and no recipient",
    "domain.deleted": "it is about a domain, and no recipient",
}
_TEMPORARY = {"Temporary": "Transient"}  # one page of Resend's says the one, another the other (2026-11-22)
_NAMED = re.compile(r"[^<>]*<([^<>]+)>\s*")
_ADVICE = "At Resend, Webhooks → your endpoint → Signing Secret shows it; it begins with whsec_. Set it unchanged."

OUT, IN = "opt_out", "opt_in"
Spelling = Callable[[Mapping[str, str]], object]
_SPELLINGS: tuple[Spelling, ...] = (lambda choice: {"topics": [choice]}, lambda choice: [choice])  # its OpenAPI document's, and its SDKs'
_MISSPELT = frozenset({400, 422})
PAGE = 100  # entries, the most it gives
_TOPIC = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_API_ADVICE = "At Resend, API Keys makes one (begins with re_); it needs full access."


@dataclass(frozen=True, slots=True)
class Resend(Attempted):
    """Resend both ways. Holds no state."""

    budget: timedelta = telling.BUDGET
    pause: timedelta = timedelta(seconds=0.4)  # between two requests: half of the five a second that a team may make, its mail included

    name: ClassVar[str] = "resend"
    advice: ClassVar[str] = _ADVICE
    prefix: ClassVar[str] = "svix"
    kinds: ClassVar[Mapping[str, Kind | str]] = {
        **WORDS,
        **{f"email.bounced/{subtype}": kind for subtype, kind in bounces.BOUNCES.items()},
    }
    secrets_out: ClassVar[tuple[str, ...]] = ("api_key",)
    hosts: ClassVar[tuple[str, ...]] = ("api.resend.com",)
    batch: ClassVar[int] = 10  # each is two or three requests: 32 with those for topic and spelling take 12.8 s, half of the budget
    pace: ClassVar[float] = 0.078  # so that one is over before the next begins

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        Attempted.check(self, credential)
        if credential.groups or "api_key" in credential.secrets:
            credential.needed("api_key", 16, _API_ADVICE)
        if strange := [group for group in credential.groups if not _TOPIC.fullmatch(group)]:
            raise Misconfigured(
                f"Account '{credential.account}': scopes maps to '{strange[0]}', but a Resend topic is known by its id, such as "
                "b6d24b8e-af0b-4c3c-be0c-359bbd97381e. Audience → Topics shows it."
            )
        base_of(credential, self.hosts)

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery, which tells one event. Never raises; a change of topics is an event for each of them."""
        attempt = attempts.of(delivery)
        return sort(reading.one_or_more(delivery.body).apart(_by_topic), lambda told: _read(told, delivery, attempt))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Resend would tell this."""
        if told.kind is Kind.UNSUBSCRIBED:
            word, data = "contact.updated", {"id": told.id, "email": told.address, "unsubscribed": True}
        else:
            word, data = "email.delivered", {"email_id": told.id, "to": [told.address], "subject": samples.SUBJECT}
        return samples.spelt({"type": word, "created_at": samples.iso(told.at), "data": data})

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling in its topic, never in the suppression list, which stops all mail, nor by ``unsubscribed``, which may."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            line = self._line(http, credential, self.pause)
            await _topic(line, group)
            await telling.each(addresses, settled, partial(_stopped if stop else _let_go, line, group, list(_SPELLINGS)))

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List everyone who opted out of the topic or of everything, without dates. It is a request for each contact that Resend has."""
        line = self._line(http, credential, self.pause * 2)  # half of what it lets us ask is left to the courier
        if await _topic(line, group) != IN:
            raise Unlisted(
                f"Resend's topic {group} is opted out of by default: nobody can tell who asked for that. Map to a topic that is opt-in by "
                "default, or do without this comparison: each stop is told again after 45 days instead."
            )
        async for contact in _pages(line, "/contacts"):
            address = facts.text(contact.get("email"))
            if address is None:
                raise Unclear("other_shape")
            if _left(contact) or await _choice(line, group, address) == OUT:
                yield Listed(address, group)

    def _line(self, http: ClientSession, credential: Credential, pause: timedelta) -> Line:
        headers = {"Authorization": f"Bearer {credential.lent('api_key', _API_ADVICE)}", "Accept": "application/json"}
        return Steady(http, base_of(credential, self.hosts), headers, pause)


# In


def _by_topic(told: Any) -> list[Any]:
    """Return an event as it came, but a change of several topics in an event for each."""
    topics = facts.within(told, "data", "topics")
    if facts.within(told, "type") != "contact.topics.updated" or not isinstance(topics, list):
        return [told]
    return [told | {"data": told["data"] | {"topics": topic}} for topic in topics] or [told]


def _read(told: Mapping[str, Any], delivery: Delivery, attempt: Attempt | None) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    word, part = facts.text(told.get("type")) or "", told.get("data")
    if word == "email.bounced":
        status, bounced = _status(part), _bounced(part)
        kind: Kind | Counted | str = place(Kind.DROPPED, bounced) if bounced else "unknown_kind"
    else:
        status, kind = "", place(_whole(word, part), WORDS.get(_whole(word, part)))
    if not isinstance(kind, Kind):
        return kind
    if kind is Kind.RESUBSCRIBED and attempt and not attempt.on_time(delivery.received_at):
        return "stale"
    address, token, lacking = _whose(word, part, kind)
    if not (address or token):
        return lacking
    group = _topic_of(word, part)
    named = attempt.id if attempt else [told.get("created_at"), facts.within(part, "email_id"), facts.within(part, "id")]
    one_of_several = [] if group is None else [group]
    happened_at = facts.instant(told.get("created_at"), delivery.received_at)
    return Event(kind, facts.name_of(None, kind, named, address or token, *one_of_several), happened_at, address, token, group, status)


def _topic_of(word: str, part: object) -> str | None:
    """Return the topic that an event is about, None for all of them, and "" for one that cannot be read."""
    return facts.text(facts.within(part, "topics", "id")) or "" if word == "contact.topics.updated" else None


def _whole(word: str, part: object) -> str:
    """Return what the event is called in ``kinds``: a contact's says its state now, not what changed."""
    if word == "contact.topics.updated":
        return f"{word}/{facts.text(facts.within(part, 'topics', 'subscription'))}"
    if word not in ("contact.created", "contact.updated"):
        return word
    unsubscribed = facts.within(part, "unsubscribed")
    return f"{word}/{'unsubscribed' if unsubscribed else 'subscribed'}" if isinstance(unsubscribed, bool) else word


def _bounced(part: object) -> Kind | None:
    """Return what kind of bounce it is. Of old ones, which have no type, hard only on evidence against the address."""
    type_, subtype = facts.text(facts.within(part, "bounce", "type")), facts.within(part, "bounce", "subType")
    if type_:
        return bounces.kind(_TEMPORARY.get(type_, type_), subtype, _status(part))
    said = (facts.text(facts.within(part, "bounce", "message")) or "").casefold()
    if "suppressed sending" in said:
        return Kind.DROPPED
    hard = "sent a hard bounce" in said or _status(part) in facts.NO_SUCH_MAILBOX
    return Kind.BOUNCED_HARD if hard else Kind.BOUNCED_SOFT


def _status(part: object) -> str:
    """Return the status code in what the receiving server answered."""
    answers = facts.within(part, "bounce", "diagnosticCode")
    found = map(facts.status, answers if isinstance(answers, list) else [answers])
    return next(filter(None, found), "") or facts.status(facts.within(part, "bounce", "message"))


def _whose(word: str, part: object, kind: Kind) -> tuple[str | None, str | None, str]:
    """Return address and token of the one person an event is about, and the reason why it is kept if there is neither.

    ``to`` has the impacted recipients, or, as it once did, all: of several nobody is stopped, but for a complaint that has our token.
    """
    if word.startswith("contact."):
        return _bare(facts.within(part, "email")), None, "no_recipient"
    listed = facts.within(part, "to")
    people = {each.casefold(): each for each in map(_bare, listed if isinstance(listed, list) else [listed]) if each}
    token = _token(part)
    if len(people) > 1:
        return None, token if kind is Kind.COMPLAINED else None, "several_recipients"
    return next(iter(people.values()), None), token, "no_recipient"


def _bare(value: object) -> str | None:
    """Return an address without the name that may stand beside it."""
    written = facts.text(value)
    named = _NAMED.fullmatch(written) if written else None
    return named[1] if named else written


def _token(part: object) -> str | None:
    """Return our own token: a tag, as an object holds it or as a list of objects does, or a header."""
    tags = facts.within(part, "tags")
    listed = [each for each in tags if facts.within(each, "name") == OURS] if isinstance(tags, list) else []
    tag = facts.within(tags, OURS) or (facts.within(listed[0], "value") if len(listed) == 1 else None)
    return facts.text(tag) or returned.token(facts.within(part, "headers"))


# Out


async def _topic(line: Line, topic: str) -> object:
    """Return what the topic counts for those who never chose. Raises Unsafe unless it exists."""
    if not _TOPIC.fullmatch(topic):
        raise Unsafe("The account maps a topic to what is no id of a Resend topic. Correct scopes in mailprefs.toml.")
    answer = await line.call("GET", f"/topics/{topic}")
    if answer.status == 404:
        raise Unsafe(f"Resend has no topic {topic} (any more). Map the topic to one that exists.")
    found = answer.json(200)
    if facts.within(found, "id") != topic:
        raise Unclear("other_topic")
    return facts.within(found, "default_subscription")


async def _stopped(line: Line, topic: str, spellings: list[Spelling], address: str) -> Settlement:
    """Opt a contact out of the topic, one that has to be made first if need be, and look whether it is so."""
    choice = {"id": topic, "subscription": OUT}
    answer = await _chosen(line, choice, spellings, address)
    if answer.status == 404:
        # Without "unsubscribed": false would take back what somebody chose who was made a contact meanwhile.
        answer = await line.call("POST", "/contacts", json={"email": address, "topics": [choice]})
    if answer.status in telling.REFUSED:
        return Settlement(Outcome.REFUSED, f"http_{answer.status}")
    answer.json(201 if answer.status == 201 else 200)  # its shape differs from page to page: what is there now is asked for
    return await _confirmed(line, topic, address, OUT)


async def _let_go(line: Line, topic: str, spellings: list[Spelling], address: str) -> Settlement:
    """Opt a contact in to the topic, and look whether it is so. Nobody is made a contact, or brought back to all the others."""
    contact = await line.call("GET", _path(address))
    if contact.status == 404:
        return telling.DONE
    if _left(contact.json(200)):
        return Settlement(Outcome.REFUSED, "left_there")  # an opt-in might undo that, and it is not only about this topic
    answer = await _chosen(line, {"id": topic, "subscription": IN}, spellings, address)
    if answer.status in telling.REFUSED:
        return Settlement(Outcome.REFUSED, f"http_{answer.status}")
    answer.json(200)
    return await _confirmed(line, topic, address, IN)


async def _chosen(line: Line, choice: Mapping[str, str], spellings: list[Spelling], address: str) -> Answer:
    """Return the answer to a contact's choice. What is refused is spelt the other way once; what is then taken goes first from there on."""
    path = f"{_path(address)}/topics"
    answer = await line.call("PATCH", path, json=spellings[0](choice))
    if answer.status not in _MISSPELT:
        return answer
    other = await line.call("PATCH", path, json=spellings[1](choice))
    if other.status in telling.REFUSED:
        return answer  # it was not the spelling
    spellings.reverse()
    return other


async def _confirmed(line: Line, topic: str, address: str, wanted: str) -> Settlement:
    found = await _choice(line, topic, address)
    return telling.DONE if found == wanted else Settlement(Outcome.UNKNOWN, "not_confirmed")


def _left(contact: object) -> bool:
    """True if a contact has opted out of everything that Resend sends for us."""
    everything = facts.within(contact, "unsubscribed")
    if not isinstance(everything, bool):
        raise Unclear("other_shape")
    return everything


async def _choice(line: Line, topic: str, address: str) -> object:
    """Return whether a contact is opted in to the topic or out of it; None if Resend shows neither, or no such contact."""
    async for each in _pages(line, f"{_path(address)}/topics", gone=True):
        if each.get("id") == topic:
            return each.get("subscription")
    return None


def _path(address: str) -> str:
    return f"/contacts/{quote(address, safe='')}"


async def _pages(line: Line, path: str, *, gone: bool = False) -> AsyncIterator[dict[str, Any]]:
    """Yield the entries of a listing over all its pages. Raises Unclear if one is missing or is none, but where it may be ``gone``."""
    after = ""
    while True:
        answer = await line.call("GET", f"{path}?limit={PAGE}{after}")
        if gone and answer.status == 404:
            return
        found = answer.json(200)
        entries = facts.within(found, "data")
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise Unclear("other_shape")
        for each in entries:
            yield each
        # One page documents "has_more", another leaves it out: then only a page that is not full is the last.
        more = found.get("has_more", len(entries) >= PAGE)
        if more is False:
            return
        last = facts.text(entries[-1].get("id")) if entries else None
        before, after = after, f"&after={quote(last or '', safe='')}"
        if more is not True or last is None or after == before:
            raise Unclear("other_page")
