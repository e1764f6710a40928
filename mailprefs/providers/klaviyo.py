"""Klaviyo: its signed system webhooks in, the addresses behind its profiles, its suppressions out: docs/providers/klaviyo.md."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from mailprefs.errors import Forged, Misconfigured, Unavailable, Unreadable
from mailprefs.providers import facts, klaviyo_suppressions, reading, samples, signing, telling
from mailprefs.providers.base import (
    Answers,
    Barred,
    Credential,
    Delivery,
    Heard,
    Kept,
    Listed,
    Sample,
    Settlement,
    Slow,
    Telling,
    Unclear,
    Unsafe,
)
from mailprefs.providers.calling import Answer, Line, base_of
from mailprefs.providers.klaviyo_suppressions import JSON
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.steady import Steady
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

_ENGAGED = "engagement is no consent"
_TEXTS = "it is about a text or a push message, of which this account of e-mail says nothing"
WORDS: Mapping[str, Kind | str] = {
    "received_email": Kind.DELIVERED,
    "bounced_email": Kind.BOUNCED_SOFT,
    "bounced_email/hard": Kind.BOUNCED_HARD,  # by its property "Bounce Type"
    "dropped_email": Kind.DROPPED,
    "opened_email": _ENGAGED,
    "clicked_email": _ENGAGED,
    "marked_email_as_spam": Kind.COMPLAINED,
    "subscribed_to_email_marketing": Kind.RESUBSCRIBED,
    "unsubscribed_from_email_marketing": Kind.UNSUBSCRIBED,
    "manually_suppressed_from_email_marketing": Kind.UNSUBSCRIBED,  # for somebody who asked, as a rule; an echo where we tell
    "manually_unsuppressed_from_email_marketing": Kind.RESUBSCRIBED,
    "updated_email_preferences": "what was chosen is not in it; it is kept aside for a person to look at",
    "subscribed_to_sms_marketing": _TEXTS,
    "unsubscribed_from_sms_marketing": "it is a choice about texts, which this account of e-mail cannot place; it is kept aside",
    "sent_sms": _TEXTS,
    "received_sms": _TEXTS,
    "clicked_sms": _TEXTS,
    "failed_to_deliver_sms": _TEXTS,
    "received_automated_response_sms": _TEXTS,
    "failed_to_deliver_automated_response_sms": _TEXTS,
    "received_push": _TEXTS,
    "bounced_push": _TEXTS,
    "opened_push": _TEXTS,
    "ready_to_review": _ENGAGED,
    "submitted_rating": _ENGAGED,
    "submitted_review": _ENGAGED,
}
ASIDE: Mapping[str, str] = {"updated_email_preferences": "preferences", "unsubscribed_from_sms_marketing": "other_channel"}

SIGNATURE, TIMESTAMP = "Klaviyo-Signature", "Klaviyo-Timestamp"
# In Unix time, as an HTTP date or in ISO 8601: all three were seen. Each ends in a letter or digit, which no JSON object does.
_TIMESTAMP = re.compile(r"[0-9]{10}(?:[0-9]{3})?|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT|[0-9]{4}-[0-9T:.+-]{6,30}Z?")
_PROFILE = re.compile(r"[A-Za-z0-9]{1,64}")
_ADDRESSES = ("email_address", "email", "Email", "Recipient Email Address")  # properties in which the address of an event was seen
UNRESOLVED = "unresolved"
MANUALLY = "manually_suppressed_from_email_marketing"

SUPPRESSED = "suppressed"  # Klaviyo's one list of whom it sends no marketing, by the name that scopes gives it

REVISION = "2026-07-15"
ONLY_EMAIL = "fields%5Bprofile%5D=email"
SINGLY, TOGETHER = 10, 25  # profiles asked for one by one; profiles in one request, whose answer then fits the 64 KiB we read
_NONE = frozenset({400, 404, 410, 422})  # asking again would bring no other answer

_SIGNED_ADVICE = "It is the secret_key that the webhook was made with at Klaviyo, of 16 letters or more; set it unchanged."
_API_ADVICE = "At Klaviyo, Settings → API keys makes a private key (begins with pk_); it needs access to profiles and subscriptions."
_MAP_ADVICE = (
    'Map one scope, as a rule marketing, to Klaviyo\'s suppressed profiles: scopes = { marketing = "suppressed" }. '
    "A list is not told: who is not in it would be unsubscribed from everything, and no later choice could take that back."
)


@dataclass(frozen=True, slots=True)
class Unresolved(Kept):
    """An event whose person is known by Klaviyo's own id alone: kept aside as it came unless ``resolve`` finds the address."""

    event: Event
    profile: str


