"""Mailchimp Marketing: the webhooks of an audience in. What is known of it: docs/providers/mailchimp.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar

from mailprefs.errors import Forged
from mailprefs.providers import facts, posted, samples, signing
from mailprefs.providers.base import Answers, Credential, Delivery, Heard, Sample
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.words import Channel, Event, Kind

WORDS: Mapping[str, Kind | str] = {
    "subscribe": Kind.RESUBSCRIBED,
    "unsubscribe": Kind.UNSUBSCRIBED,
    "unsubscribe/delete": "the sender's own people archived or removed it, which nobody asked for",
    "unsubscribe/abuse": Kind.COMPLAINED,
    "cleaned/hard": Kind.BOUNCED_HARD,
    "cleaned/abuse": Kind.COMPLAINED,
    "upemail": "which of the two addresses had opted out only the audience knows; it is kept aside for that",
    "profile": "a changed field of a profile is no opt-out; one that shows interest groups is kept aside",
    "campaign": "it is about a campaign that was sent and about no recipient",
}
SIGNATURE, SECRET = "X-Mailchimp-Signature", "secret"
_SIGNED = re.compile(r"t=([0-9]{1,18}),v1=([0-9a-f]{64})")
_URL_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_FIRED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_LAST_ZONE = timezone(timedelta(hours=-12))  # in which a time of the day comes last on earth
_OURS = "data[merges][MAILPREFS]"  # a merge field of the audience, whose tag has at most ten letters
_INTERESTS = ("data[merges][INTERESTS]", "data[merges][GROUPINGS]")

_URL_ADVICE = (
    "Make one up of 24 or more letters, digits, - and _, and end the webhook's address at Mailchimp in ?secret= and the same: "
    "Audience → Settings → Webhooks."
)
_KEY_ADVICE = "Mailchimp gives the signing secret once, when a webhook is made by its API; leave it out for a webhook without one."


@dataclass(frozen=True, slots=True)
class Mailchimp:
    """Mailchimp Marketing as it is heard. Holds no state."""

    name: ClassVar[str] = "mailchimp"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers(greets=frozenset({"GET", "HEAD"}))  # by which it tries an address that is being entered
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_in: ClassVar[tuple[str, ...]] = ("url_secret",)

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard."""
        signing.check(credential, "url_secret", 24, _URL_ADVICE)
        for name in ("url_secret", "url_secret_next"):
            if not _URL_SAFE.fullmatch(credential.secrets.get(name) or credential.secrets["url_secret"]):
                raise credential.wrong(name, "holds a letter that an address spells in more than one way", _URL_ADVICE)
        if any(name in credential.secrets for name in ("webhook_key", "webhook_key_next")):
            signing.check(credential, "webhook_key", 16, _KEY_ADVICE)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the address held the account's secret and, where a webhook_key is set, the raw bytes were signed with it.

        Whether its retries are signed anew is not known: no window (docs/providers/mailchimp.md "How it is verified").
        """
        signing.word(credential.valid("url_secret"), _secret(delivery.url))
        if keys := credential.valid("webhook_key"):
            found = _SIGNED.fullmatch(delivery.header(SIGNATURE) or "")
            if not found:
                raise Forged
            signing.hmac(keys, found[2], found[1].encode(), b".", delivery.body)

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery, which tells one event. Never raises."""
        return sort(posted.event(delivery), lambda told: _read(told, delivery))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Mailchimp would tell this. It tells of no delivery, but of a campaign that was sent."""
        if told.kind is Kind.UNSUBSCRIBED:
            about = {"type": "unsubscribe", "data[action]": "unsub", "data[reason]": "manual", "data[email]": told.address}
        else:
            about = {"type": "campaign", "data[status]": "sent", "data[subject]": samples.SUBJECT}
        fired_at = told.at.strftime("%Y-%m-%d %H:%M:%S")
        return samples.form(about | {"fired_at": fired_at, "data[id]": told.id, "data[list_id]": told.group})

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a body at the address with the account's secret, signed where it has a key."""
        timestamp, key = str(samples.unix(at)), credential.secrets.get("webhook_key")
        signature = {SIGNATURE: f"t={timestamp},v1={signing.hmac_of(key, timestamp.encode(), b'.', body)}"} if key else {}
        return samples.posted(body, at, signature, kind=samples.FORM, query=f"?{SECRET}={credential.secrets['url_secret']}")


def _secret(url: str) -> str | None:
    """Return the secret of an address that holds exactly one, as it is spelt there."""
    found = [text for name, _, text in (each.partition("=") for each in url.partition("?")[2].split("&")) if name == SECRET]
    return found[0] if len(found) == 1 else None


def _read(told: Mapping[str, str], delivery: Delivery) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    word = _word(told)
    if word == "upemail":
        return _moved(told, delivery)
    if word == "profile" and any(name.startswith(_INTERESTS) for name in told):
        return "preferences"
    kind = place(word, WORDS.get(word))
    if not isinstance(kind, Kind):
        return kind
    return _event(kind, word, told.get("data[email]"), told, delivery)


def _word(told: Mapping[str, str]) -> str:
    """Return the key of an event's kind. What left without a reason that we know has left."""
    type_, reason, action = told.get("type", ""), told.get("data[reason]"), told.get("data[action]")
    if type_ == "unsubscribe" and reason == "abuse":
        return "unsubscribe/abuse"
    if type_ == "unsubscribe" and action == "delete":
        return "unsubscribe/delete"
    return f"cleaned/{reason}" if type_ == "cleaned" else type_ if "/" not in type_ else ""


def _moved(told: Mapping[str, str], delivery: Delivery) -> Event | str:
    """Return the opt-out of an address that took another's place, where it is told; else the two are kept for a person to look at."""
    if told.get("data[status]") != "unsubscribed":
        return "upemail"
    return _event(Kind.UNSUBSCRIBED, "upemail", told.get("data[new_email]"), told, delivery)


def _event(kind: Kind, word: str, address: str | None, told: Mapping[str, str], delivery: Delivery) -> Event | str:
    address, token = facts.text(address), facts.text(told.get(_OURS))
    if not address and not token:
        return "no_recipient"
    group = told.get("data[list_id]", "") if kind in (Kind.UNSUBSCRIBED, Kind.RESUBSCRIBED) else None
    id_ = facts.name_of(None, word, told.get("data[list_id]"), address, token, told.get("fired_at"))
    return Event(kind, id_, _latest(told.get("fired_at", ""), delivery.received_at), address, token, group)


def _latest(fired_at: str, received_at: datetime) -> datetime:
    """Return the latest moment that a time without a zone may mean: a later stop stops more. Never after its receipt."""
    try:
        moment = datetime.fromisoformat(fired_at).replace(tzinfo=_LAST_ZONE) if _FIRED.fullmatch(fired_at) else received_at
    except ValueError:
        return received_at
    return min(moment, received_at).astimezone(UTC) if moment >= facts.EARLIEST else received_at
