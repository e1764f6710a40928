"""Mailjet: its Event API in, known by user and password. What is known of it: docs/providers/mailjet.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mailprefs.providers import facts, reading, samples
from mailprefs.providers.base import OURS, Delivery, Heard, Sample
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.unsigned import Unsigned
from mailprefs.words import Event, Kind

WORDS: Mapping[str, Kind | str] = {
    "sent": Kind.DELIVERED,  # the receiving side took it
    "open": "engagement is no consent",
    "click": "engagement is no consent",
    "bounce/hard": Kind.BOUNCED_HARD,
    "bounce/soft": Kind.BOUNCED_SOFT,
    "bounce/spam": Kind.BLOCKED,
    "bounce/greylisted": Kind.DEFERRED,  # Mailjet tries again
    "bounce/mailjet": Kind.DROPPED,
    "blocked": Kind.DROPPED,  # held back for what Mailjet knew before: an echo, whatever its error says
    "spam": Kind.COMPLAINED,
    "unsub": Kind.UNSUBSCRIBED,
}
_ADDRESS = ("recipient", "domain", "", None)  # what an error may be related to if the address is to blame, or nothing is said
_PASSING = ("quota exceeded", "greylisted")  # errors that are not permanent, by the table, whatever the flag says

_ADVICE = (
    "Make up both, and write them into the address at Mailjet, Account settings → Event notifications (webhooks): "
    "https://USER:PASSWORD@YOUR-HOST/hooks/…"
)


@dataclass(frozen=True, slots=True)
class Mailjet(Unsigned):
    """Mailjet as it is heard. Exactly 200 is kept to it: any other code is sent again (docs/providers/mailjet.md)."""

    name: ClassVar[str] = "mailjet"
    advice: ClassVar[str] = _ADVICE
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery: one event, or the array of a second. Never raises; events, kept and counted are as many as it told."""
        return sort(reading.one_or_more(delivery.body), lambda told: _read(told, delivery))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Mailjet would tell this: as an array, as grouped events come."""
        word = "unsub" if told.kind is Kind.UNSUBSCRIBED else "sent"
        left = {"mj_list_id": int(told.group)} if told.group.isdecimal() else {}
        return samples.spelt([{"event": word, "time": samples.unix(told.at), "Message_GUID": told.id, "email": told.address, **left}])


def _read(told: Mapping[str, Any], delivery: Delivery) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    event = told.get("event")
    word = f"bounce/{_fault(told)}" if event == "bounce" else event if isinstance(event, str) else ""
    kind = place(word, WORDS.get(word))
    if not isinstance(kind, Kind):
        return kind
    address, token = facts.text(told.get("email")), facts.text(reading.member(told.get("Payload"), OURS))
    if not address and not token:
        return "no_recipient"
    group = _list(told.get("mj_list_id")) if kind is Kind.UNSUBSCRIBED else None
    named = facts.name_of(None, word, *(told.get(name) for name in ("email", "MessageID", "Message_GUID", "time", "mj_list_id")))
    happened_at = facts.moment(told.get("time"), delivery.received_at)
    return Event(kind, named, happened_at, address, token, group, facts.status(told.get("comment")))


def _fault(told: Mapping[str, Any]) -> str:
    """Return what kind of bounce it is. Permanent alone is not hard: the address must be to blame, by Mailjet's table of errors."""
    hard, related, error = told.get("hard_bounce") is True, told.get("error_related_to"), told.get("error")
    if related in ("spam", "mailjet"):
        return str(related)
    if error == "greylisted" and not hard:
        return "greylisted"
    return "hard" if hard and related in _ADDRESS and error not in _PASSING else "soft"


def _list(number: object) -> str | None:
    """Return the list that was left, None for no list at all. "" for one that cannot be read: it stops all marketing."""
    if number is None or (type(number) is int and number == 0):
        return None  # the message was sent to no list: what was left is all marketing
    written = str(number) if type(number) is int else number
    return written if isinstance(written, str) and written.isascii() and written.isdigit() and len(written) <= 18 else ""
