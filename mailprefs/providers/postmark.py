"""Postmark: its webhooks in, known by user and password. What is known of it: docs/providers/postmark.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mailprefs.providers import facts, reading, samples
from mailprefs.providers.base import OURS, Delivery, Heard, Sample
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.unsigned import Unsigned
from mailprefs.words import Event, Kind

_OUR_FAULT = "the message was wrong, which tells nothing of its recipient"
_A_REPLY = "somebody's machine answered, which says nothing of whether mail is wanted"
BOUNCES: Mapping[str, Kind | str] = {  # by the ``Type`` of a Bounce
    "HardBounce": Kind.BOUNCED_HARD,
    "BadEmailAddress": Kind.BOUNCED_HARD,
    "SoftBounce": Kind.BOUNCED_SOFT,
    "Transient": Kind.BOUNCED_SOFT,
    "DnsError": Kind.BOUNCED_SOFT,
    "Blocked": Kind.BLOCKED,
    "DMARCPolicy": Kind.BLOCKED,
    "SpamNotification": Kind.BLOCKED,  # the receiving side took it for spam; no recipient complained
    "SpamComplaint": Kind.COMPLAINED,
    "Unsubscribe": Kind.UNSUBSCRIBED,  # a reply that asks to be removed
    "Subscribe": Kind.RESUBSCRIBED,
    "ManuallyDeactivated": Kind.DROPPED,
    "Unconfirmed": Kind.DROPPED,
    "AutoResponder": _A_REPLY,
    "ChallengeVerification": _A_REPLY,
    "AddressChange": "a new address was named, and the old one may still be read",
    "OpenRelayTest": "a machine was testing Postmark",
    "VirusNotification": _OUR_FAULT,
    "TemplateRenderingFailed": _OUR_FAULT,
    "SMTPApiError": _OUR_FAULT,
    "InboundError": "it is about mail that Postmark received",
    "Unknown": "Postmark itself could not tell what came back: no evidence against the address",
}
CHANGES: Mapping[str, Kind] = {  # by what a SubscriptionChange says: why the stream was closed and, of a person's choice, by whom
    "HardBounce": Kind.BOUNCED_HARD,
    "SpamComplaint": Kind.COMPLAINED,
    "ManualSuppression/Recipient": Kind.UNSUBSCRIBED,
    "ManualSuppression/Customer": Kind.DROPPED,  # through the API or by the sender's own people: our telling comes back
    "ManualSuppression/Admin": Kind.DROPPED,
    "reactivated": Kind.RESUBSCRIBED,
}
OTHERS: Mapping[str, Kind | str] = {
    "SpamComplaint": Kind.COMPLAINED,
    "Delivery": Kind.DELIVERED,
    "Open": "engagement is no consent",
    "Click": "engagement is no consent",
}

_ADVICE = "Make up both, and set them at Postmark: Servers → your server → the message stream → Webhooks → Basic auth credentials."


@dataclass(frozen=True, slots=True)
class Postmark(Unsigned):
    """Postmark as it is heard. It is answered 401, never 403, which would end all retries (providers.md §0.2)."""

    name: ClassVar[str] = "postmark"
    advice: ClassVar[str] = _ADVICE
    kinds: ClassVar[Mapping[str, Kind | str]] = {
        **OTHERS,
        **{f"Bounce/{type_}": kind for type_, kind in BOUNCES.items()},
        **{f"SubscriptionChange/{change}": kind for change, kind in CHANGES.items()},
    }

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery, which tells one event. Never raises."""
        return sort(reading.one_or_more(delivery.body), lambda told: _read(told, delivery))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Postmark would tell this."""
        at, of = samples.iso(told.at), {"MessageID": told.id, "Recipient": told.address, "MessageStream": told.group or "broadcast"}
        if told.kind is Kind.UNSUBSCRIBED:
            closed = {"SuppressSending": True, "SuppressionReason": "ManualSuppression", "Origin": "Recipient"}
            return samples.spelt({"RecordType": "SubscriptionChange", **of, **closed, "ChangedAt": at})
        return samples.spelt({"RecordType": "Delivery", **of, "DeliveredAt": at, "Tag": samples.SUBJECT})


def _read(told: Mapping[str, Any], delivery: Delivery) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    word = _word(told)
    kind = place(word, Postmark.kinds.get(word))
    if not isinstance(kind, Kind):
        return kind
    address = facts.text(told.get("Email")) or facts.text(told.get("Recipient"))
    token = facts.text(facts.within(told.get("Metadata"), OURS))
    if not address and not token:
        return "no_recipient"
    group = (facts.text(told.get("MessageStream")) or "") if kind in (Kind.UNSUBSCRIBED, Kind.RESUBSCRIBED) else None
    happened_at = facts.instant(told.get("BouncedAt", told.get("ChangedAt")), delivery.received_at)
    return Event(kind, _id(told, kind), happened_at, address, token, group, facts.status(told.get("Details")))


def _word(told: Mapping[str, Any]) -> str:
    """Return what the event is called in ``kinds``, or something that is not in it."""
    record, type_ = told.get("RecordType"), told.get("Type")
    if record == "Bounce" and isinstance(type_, str):
        return f"Bounce/{type_}"
    if record == "SubscriptionChange":
        return f"SubscriptionChange/{_change(told)}"
    return record if isinstance(record, str) else ""


def _change(told: Mapping[str, Any]) -> str:
    """Return what changed. A person's choice is an echo only if Postmark says that it was not the recipient's own."""
    closed, reason, origin = told.get("SuppressSending"), told.get("SuppressionReason"), told.get("Origin")
    if closed is False:
        return "reactivated"
    if closed is not True or not isinstance(reason, str):
        return ""
    if reason != "ManualSuppression":
        return reason
    return f"{reason}/{origin}" if origin in ("Customer", "Admin") else f"{reason}/Recipient"


def _id(told: Mapping[str, Any], kind: Kind) -> str:
    """Return the event's own name. A hard bounce or a complaint is one fact, though it is told as such and as a change of the stream."""
    message, address = told.get("MessageID"), told.get("Email", told.get("Recipient"))
    if kind in (Kind.BOUNCED_HARD, Kind.COMPLAINED) and facts.text(message):
        return facts.name_of(None, str(kind), message, address)
    number = told.get("ID")
    own = f"{told.get('RecordType')}-{number}" if type(number) is int and 0 < number < 10**18 else None
    when = [told.get(name) for name in ("BouncedAt", "ChangedAt", "SuppressSending", "SuppressionReason", "MessageStream")]
    return facts.name_of(own, str(kind), message, address, *when)
