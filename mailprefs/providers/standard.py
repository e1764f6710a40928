"""Anyone who keeps to Standard Webhooks and says it in our own words: docs/providers/standard.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from mailprefs.providers import attempts, facts, reading, samples
from mailprefs.providers.attempts import Attempt, Attempted
from mailprefs.providers.base import Delivery, Heard, Sample
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.words import Event, Kind

_ADVICE = "It is shared with whoever sends: whsec_ and base64 of 24 to 64 random bytes."
_LIFTING = (Kind.RESUBSCRIBED, Kind.COMPLAINT_RETRACTED)


@dataclass(frozen=True, slots=True)
class Standard(Attempted):
    """A sender of any kind as it is heard. Holds no state."""

    name: ClassVar[str] = "standard"
    advice: ClassVar[str] = _ADVICE
    prefix: ClassVar[str] = "webhook"
    kinds: ClassVar[Mapping[str, Kind | str]] = {kind.value: kind for kind in Kind}

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery, which tells one event or an array of them. Never raises."""
        attempt = attempts.of(delivery)
        return sort(reading.one_or_more(delivery.body), lambda told: _read(told, delivery, attempt))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which such a sender would tell this."""
        data = {"id": told.id, "address": told.address} | ({"group": told.group} if told.group else {})
        return samples.spelt({"type": told.kind, "timestamp": samples.iso(told.at), "data": data})


def _read(told: Mapping[str, Any], delivery: Delivery, attempt: Attempt | None) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    word = facts.text(told.get("type")) or ""
    kind = place(word, Standard.kinds.get(word))
    if not isinstance(kind, Kind):
        return kind
    if kind in _LIFTING and attempt and not attempt.on_time(delivery.received_at):
        return "stale"
    address, token = facts.text(facts.within(told, "data", "address")), facts.text(facts.within(told, "data", "token"))
    if not (address or token):
        return "no_recipient"
    # An id may be the message's, and several events have it: with its kind, person and group it is the event's own.
    named = facts.text(facts.within(told, "data", "id")) or [attempt.id if attempt else None, told.get("timestamp")]
    group, status = _group(told, kind), facts.status(facts.within(told, "data", "status"))
    id_ = facts.name_of(None, kind, named, address or token, group)
    return Event(kind, id_, _moment(told.get("timestamp"), delivery.received_at), address, token, group, status)


def _group(told: Mapping[str, Any], kind: Kind) -> str | None:
    """Return what was left or joined: None for all marketing, "" for what cannot be read, which maps to nothing."""
    group = facts.within(told, "data", "group")
    if group is None or kind not in (Kind.UNSUBSCRIBED, Kind.RESUBSCRIBED):
        return None
    return facts.text(group) or ""


def _moment(written: object, received_at: datetime) -> datetime:
    """Return when it happened: ISO 8601 with its zone, or Unix seconds. One that is neither is the time of receipt."""
    found = facts.instant(written, received_at)
    return found if found != received_at else facts.moment(written, received_at)
