"""Mandrill, which is Mailchimp Transactional: its signed webhooks in, a subaccount's denylist out: docs/providers/mandrill.md."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers import facts, posted, reading, samples, signing, telling
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
    Unsafe,
)
from mailprefs.providers.calling import base_of
from mailprefs.providers.mandrill_denylist import Denylist
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.steady import Steady
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

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

_SUBACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,255}")
_API_ADVICE = "At Mandrill, Settings → SMTP & API Info → New API Key makes one."
_MAP_ADVICE = (
    "Mandrill's denylist stops receipts too, but for the one of a subaccount. At Mandrill, Subaccounts → New Subaccount makes one; "
    "send marketing through it and nothing else, set subaccount to its id, and map one scope, as a rule marketing, to the same id."
)


@dataclass(frozen=True, slots=True)
class Mandrill:
    """Mandrill both ways. Holds no state."""

    budget: timedelta = telling.BUDGET
    pause: timedelta = timedelta(seconds=0.1)  # between two requests; Mandrill names no limit

    name: ClassVar[str] = "mandrill"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers(greets=frozenset({"HEAD"}))  # unsigned, and only after a 200 does it show the key
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_in: ClassVar[tuple[str, ...]] = ("webhook_key",)
    secrets_out: ClassVar[tuple[str, ...]] = ("api_key",)
    hosts: ClassVar[tuple[str, ...]] = ("mandrillapp.com",)
    batch: ClassVar[int] = 15  # each is three requests, which fit the budget at that distance
    pace: ClassVar[float] = 0.2
    covers: ClassVar[tuple[str, ...]] = ("public_url",)
    seals: ClassVar[tuple[str, ...]] = (SIGNATURE,)

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        signing.check(credential, "webhook_key", 16, _KEY_ADVICE)
        posted.check_public_url(credential, _URL_ADVICE)
        if credential.groups or "api_key" in credential.secrets:
            credential.needed("api_key", 16, _API_ADVICE)
        if strange := [group for group in credential.groups if not _is_own(credential, group)]:
            raise Misconfigured(
                f"Account '{credential.account}': scopes maps to '{strange[0]}', which is not its subaccount. {_MAP_ADVICE}"
            )
        base_of(credential, self.hosts)

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

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling in the denylist of the subaccount, never in the account's own, which would stop transactional mail."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            denylist = self._denylist(http, credential, group)
            await denylist.must_exist()
            await telling.each(addresses, settled, denylist.add if stop else denylist.let_go)

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List the subaccount's denylist, with when and why. Mandrill shows a thousand entries at most: from there on it is Unlisted."""
        denylist = self._denylist(http, credential, group)
        await denylist.must_exist()
        for listed in await denylist.everyone():
            yield listed

    def _denylist(self, http: ClientSession, credential: Credential, group: str) -> Denylist:
        if not _is_own(credential, group):
            raise Unsafe(f"The account maps a topic to what is not its subaccount. {_MAP_ADVICE}")
        line = Steady(http, base_of(credential, self.hosts), {"Accept": "application/json"}, self.pause)
        return Denylist(line, credential.lent("api_key", _API_ADVICE), group)


def _is_own(credential: Credential, group: str) -> bool:
    """True for the subaccount that the account names as the one of its marketing."""
    return group == credential.options.get("subaccount") and _SUBACCOUNT.fullmatch(group) is not None


# In


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