@dataclass(frozen=True, slots=True)
class Klaviyo:
    """Klaviyo both ways. Holds no state."""

    patience: timedelta = timedelta(seconds=3)  # for all look-ups of a delivery; it is said to want its answer within five
    budget: timedelta = telling.BUDGET

    name: ClassVar[str] = "klaviyo"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers()
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_in: ClassVar[tuple[str, ...]] = ("webhook_secret",)
    seals: ClassVar[tuple[str, ...]] = (SIGNATURE,)
    secrets_out: ClassVar[tuple[str, ...]] = ("api_key",)
    hosts: ClassVar[tuple[str, ...]] = ("a.klaviyo.com",)
    batch: ClassVar[int] = 50  # a job may have a hundred; who is in it is asked for in few questions
    pace: ClassVar[float] = 1.0  # a job and some looks at it, of 750 requests a minute

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        signing.check(credential, "webhook_secret", 16, _SIGNED_ADVICE)
        if credential.groups or "api_key" in credential.secrets:
            credential.needed("api_key", 16, _API_ADVICE)
        if strange := [group for group in credential.groups if group != SUPPRESSED]:
            raise Misconfigured(f"Account '{credential.account}': scopes maps to '{strange[0]}'. {_MAP_ADVICE}")
        base_of(credential, self.hosts)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the raw bytes were signed for this account, the timestamp behind them or not (docs/providers/klaviyo.md).

        Nothing stands between body and timestamp: neither can lend the other a letter, since the one ends in a brace.
        """
        body, timestamp = delivery.body, delivery.header(TIMESTAMP) or ""
        if body[-1:].isalnum():
            raise Forged
        readings = [[body], [body, timestamp.encode()]] if _TIMESTAMP.fullmatch(timestamp) else [[body]]
        signing.hmac_of_any(credential.valid("webhook_secret"), delivery.header(SIGNATURE), readings)

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery. Never raises; events, kept and counted together are as many as it told."""
        heard = sort(reading.under("data", delivery.body), lambda told: _read(told, delivery))
        return replace(heard, kept=tuple(_unresolved(kept, delivery) if kept.reason == UNRESOLVED else kept for kept in heard.kept))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Klaviyo would tell this. It brings the address, so that no profile is asked for."""
        topic = "unsubscribed_from_email_marketing" if told.kind is Kind.UNSUBSCRIBED else "received_email"
        attributes = {"timestamp": samples.unix(told.at), "event_properties": {"email_address": told.address}}
        event = {"type": "event", "id": told.id, "attributes": attributes}
        told_of = {"external_id": told.id, "topic": f"event:klaviyo.{topic}", "payload": {"data": event}}
        return samples.spelt({"data": [told_of], "meta": {"timestamp": samples.iso(told.at)}})

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a body, signed with the webhook's secret, the timestamp behind it."""
        timestamp = str(samples.unix(at))
        signature = signing.hmac_of(credential.secrets["webhook_secret"], body, timestamp.encode())
        return samples.posted(body, at, {TIMESTAMP: timestamp, SIGNATURE: signature})

    async def resolve(self, http: ClientSession, credential: Credential, heard: Heard) -> Heard:
        """Return what was heard with the addresses that Klaviyo has for its profiles; what has none there stays kept aside.

        So does everything while the account has no api_key, or one that Klaviyo refuses. Raises Unavailable if it does not answer.
        Where the account is told, a suppression by hand is an echo of ours, or is found when its list is compared.
        """
        heard = _without_echoes(heard) if credential.groups else heard
        waiting = [kept for kept in heard.kept if isinstance(kept, Unresolved)]
        key = credential.secrets.get("api_key")
        if not waiting or not key:
            return heard
        line = Line(http, base_of(credential, self.hosts), _headers(key))
        try:
            async with asyncio.timeout(self.patience.total_seconds()):
                addresses = await _addresses(line, sorted({each.profile for each in waiting}))
        except Barred:
            return replace(heard, kept=tuple(_refused(kept) for kept in heard.kept))
        except (Slow, Unclear, TimeoutError):
            raise Unavailable from None
        found = [replace(each.event, address=addresses[each.profile]) for each in waiting if each.profile in addresses]
        left = [kept for kept in heard.kept if not isinstance(kept, Unresolved) or kept.profile not in addresses]
        return replace(heard, events=(*heard.events, *found), kept=tuple(left))

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling as a suppression of ours, which stops marketing and no transactional mail, and only ours is taken back."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            line = self._line(http, credential, group)
            await (klaviyo_suppressions.stopped if stop else klaviyo_suppressions.let_go)(line, addresses, settled)

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List everyone who is suppressed by a choice, ours or the recipient's, with its time."""
        async for listed in klaviyo_suppressions.listed(self._line(http, credential, group), group):
            yield listed

    def _line(self, http: ClientSession, credential: Credential, group: str) -> Line:
        if group != SUPPRESSED:
            raise Unsafe(f"The account maps a topic to what is not Klaviyo's list of suppressed profiles. {_MAP_ADVICE}")
        return Steady(http, base_of(credential, self.hosts), _headers(credential.lent("api_key", _API_ADVICE)))


def _headers(key: str) -> dict[str, str]:
    types = {"Accept": "application/vnd.api+json", "Content-Type": "application/vnd.api+json"}
    return {"Authorization": f"Klaviyo-API-Key {key}", "revision": REVISION, **types}


