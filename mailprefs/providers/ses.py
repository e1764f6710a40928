"""Amazon SES, heard through Amazon SNS; the topics of its contact list out. What is known of it: docs/providers/ses.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from mailprefs.errors import Misconfigured, Unreadable
from mailprefs.providers import bounces, facts, reading, returned, samples, ses_contacts, signing, sigv4, sns, telling
from mailprefs.providers.base import (
    OURS,
    Answers,
    Credential,
    Delivery,
    Heard,
    Kept,
    Listed,
    Sample,
    Settlement,
    Telling,
    Unsignable,
)
from mailprefs.providers.calling import base_of
from mailprefs.providers.ses_contacts import ADVICE, NAME, Contacts, Locks
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

COUNTED: Mapping[str, Kind | str] = {
    "Delivery": Kind.DELIVERED,
    "DeliveryDelay": Kind.DEFERRED,
    "Reject": Kind.DROPPED,  # SES took it for malware
    "Rendering Failure": Kind.DROPPED,  # the template could not be filled: nothing was sent
    "Send": "SES took the message over; the recipient's side has said nothing yet",
    "Open": "engagement is no consent, and does not say whose it is",
    "Click": "engagement is no consent, and does not say whose it is",
    "Received": "it is about mail that was received, not sent",
    "AmazonSnsSubscriptionSucceeded": "SES says that it will tell this topic, and nothing else",
}
ASIDE: Mapping[str, str] = {sns.SUBSCRIPTION: "subscription_confirmation", sns.UNSUBSCRIPTION: "unsubscribe_confirmation"}
GREETING = "Successfully validated SNS topic for Amazon SES event publishing."  # no JSON, and the last word on it
ON_LIST = "OnAccountSuppressionList"

_ADVICE = (
    "In mailprefs.toml, topic_arns lists every SNS topic that may tell this account, such as "
    '["arn:aws:sns:us-east-1:123456789012:ses-events"]; anyone at Amazon can sign a message, and only these are yours.'
)
_BASIC_ADVICE = "It is what stands before the @ in the endpoint of the SNS subscription. Set both it and the other, or neither."


@dataclass(frozen=True, slots=True)
class SES:
    """Amazon SES both ways. Holds the certificates that SNS signs with, and which contacts are being written."""

    budget: timedelta = telling.BUDGET
    pause: timedelta = timedelta(seconds=1)  # AWS takes one request a second and account of all but sends (docs/providers/ses.md)
    clock: Callable[[], datetime] = sigv4.now
    certificates: sns.Certificates = field(default_factory=sns.Certificates, repr=False, compare=False)
    locks: Locks = field(default_factory=WeakValueDictionary, repr=False, compare=False)

    name: ClassVar[str] = "ses"
    channel: ClassVar[Channel] = Channel.EMAIL
    # SNS takes any 4xx as delivered (docs/providers/ses.md), and sends credentials only to one who has asked for them.
    answers: ClassVar[Answers] = Answers(challenge=signing.CHALLENGE)
    kinds: ClassVar[Mapping[str, Kind | str]] = {
        **COUNTED,
        **{f"Bounce/{subtype}": kind for subtype, kind in bounces.BOUNCES.items()},
        "Complaint": Kind.COMPLAINED,
        "Complaint/not-spam": Kind.COMPLAINT_RETRACTED,
        f"Complaint/{ON_LIST}": Kind.DROPPED,
        "Subscription/OptOut": Kind.UNSUBSCRIBED,
        "Subscription/OptIn": Kind.RESUBSCRIBED,
        "Subscription/unsubscribeAll": Kind.UNSUBSCRIBED,
        "Subscription/unchanged": "the preferences after it are those before it",
    }
    secrets_in: ClassVar[tuple[str, ...]] = ()
    secrets_out: ClassVar[tuple[str, ...]] = ses_contacts.SECRETS
    hosts: ClassVar[tuple[str, ...]] = ses_contacts.HOSTS
    batch: ClassVar[int] = 6  # each is read, written and read again: 19 requests with that for the list
    pace: ClassVar[float] = 1 / 19  # tellings a second
    covers: ClassVar[tuple[str, ...]] = ("topic_arns",)

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        topics = credential.options.get("topic_arns")
        if not isinstance(topics, list | tuple) or not topics:
            raise Misconfigured(f"Account '{credential.account}': topic_arns is missing. {_ADVICE}")
        if strange := [topic for topic in topics if not isinstance(topic, str) or not sns.TOPIC.fullmatch(topic)]:
            raise Misconfigured(f"Account '{credential.account}': topic_arns holds {strange[0]!r}, which is none. {_ADVICE}")
        if any(name.startswith(known) for name in credential.secrets for known in signing.BASIC):
            signing.check_basic(credential, _BASIC_ADVICE)
        if strange := [group for group in credential.groups if not NAME.fullmatch(group)]:
            raise Misconfigured(f"Account '{credential.account}': scopes maps to '{strange[0]}', which is no name of a topic. {ADVICE}")
        if credential.groups or any(name in credential.secrets for name in self.secrets_out):
            ses_contacts.check(credential)
        base_of(credential, self.hosts)

    async def fetch(self, http: ClientSession, credential: Credential, delivery: Delivery) -> None:
        """Bring the certificate that the delivery names, if it is where SNS keeps them. Else Forged, and nothing was asked for."""
        envelope = _opened(credential, delivery)
        await self.certificates.bring(http, credential.account, envelope.certificate_url, delivery.received_at)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless SNS signed the message for one of the account's topics, with the certificate that ``fetch`` brought."""
        envelope = _opened(credential, delivery)
        sns.verify(envelope, self.certificates.held(envelope.certificate_url, delivery.received_at))

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery. Never raises; one message of SES may tell of several people, each on its own."""
        try:
            envelope = reading.value(delivery.body)
        except Unreadable:
            return _kept("unreadable", delivery.body)
        type_, message = facts.text(facts.within(envelope, "Type")) or "", facts.within(envelope, "Message")
        if type_ in ASIDE:
            return _kept(ASIDE[type_], delivery.body)  # its address is never asked for: the operator confirms with a command
        if not isinstance(message, str):
            return _kept("no_message", delivery.body)
        if message.strip() == GREETING:
            return Heard(counted={"greeting": 1})
        raw = message.encode()
        try:
            return _told(reading.value(raw), raw, facts.within(envelope, "MessageId"), delivery.received_at)
        except Unreadable:
            return _kept("unreadable", raw)

    def sample(self, told: Sample) -> bytes:
        """Return the notification in which SNS would tell this, as far as it is not signed."""
        mail = {"messageId": told.id, "timestamp": samples.iso(told.at), "destination": [told.address]}
        if told.kind is Kind.UNSUBSCRIBED:
            about = {"newTopicPreferences": {"unsubscribeAll": True}, "oldTopicPreferences": {"unsubscribeAll": False}}
            message = {"eventType": "Subscription", "mail": mail, "subscription": about | {"timestamp": samples.iso(told.at)}}
        else:
            message = {"eventType": "Delivery", "mail": mail, "delivery": {"recipients": [told.address]}}
        envelope = {"Type": sns.NOTIFICATION, "MessageId": told.id, "Message": samples.spelt(message).decode()}
        return samples.spelt(envelope | {"Timestamp": samples.iso(told.at), "SignatureVersion": "2"})

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Raise Unsignable: Amazon alone has the keys, and each certificate comes from its own host."""
        raise Unsignable(
            "Amazon alone has the keys that SNS signs with. To try the whole way, publish to the topic: what "
            "aws sns publish --topic-arn ARN --message '{}' sends is kept aside as unknown_kind."
        )

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling as a choice of the contact for that topic, never in the account's suppression list, which stops all mail."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            contacts = self._contacts(http, credential, self.pause)
            await contacts.must_have(group)
            await telling.each(addresses, settled, partial(contacts.stop if stop else contacts.go, group))

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List everyone who opted out of the topic or of everything, without dates."""
        contacts = self._contacts(http, credential, self.pause * 2)  # half of what AWS lets us ask is left to the courier
        async for listed in contacts.listed(group):
            yield listed

    def _contacts(self, http: ClientSession, credential: Credential, pause: timedelta) -> Contacts:
        return Contacts(ses_contacts.line(http, credential, pause, self.clock), str(credential.options.get("contact_list")), self.locks)


def _opened(credential: Credential, delivery: Delivery) -> sns.Envelope:
    if any(name in credential.secrets for name in signing.BASIC):
        signing.basic(credential, delivery.header("Authorization"))
    return sns.opened(credential, delivery.body)


def _kept(reason: str, raw: bytes) -> Heard:
    return Heard(kept=(Kept(reason, raw),))


def _told(told: Any, raw: bytes, message_id: object, received_at: datetime) -> Heard:
    """Return what one message of SES says."""
    word = facts.text(facts.within(told, "eventType")) or facts.text(facts.within(told, "notificationType")) or ""
    if word in COUNTED:
        meant = COUNTED[word]
        return Heard(counted={meant if isinstance(meant, Kind) else word: 1})
    part = _PARTS.get(word)
    if part is None:
        return _kept("unknown_kind" if isinstance(told, dict) else "no_object", raw)
    return part(_Told(told, raw, message_id, received_at))


@dataclass(frozen=True, slots=True)
class _Told:
    """One message of SES, and to whom the mail went that it is about."""

    told: Mapping[str, Any]
    raw: bytes
    message_id: object
    received_at: datetime

    @property
    def destinations(self) -> Mapping[str, str]:
        """Whom the mail went to, each once."""
        return {_folded(each): each for each in _addresses(facts.within(self.told, "mail", "destination"))}

    @property
    def sole(self) -> str | None:
        """The one address that the mail went to, if it went to one."""
        went_to = list(self.destinations.values())
        return went_to[0] if len(went_to) == 1 else None

    @property
    def token(self) -> str | None:
        """Our own token in the mail that it is about, as a tag or in a header."""
        tag = facts.within(self.told, "mail", "tags", OURS)
        found = facts.text(tag[0]) if isinstance(tag, list) and len(tag) == 1 else None
        return found or returned.token(facts.within(self.told, "mail", "headers"))

    @property
    def own(self) -> str | None:
        """The token, if it can only be that of the one whom the mail went to: a mail to several has the token of one of them at most."""
        return self.token if len(self.destinations) < 2 else None

    def event(self, kind: Kind, part: object, address: str | None, token: str | None, group: str | None = None, detail: str = "") -> Event:
        """Return an event of one person, known by the feedback's id and by whom and what it is about: both stay in a repetition."""
        feedback = facts.text(facts.within(part, "feedbackId")) or self.message_id
        at = facts.instant(facts.within(part, "timestamp"), self.received_at)
        return Event(kind, facts.name_of(None, kind, feedback, address or token, group), at, address, token, group, detail)

    def heard(self, events: Sequence[Event], reason: str = "") -> Heard:
        """Return the events; where something of the message could not be read, it is kept aside as well, for that reason."""
        return Heard(tuple(events), (Kept(reason, self.raw),) if reason else ())


