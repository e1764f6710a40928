"""Mandrill, which is Mailchimp Transactional: its signed webhooks in. What is known of it: docs/providers/mandrill.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from mailprefs.errors import Forged
from mailprefs.providers import facts, posted, reading, samples, signing
from mailprefs.providers.base import OURS, Answers, Credential, Delivery, Heard, Kept, Sample
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.words import Channel, Event, Kind

WORDS: Mapping[str, Kind | str] = {
    "send": "Mandrill sent the message; the recipient's side has said nothing yet",
    "delivered": Kind.DELIVERED,
    "deferral": Kind.DEFERRED,
    "hard_bounce": Kind.BOUNCED_HARD,
    "soft_bounce": Kind.BOUNCED_SOFT,
    "reject": Kind.DROPPED,  # held back for what stands on its denylist: an echo, whatever its reason
    "spam": Kind.COMPLAINED,
    "unsub": Kind.UNSUBSCRIBED,
    "open": "engagement is no consent",
    "click": "engagement is no consent",
    "inbound": "it is mail that Mandrill received, and tells nothing of mail that was sent",
    "blacklist": Kind.DROPPED,  # its denylist changed: an echo of our own telling, or of an event that came by itself
    "whitelist": "its allowlist changed, which lifts nothing here",
}
SIGNATURE, EVENTS = "X-Mandrill-Signature", b"mandrill_events"
FIRST_KEY = "test-webhook"  # signs the empty trial post of a webhook that is being made, before it has its own key

_KEY_ADVICE = "At Mandrill, Settings → Webhooks shows the key of each webhook; set it unchanged, as text."
_URL_ADVICE = "Set it to the Post To URL at Mandrill, Settings → Webhooks, letter for letter: Mandrill signs it with every post."


@dataclass(frozen=True, slots=True)
class Mandrill:
    """Mandrill as it is heard. Holds no state."""

    name: ClassVar[str] = "mandrill"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers(greets=frozenset({"HEAD"}))  # unsigned, and only after a 200 does it show the key
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_in: ClassVar[tuple[str, ...]] = ("webhook_key",)
    covers: ClassVar[tuple[str, ...]] = ("public_url",)
    seals: ClassVar[tuple[str, ...]] = (SIGNATURE,)

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard."""
        signing.check(credential, "webhook_key", 16, _KEY_ADVICE)
        posted.check_public_url(credential, _URL_ADVICE)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the form was signed for this account. Nothing in it is dated: no window (docs/providers/mandrill.md)."""
        fields = posted.octets(delivery)
        if EVENTS not in dict(fields):
            raise Forged  # else the signature would cover the address alone
        keys = credential.valid("webhook_key")
        if fields == [(EVENTS, b"[]")]:
            keys = (*keys, FIRST_KEY)
        signed = posted.signed(posted.public_url(credential), fields)
        signing.hmac(keys, delivery.header(SIGNATURE), signed, digest="sha1", spelling="base64")

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery. Never raises; events, kept and counted together are as many as it told."""
        try:
            told = list({text for name, text in posted.octets(delivery) if name == EVENTS})
        except Forged:
            told = []
        if len(told) != 1:
            return Heard(kept=(Kept("no_events", delivery.body),))
        return sort(reading.batch(told[0]), lambda each: _read(each, delivery))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Mandrill would tell this."""
        word = "unsub" if told.kind is Kind.UNSUBSCRIBED else "delivered"
        message = {"_id": told.id, "email": told.address, "subject": samples.SUBJECT}
        event = {"event": word, "ts": samples.unix(told.at), "_id": told.id, "msg": message}
        return samples.form({EVENTS.decode(): samples.spelt([event]).decode()})

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a form, signed with the webhook's key together with the account's public_url."""
        unsigned = samples.posted(body, at, {}, kind=samples.FORM)
        signed = posted.signed(posted.public_url(credential), posted.octets(unsigned))
        signature = signing.hmac_of(credential.secrets["webhook_key"], signed, digest="sha1", spelling="base64")
        return samples.posted(body, at, {SIGNATURE: signature}, kind=samples.FORM)


def _read(told: Mapping[str, Any], delivery: Delivery) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    word = told.get("event", told.get("type"))  # what it says of its own lists has a type in place of an event
    kind = place(word, WORDS.get(word)) if isinstance(word, str) else "unknown_kind"
    if not isinstance(kind, Kind):
        return kind
    message = told.get("msg")
    address, token = facts.text(facts.within(message, "email")), facts.text(facts.within(message, "metadata", OURS))
    if not address and not token:
        return "no_recipient"
    id_ = facts.name_of(None, word, told.get("_id"), told.get("ts"), address, token)
    moment = facts.moment(told.get("ts"), delivery.received_at)
    return Event(kind, id_, moment, address, token, detail=facts.status(facts.within(message, "diag")))