# What it says


def _read(told: Mapping[str, Any], delivery: Delivery) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    event = _event(told, delivery)
    if not isinstance(event, Event) or event.address:
        return event
    return UNRESOLVED if _profile(told) else "no_recipient"


def _event(told: Mapping[str, Any], delivery: Delivery) -> Event | Counted | str:
    topic, about = told.get("topic"), facts.within(told, "payload", "data", "attributes")
    word = topic.removeprefix("event:klaviyo.") if isinstance(topic, str) else ""
    if word == "bounced_email" and str(facts.within(about, "event_properties", "Bounce Type")).lower() == "hard":
        word = "bounced_email/hard"
    if word in ASIDE:
        return ASIDE[word]
    kind = place(word, WORDS.get(word)) if topic == f"event:klaviyo.{word.partition('/')[0]}" else "unknown_kind"
    if not isinstance(kind, Kind):
        return kind
    seconds, address = facts.within(about, "timestamp"), _address(told)
    id_ = facts.name_of(told.get("external_id") or facts.within(told, "payload", "data", "id"), word, address, _profile(told), seconds)
    return Event(kind, id_, facts.moment(seconds, delivery.received_at), address, detail=word if word == MANUALLY else "")


def _unresolved(kept: Kept, delivery: Delivery) -> Kept:
    told = reading.value(kept.raw)
    event, profile = _event(told, delivery), _profile(told)
    return Unresolved(kept.reason, kept.raw, event, profile) if isinstance(event, Event) and profile else kept


def _profile(told: Mapping[str, Any]) -> str | None:
    """Return Klaviyo's id of whom an event is about."""
    found = facts.within(told, "payload", "data", "relationships", "profile", "data", "id")
    return found if isinstance(found, str) and _PROFILE.fullmatch(found) else None


def _address(told: Mapping[str, Any]) -> str | None:
    """Return the address that an event brings: in its properties, else in the profile that comes with it."""
    properties = facts.within(told, "payload", "data", "attributes", "event_properties")
    found = [facts.text(facts.within(properties, name)) for name in _ADDRESSES]
    included = facts.within(told, "payload", "included")
    profiles = [each for each in included if facts.within(each, "type") == "profile"] if isinstance(included, list) else []
    if len(profiles) == 1 and facts.within(profiles[0], "id") in (None, _profile(told)):
        found.append(facts.text(facts.within(profiles[0], "attributes", "email")))
    return next((address for address in found if address and "@" in address), None)


def _without_echoes(heard: Heard) -> Heard:
    """Return what was heard, without those suppressed by hand: they are counted."""
    events = tuple(event for event in heard.events if event.detail != MANUALLY)
    kept = tuple(each for each in heard.kept if not (isinstance(each, Unresolved) and each.event.detail == MANUALLY))
    echoes = len(heard.events) - len(events) + len(heard.kept) - len(kept)
    return Heard(events, kept, Counter(heard.counted) + Counter({MANUALLY: echoes}), heard.once)


def _refused(kept: Kept) -> Kept:
    return Kept("key_refused", kept.raw) if isinstance(kept, Unresolved) else kept


# Whom it means


async def _addresses(line: Line, profiles: Sequence[str]) -> dict[str, str]:
    """Return the address of each profile that has one. Raises Slow, Barred, Unclear."""
    if len(profiles) <= SINGLY:
        paths = [f"/api/profiles/{profile}?{ONLY_EMAIL}" for profile in profiles]
    else:
        some = [profiles[n : n + TOGETHER] for n in range(0, len(profiles), TOGETHER)]
        paths = [f"/api/profiles?filter={_any_of(each)}&page%5Bsize%5D={TOGETHER}&{ONLY_EMAIL}" for each in some]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_ask(line, path)) for path in paths]
    addresses: dict[str, str] = {}
    for answer in (task.result() for task in asked):
        if isinstance(answer, Exception):
            raise answer
        addresses |= _found(answer)
    return addresses


def _any_of(profiles: Iterable[str]) -> str:
    ids = ",".join(f'"{profile}"' for profile in profiles)
    return quote(f"any(id,[{ids}])", safe="")


async def _ask(line: Line, path: str) -> Answer | Slow | Barred | Unclear:
    try:
        return await line.call("GET", path)
    except (Slow, Barred, Unclear) as trouble:
        return trouble


def _found(answer: Answer) -> dict[str, str]:
    """Return profile → address of an answer of one profile or several."""
    if answer.status in _NONE:
        return {}
    if answer.status != 200 or answer.type not in JSON:
        raise answer.unclear
    try:
        told = facts.within(reading.value(answer.body), "data")
    except Unreadable:
        raise Unclear("broken_json") from None
    each = told if isinstance(told, list) else [told]
    pairs = [(facts.within(one, "id"), facts.text(facts.within(one, "attributes", "email"))) for one in each]
    return {profile: address for profile, address in pairs if isinstance(profile, str) and address}