def _bounce(told: _Told) -> Heard:
    bounce = facts.within(told.told, "bounce")
    type_, subtype = facts.within(bounce, "bounceType"), facts.within(bounce, "bounceSubType")
    if bounces.BOUNCES.get(f"{type_}/{subtype}") is Kind.DROPPED:
        return Heard(counted={Kind.DROPPED: 1})
    listed = facts.within(bounce, "bouncedRecipients")
    recipients = listed if isinstance(listed, list) else []
    token, sole = (told.own, told.sole) if len(recipients) == 1 else (None, None)
    events, reason = [], "" if recipients else "no_recipient"
    for recipient in recipients:
        status = facts.status(facts.within(recipient, "status")) or facts.status(facts.within(recipient, "diagnosticCode"))
        kind = bounces.kind(type_, subtype, status)
        address = _address(facts.within(recipient, "emailAddress")) or sole
        if kind and (address or token):
            events.append(told.event(kind, bounce, address, token, detail=status))
        else:
            reason = "no_recipient" if kind else "unknown_kind"
    return told.heard(events, reason)


def _complaint(told: _Told) -> Heard:
    complaint = facts.within(told.told, "complaint")
    if facts.within(complaint, "complaintSubType") == ON_LIST:
        return Heard(counted={Kind.DROPPED: 1})
    kind = Kind.COMPLAINT_RETRACTED if facts.within(complaint, "complaintFeedbackType") == "not-spam" else Kind.COMPLAINED
    people = {_folded(each): each for each in _addresses(facts.within(complaint, "complainedRecipients"), "emailAddress")}
    address, token, reason = next(iter(people.values()), told.sole), told.own, "no_recipient"
    if len(people) > 1:
        # Who it was is redacted, and these are all whom the mail went to at that mailbox provider: only our token tells whose it is.
        address, token, reason = None, told.token, "several_recipients"
    if not (address or token):
        return told.heard([], reason)
    return told.heard([told.event(kind, complaint, address, token)])


