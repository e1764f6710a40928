"""MailerSend: its webhooks in, in both versions; the unsubscribes of a domain for marketing out: docs/providers/mailersend.md."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from mailprefs.errors import Forged, Misconfigured, Unreadable
from mailprefs.providers import facts, reading, samples, signing, telling
from mailprefs.providers.base import Answers, Credential, Delivery, Heard, Listed, Sample, Settlement, Telling, Unsafe
from mailprefs.providers.calling import base_of
from mailprefs.providers.mailersend_unsubscribes import Searches, Unsubscribes
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.steady import Steady
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

SIGNATURE = "Signature"
PING = "webhook.test"  # sent while a webhook is made or changed, which is not saved unless the answer is 2xx
PING_KEY = "test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G"  # published at developers.mailersend.com/api/v1/webhooks: it proves nothing
LONGEST_PING = 4_096  # bytes; anyone can sign one
_ENGAGED = "engagement is no consent"
_ACCOUNT = "it is about the account, and no recipient of what was sent"
WORDS: Mapping[str, Kind | str] = {
    "activity.sent": "MailerSend sent the message; the recipient's side has said nothing yet",
    "activity.delivered": Kind.DELIVERED,
    "activity.deferred": Kind.DEFERRED,
    "activity.soft_bounced": Kind.BOUNCED_SOFT,
    "activity.hard_bounced": Kind.BOUNCED_HARD,
    "activity.spam_complaint": Kind.COMPLAINED,
    "activity.unsubscribed": Kind.UNSUBSCRIBED,
    "activity.suppressed": Kind.DROPPED,  # held back for what MailerSend knew before: an echo
    "activity.opened": _ENGAGED,
    "activity.opened_unique": _ENGAGED,
    "activity.clicked": _ENGAGED,
    "activity.clicked_unique": _ENGAGED,
    "activity.survey_opened": _ENGAGED,
    "activity.survey_submitted": _ENGAGED,
    "recipient.on_hold_added": Kind.DROPPED,  # for some days, of its own accord
    "recipient.on_hold_removed": Kind.RESUBSCRIBED,
    "sender_identity.verified": _ACCOUNT,
    "maintenance.start": _ACCOUNT,
    "maintenance.end": _ACCOUNT,
    "inbound_forward.failed": _ACCOUNT,
    "inbound_message.rejected": _ACCOUNT,
    "email_single.verified": _ACCOUNT,
    "email_list.verified": _ACCOUNT,
    "bulk_email.completed": _ACCOUNT,
}
_PLACES = (("email", "recipient", "email"), ("recipient", "email"), ("recipient",), ("email",))  # version 1, a guess, 2 twice
_REPLY = re.compile(r"[245][0-9]{2}")
_SHORTEST = 16
_ADVICE = "At MailerSend, Domains → Manage → Webhooks → your webhook → Signing secret shows it; it is not the API token."
_DOMAIN = re.compile(r"[A-Za-z0-9]{1,64}")
_API_ADVICE = "At MailerSend, Integrations → API tokens makes one, which may read domains and change suppressions."
_MAP_ADVICE = (
    "MailerSend's lists stop receipts too: all that a domain sends. Send marketing from a domain of its own, such as news.example.com, "
    "set domain_id to its id (Domains → Manage shows it), and map one scope, as a rule marketing, to the same id."
)


@dataclass(frozen=True, slots=True)
class MailerSend:
    """MailerSend both ways. Holds no state but how far a long list was searched."""

    budget: timedelta = telling.BUDGET
    pause: timedelta = timedelta(seconds=1)  # between two requests: sixty a minute are what it lets an account make
    searches: Searches = field(default_factory=dict, repr=False, compare=False)

    name: ClassVar[str] = "mailersend"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers()  # of 4xx it repeats 429 alone
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_in: ClassVar[tuple[str, ...]] = ("webhook_secret",)
    secrets_out: ClassVar[tuple[str, ...]] = ("api_token",)
    hosts: ClassVar[tuple[str, ...]] = ("api.mailersend.com",)
    batch: ClassVar[int] = 20  # how many it takes in one request is not documented
    pace: ClassVar[float] = 0.2
    seals: ClassVar[tuple[str, ...]] = (SIGNATURE,)

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard, by MailerSend alone, and told."""
        signing.check(credential, "webhook_secret", _SHORTEST, _ADVICE)
        for name in ("webhook_secret", "webhook_secret_next"):
            if credential.secrets.get(name) == PING_KEY:
                raise credential.wrong(name, "is the one of MailerSend's pings, which everyone knows", _ADVICE)
        if credential.groups or "api_token" in credential.secrets:
            credential.needed("api_token", 16, _API_ADVICE)
        if strange := [group for group in credential.groups if not _is_own(credential, group)]:
            raise Misconfigured(f"Account '{credential.account}': scopes maps to '{strange[0]}', which is not its domain_id. {_MAP_ADVICE}")
        base_of(credential, self.hosts)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the raw bytes were signed for this account, or are a ping, which does nothing."""
        proof = delivery.header(SIGNATURE)
        try:
            signing.hmac(credential.valid("webhook_secret"), proof, delivery.body)
        except Forged:
            if not _is_ping(delivery.body):
                raise
            signing.hmac((PING_KEY,), proof, delivery.body)

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery, which tells one event. Never raises. A ping says nothing at all, not even that MailerSend spoke."""
        if _is_ping(delivery.body):
            return Heard()
        return sort(reading.one_or_more(delivery.body), lambda told: _read(told, delivery))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which MailerSend would tell this, in version 2."""
        data = {"id": told.id, "type": told.kind, "subject": samples.SUBJECT, "recipient": told.address}
        return samples.spelt({"type": f"activity.{told.kind}", "created_at": samples.iso(told.at), "data": data})

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a body, signed with the webhook's secret."""
        return samples.posted(body, at, {SIGNATURE: signing.hmac_of(credential.secrets["webhook_secret"], body)})

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling in the unsubscribes of the domain for marketing, and in no other list."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            unsubscribes = self._unsubscribes(http, credential, group, self.pause)
            await unsubscribes.must_exist()
            await (unsubscribes.add if stop else unsubscribes.let_go)(addresses, settled)

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List the unsubscribes of the domain as MailerSend holds them."""
        unsubscribes = self._unsubscribes(http, credential, group, self.pause * 2)  # half of what it lets us ask is left to the courier
        await unsubscribes.must_exist()
        async for listed in unsubscribes.everyone():
            yield listed

    def _unsubscribes(self, http: ClientSession, credential: Credential, group: str, pause: timedelta) -> Unsubscribes:
        if not _is_own(credential, group):
            raise Unsafe(f"The account maps a topic to what is not its domain_id. {_MAP_ADVICE}")
        headers = {"Authorization": f"Bearer {credential.lent('api_token', _API_ADVICE)}", "Accept": "application/json"}
        return Unsubscribes(Steady(http, base_of(credential, self.hosts), headers, pause), group, self.searches)


def _is_own(credential: Credential, group: str) -> bool:
    """True for the domain that the account names as the one of its marketing."""
    return group == credential.options.get("domain_id") and _DOMAIN.fullmatch(group) is not None


# In


def _is_ping(body: bytes) -> bool:
    if len(body) > LONGEST_PING:
        return False
    try:
        return facts.within(reading.value(body), "type") == PING
    except Unreadable:
        return False


def _read(told: Mapping[str, Any], delivery: Delivery) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    word, part = facts.text(told.get("type")) or "", told.get("data")
    kind = place(word, WORDS.get(word))
    if not isinstance(kind, Kind):
        return kind
    address = next((found for path in _PLACES if (found := facts.text(facts.within(part, *path)))), None)
    if not address:
        return "no_recipient"
    created_at = facts.text(facts.within(part, "created_at")) or told.get("created_at")
    number, message = facts.text(facts.within(part, "id")), facts.within(part, "message_id") or facts.within(part, "email", "message", "id")
    id_ = facts.name_of(f"{word}-{number}" if number else None, word, message, address, created_at)
    # What was left is all that the domain sends: MailerSend has no groups.
    return Event(kind, id_, facts.instant(created_at, delivery.received_at), address, None, None, _status(part))


def _status(part: object) -> str:
    """Return the code in why it bounced: the enhanced one, or else the reply's three digits."""
    reasons = [facts.within(part, *path) for path in (("meta", "bounce_reason"), ("morph", "reason"), ("morph", "readable_reason"))]
    found = next(filter(None, map(facts.status, reasons)), "")
    code = facts.within(part, "meta", "bounce_code")
    return found or (code if isinstance(code, str) and _REPLY.fullmatch(code) else "")
