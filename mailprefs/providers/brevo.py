"""Brevo: its transactional and marketing webhooks in, known by user and password. What is known of it: docs/providers/brevo.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from mailprefs.providers import facts, reading, samples, signing
from mailprefs.providers.base import OURS, Credential, Delivery, Heard, Sample
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.unsigned import Unsigned
from mailprefs.words import Event, Kind

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


@dataclass(frozen=True, slots=True)
class Brevo(Unsigned):
    """Brevo as it is heard. Holds no state."""

    name: ClassVar[str] = "brevo"
    advice: ClassVar[str] = _ADVICE
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS

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