def _subscription(told: _Told) -> Heard:
    subscription = facts.within(told.told, "subscription")
    new, old = facts.within(subscription, "newTopicPreferences"), facts.within(subscription, "oldTopicPreferences")
    if not (told.sole or told.own):
        return told.heard([], "no_recipient")
    changes = list(_changes(new, old))
    events = [told.event(kind, subscription, told.sole, told.own, group) for kind, group in changes if kind]
    if not changes and isinstance(new, dict):
        return Heard(counted={"Subscription/unchanged": 1})
    return told.heard(events, "" if all(kind for kind, _ in changes) and events else "unknown_preference")


def _changes(new: object, old: object) -> Iterator[tuple[Kind | None, str | None]]:
    """Yield what became of all marketing (None) and of each topic: left, joined, or (None) something that we cannot read."""
    everything, everything_before = facts.within(new, "unsubscribeAll"), facts.within(old, "unsubscribeAll")
    if everything is True and everything_before is not True:
        yield Kind.UNSUBSCRIBED, None
    elif everything is False and everything_before is True:
        yield Kind.RESUBSCRIBED, None
    elif everything is not None and not isinstance(everything, bool):
        yield None, None
    before = dict(_statuses(old))
    for topic, status in _statuses(new):
        if status == "optout" != before.get(topic):
            yield Kind.UNSUBSCRIBED, topic
        elif status == "optin" and before.get(topic) == "optout":
            yield Kind.RESUBSCRIBED, topic
        elif status not in ("optin", "optout"):
            yield None, topic


_PARTS = {"Bounce": _bounce, "Complaint": _complaint, "Subscription": _subscription}


def _statuses(preferences: object) -> Iterator[tuple[str, str]]:
    """Yield each topic with what was chosen, "" for a topic that cannot be read; SES writes OptOut here and OPT_OUT in its API."""
    topics = facts.within(preferences, "topicSubscriptionStatus")
    for each in topics if isinstance(topics, list) else []:
        status = facts.text(facts.within(each, "subscriptionStatus")) or ""
        yield facts.text(facts.within(each, "topicName")) or "", status.replace("_", "").lower()


def _addresses(listed: object, name: str | None = None) -> Iterator[str]:
    """Yield what could be an address in a list, of texts or of objects that hold it under a name."""
    for each in listed if isinstance(listed, list) else []:
        if found := _address(facts.within(each, name) if name else each):
            yield found


def _address(value: object) -> str | None:
    """Return what could be an address; what a mailbox provider redacted is none."""
    found = facts.text(value)
    return found if found and "@" in found else None


def _folded(text: str) -> str:
    return text.strip().casefold()
