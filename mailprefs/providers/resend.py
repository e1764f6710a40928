"""Resend, heard through its webhooks, which Svix sends. What is known of it: docs/providers/resend.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mailprefs.providers import attempts, bounces, facts, reading, returned, samples
from mailprefs.providers.attempts import Attempt, Attempted
from mailprefs.providers.base import OURS, Delivery, Heard, Sample
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.words import Event, Kind

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
    "contact.deleted": "to be in no list says nothing of what a person wants",
    "domain.created": "it is about a domain, and no recipient",
    "domain.updated": "it is about a domain, and no recipient",
    "domain.deleted": "it is about a domain, and no recipient",
}
_TEMPORARY = {"Temporary": "Transient"}  # one page of Resend's says the one, another the other (2026-11-22)
_NAMED = re.compile(r"[^<>]*<([^<>]+)>\s*")
_ADVICE = "At Resend, Webhooks → your endpoint → Signing Secret shows it; it begins with whsec_. Set it unchanged."


@dataclass(frozen=True, slots=True)
class Resend(Attempted):
    """Resend as it is heard. Holds no state."""

    name: ClassVar[str] = "resend"
    advice: ClassVar[str] = _ADVICE
    prefix: ClassVar[str] = "svix"
    kinds: ClassVar[Mapping[str, Kind | str]] = {
        **WORDS,
        **{f"email.bounced/{subtype}": kind for subtype, kind in bounces.BOUNCES.items()},
    }

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery, which tells one event. Never raises."""
        attempt = attempts.of(delivery)
        return sort(reading.one_or_more(delivery.body), lambda told: _read(told, delivery, attempt))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Resend would tell this."""
        if told.kind is Kind.UNSUBSCRIBED:
            word, data = "contact.updated", {"id": told.id, "email": told.address, "unsubscribed": True}
        else:
            word, data = "email.delivered", {"email_id": told.id, "to": [told.address], "subject": samples.SUBJECT}
        return samples.spelt({"type": word, "created_at": samples.iso(told.at), "data": data})


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
    named = attempt.id if attempt else [told.get("created_at"), facts.within(part, "email_id"), facts.within(part, "id")]
    happened_at = facts.instant(told.get("created_at"), delivery.received_at)
    return Event(kind, facts.name_of(None, kind, named, address or token), happened_at, address, token, None, status)


def _whole(word: str, part: object) -> str:
    """Return what the event is called in ``kinds``: a contact's says its state now, not what changed."""
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
