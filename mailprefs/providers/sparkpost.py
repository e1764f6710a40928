"""SparkPost: its event webhooks in, known by user and password. What is known of it: docs/providers/sparkpost.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from mailprefs.providers import facts, reading, samples
from mailprefs.providers.base import OURS, Delivery, Heard, Sample
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.unsigned import Unsigned
from mailprefs.words import Event, Kind

_ENGAGED = "engagement is no consent"
_A_REPLY = "somebody's machine answered, which says nothing of whether mail is wanted"
_RECEIVED = "it is about mail that SparkPost received"
_A_JOB = "it is about a job of the sender's, and no recipient"
CLASSES: Mapping[str, Kind | str] = {  # by the ``bounce_class``: SparkPost's page of bounce classification codes
    "1": Kind.BOUNCED_SOFT,  # undetermined
    "10": Kind.BOUNCED_HARD,  # invalid recipient
    "20": Kind.BOUNCED_SOFT,
    "21": Kind.BOUNCED_SOFT,  # DNS
    "22": Kind.BOUNCED_SOFT,  # mailbox full
    "23": Kind.BOUNCED_SOFT,  # too large
    "24": Kind.BOUNCED_SOFT,  # timeout
    "25": Kind.DROPPED,  # SparkPost's own policy: the address stands on a suppression list
    "26": Kind.DROPPED,  # the same, by Smart Send
    "30": Kind.BOUNCED_HARD,  # no such recipient
    "40": Kind.BOUNCED_SOFT,  # unspecified
    "50": Kind.BLOCKED,  # mail
    "51": Kind.BLOCKED,  # a source of spam
    "52": Kind.BLOCKED,  # spam
    "53": Kind.BLOCKED,  # attachment
    "54": Kind.BLOCKED,  # relaying
    "60": _A_REPLY,
    "70": Kind.BOUNCED_SOFT,  # transient
    "80": Kind.RESUBSCRIBED,
    "90": Kind.UNSUBSCRIBED,
    "100": _A_REPLY,
}
WORDS: Mapping[str, Kind | str] = {
    "injection": "SparkPost took the message over; the recipient's side has said nothing yet",
    "delivery": Kind.DELIVERED,
    "delay": Kind.DEFERRED,
    "policy_rejection": Kind.DROPPED,
    "generation_rejection": Kind.DROPPED,
    "generation_failure": Kind.DROPPED,
    "spam_complaint": Kind.COMPLAINED,
    "list_unsubscribe": Kind.UNSUBSCRIBED,
    "link_unsubscribe": Kind.UNSUBSCRIBED,
    "open": _ENGAGED,
    "initial_open": _ENGAGED,
    "click": _ENGAGED,
    "amp_open": _ENGAGED,
    "amp_initial_open": _ENGAGED,
    "amp_click": _ENGAGED,
    "relay_injection": _RECEIVED,
    "relay_rejection": _RECEIVED,
    "relay_delivery": _RECEIVED,
    "relay_tempfail": _RECEIVED,
    "relay_permfail": _RECEIVED,
    "ab_test_completed": _A_JOB,
    "ab_test_cancelled": _A_JOB,
    "success": _A_JOB,
    "error": _A_JOB,
    "sms_status": "it is about a text message, and this account carries mail",
}

_ADVICE = "Make up both, and set them at SparkPost: Configuration → Webhooks → your webhook → Authentication → Basic Auth."


@dataclass(frozen=True, slots=True)
class SparkPost(Unsigned):
    """SparkPost as it is heard. Holds no state."""

    name: ClassVar[str] = "sparkpost"
    advice: ClassVar[str] = _ADVICE
    kinds: ClassVar[Mapping[str, Kind | str]] = {
        **WORDS,
        **{f"{word}/{code}": kind for word in ("bounce", "out_of_band") for code, kind in CLASSES.items()},
    }

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery. Never raises; events, kept and counted together are as many as it told."""
        return sort(reading.batch(delivery.body), lambda told: _read(told.get("msys"), delivery.received_at))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which SparkPost would tell this."""
        left = told.kind is Kind.UNSUBSCRIBED
        hull, word = ("unsubscribe_event", "list_unsubscribe") if left else ("message_event", "delivery")
        named = {"event_id": told.id, "rcpt_to": told.address, "timestamp": str(samples.unix(told.at)), "subject": samples.SUBJECT}
        list_ = {"list_id": told.group} if left and told.group else {}
        return samples.spelt([{"msys": {hull: {"type": word, **named, **list_}}}])


def _read(hull: object, received_at: datetime) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside. It stands under its class, alone."""
    if hull == {}:
        return Counted("ping")  # so SparkPost tries an address, when a webhook is made
    [told] = hull.values() if isinstance(hull, dict) and len(hull) == 1 else [None]
    if not isinstance(told, dict):
        return "unknown_kind"
    word, kind = _kind(told)
    if not isinstance(kind, Kind):
        return kind
    address = facts.text(told.get("raw_rcpt_to")) or facts.text(told.get("rcpt_to"))
    token = facts.text(facts.within(told.get("rcpt_meta"), OURS))
    if not address and not token:
        return "no_recipient"
    group = _list(told) if kind in (Kind.UNSUBSCRIBED, Kind.RESUBSCRIBED) else None
    return Event(kind, _id(told, word), _moment(told, received_at), address, token, group, _status(told))


def _kind(told: Mapping[str, Any]) -> tuple[str, Kind | Counted | str]:
    """Return what the event is called, and what it comes to. A bounce of a class that is not known is hard only on evidence."""
    word, code = told.get("type"), told.get("bounce_class")
    if not isinstance(word, str):
        return "", "unknown_kind"
    if word not in ("bounce", "out_of_band"):
        return word, place(word, WORDS.get(word))
    written = str(code) if type(code) is int else code
    if isinstance(written, str) and written in CLASSES:
        return word, place(word, CLASSES[written])
    return word, Kind.BOUNCED_HARD if _status(told) in facts.NO_SUCH_MAILBOX else Kind.BOUNCED_SOFT


def _list(told: Mapping[str, Any]) -> str | None:
    """Return the list that was left, None without one: then it is all that is not transactional."""
    return (facts.text(told["list_id"]) or "") if told.get("list_id") is not None else None


def _status(told: Mapping[str, Any]) -> str:
    return facts.status(told.get("raw_reason")) or facts.status(told.get("reason"))


def _id(told: Mapping[str, Any], word: str) -> str:
    """Return the event's own name, which is a number or a UUID, as text."""
    given = told.get("event_id")
    names = ("raw_rcpt_to", "rcpt_to", "timestamp", "message_id", "transmission_id", "bounce_class")
    return facts.name_of(str(given) if type(given) is int and given < 10**40 else given, word, *(told.get(name) for name in names))


def _moment(told: Mapping[str, Any], received_at: datetime) -> datetime:
    """Return when it happened: Unix seconds, as text or number; ISO 8601 was seen as well."""
    written = told.get("timestamp")
    return facts.instant(written, facts.moment(written, received_at))
