"""Mailgun: its signed webhooks in, as JSON and as the forms of before 2018; its list of unsubscribes out: docs/providers/mailgun.md."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from mailprefs.errors import Forged, Misconfigured, Unreadable
from mailprefs.providers import facts, mailgun_tags, reading, samples, signing, telling
from mailprefs.providers.base import OURS, Answers, Credential, Delivery, Heard, Listed, Once, Sample, Settlement, Telling
from mailprefs.providers.calling import Line, base_of
from mailprefs.providers.mailgun_tags import Unsubscribes
from mailprefs.providers.reading import Batch
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

_A_LIST = "it is about the upload of a mailing list, and no wish of a recipient's"
WORDS: Mapping[str, Kind | str] = {
    "accepted": "Mailgun took the message over; the recipient's side has said nothing yet",
    "delivered": Kind.DELIVERED,
    "failed/temporary": Kind.DEFERRED,  # Mailgun tries again
    "failed/permanent/bounce": Kind.BOUNCED_HARD,
    "failed/permanent/old": Kind.BOUNCED_SOFT,  # given up
    "failed/permanent/generic": Kind.BOUNCED_SOFT,
    "failed/permanent/espblock": Kind.BLOCKED,
    "failed/permanent/suppress-bounce": Kind.DROPPED,  # held back for what stands on its lists: an echo
    "failed/permanent/suppress-complaint": Kind.DROPPED,
    "failed/permanent/suppress-unsubscribe": Kind.DROPPED,
    "rejected": Kind.DROPPED,
    "complained": Kind.COMPLAINED,
    "unsubscribed": Kind.UNSUBSCRIBED,
    "opened": "engagement is no consent",
    "clicked": "engagement is no consent",
    "stored": "it is mail that Mailgun received and stored",
    "list_member_uploaded": _A_LIST,
    "list_member_upload_error": _A_LIST,
    "list_uploaded": _A_LIST,
    "bounced": Kind.BOUNCED_HARD,  # this and the rest in forms alone
    "dropped": Kind.DROPPED,
    "dropped/old": Kind.BOUNCED_SOFT,
}
_SUPPRESSED = frozenset({"605", "606", "607"})  # Mailgun's own codes: bounced, unsubscribed, complained before

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_PROOF = ("timestamp", "token", "signature")
_UNIX_TIME = re.compile(r"[0-9]{10}")  # seconds, from 2001 to 2286
_DOMAIN = re.compile(r"(?=.{4,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+")
_API_ADVICE = "At Mailgun, Settings → API security makes an API key; its role must let it change suppressions."
_KEY_ADVICE = "At Mailgun, Settings → API security shows the HTTP webhook signing key (of the subaccount, if it is one); set it unchanged."


@dataclass(frozen=True, slots=True)
class Mailgun:
    """Mailgun both ways. Holds no state."""

    budget: timedelta = telling.BUDGET

    name: ClassVar[str] = "mailgun"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers()  # never 406: it ends all retries (docs/providers/mailgun.md)
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_in: ClassVar[tuple[str, ...]] = ("webhook_key",)

    secrets_out: ClassVar[tuple[str, ...]] = ("api_key",)
    hosts: ClassVar[tuple[str, ...]] = ("api.mailgun.net", "api.eu.mailgun.net")
    batch: ClassVar[int] = 50  # each is asked for before it is told; a request carries up to 999
    pace: ClassVar[float] = 1.0  # a telling is up to 52 requests; Mailgun names 500 in ten seconds for others of its APIs

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        signing.check(credential, "webhook_key", 16, _KEY_ADVICE)
        if credential.groups or "api_key" in credential.secrets:
            credential.needed("api_key", 16, _API_ADVICE)
        if credential.groups and not _DOMAIN.fullmatch(str(credential.options.get("domain"))):
            raise Misconfigured(
                f"Account '{credential.account}': domain is missing, or no domain such as mg.example.com. Its list of unsubscribes is "
                "told: set the sending domain of your marketing mail, in lower case."
            )
        if strange := [group for group in credential.groups if not mailgun_tags.TAG.fullmatch(group)]:
            raise Misconfigured(
                f"Account '{credential.account}': scopes maps to '{strange[0]}', which is no tag, or means all mail of the domain. "
                f"{mailgun_tags.TAG_ADVICE}"
            )
        base_of(credential, self.hosts)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the body holds a proof made for this account. It does not cover the rest: see ``Heard.once``.

        A retry may keep its proof for eight hours, and a late opt-out must still stop: no window (docs/providers/mailgun.md).
        """
        timestamp, token, signature = _proof(delivery)
        signing.hmac(credential.valid("webhook_key"), signature, timestamp.encode(), token.encode("utf-8", "surrogatepass"))

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery, which tells one event. Never raises."""
        heard = sort(_told(delivery), lambda told: _read(told, delivery))
        try:
            _, token, _ = _proof(delivery)
        except Forged:
            return heard
        return replace(heard, once=Once(token, _digest(delivery)))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Mailgun would tell this, without its proof."""
        named = {"recipient": told.address, "id": told.id, "tags": [samples.SUBJECT]}
        return samples.spelt({"event-data": {"event": told.kind, "timestamp": samples.unix(told.at), **named}})

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a body with its proof in front. The token is made of the body, and counts for it alone."""
        timestamp, token = str(samples.unix(at)), hashlib.sha256(body).hexdigest()[:50]
        signature = signing.hmac_of(credential.secrets["webhook_key"], timestamp.encode(), token.encode())
        proof = samples.spelt({"timestamp": timestamp, "token": token, "signature": signature})
        return samples.posted(b'{"signature":' + proof + b"," + body.removeprefix(b"{"), at, {})

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling under its tag, never for the whole domain, which would stop receipts as well."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            kept = _unsubscribes(http, credential, self.hosts)
            await (kept.stop if stop else kept.go)(group, addresses, settled)

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List who left the tag, or all mail of the domain, with when."""
        async for listed in _unsubscribes(http, credential, self.hosts).listed(group):
            yield listed


def _unsubscribes(http: ClientSession, credential: Credential, hosts: Sequence[str]) -> Unsubscribes:
    key = credential.lent("api_key", _API_ADVICE)
    headers = {"Authorization": "Basic " + b64encode(f"api:{key}".encode()).decode(), "Accept": "application/json"}
    return Unsubscribes(Line(http, base_of(credential, hosts), headers), str(credential.options.get("domain")))


# Who says it


def _proof(delivery: Delivery) -> tuple[str, str, str]:
    """Return timestamp, token and signature. Raises Forged unless each is there.

    Nothing stands between the first two in what is signed: the time is of a fixed form, so that neither can lend the other a digit,
    and one proof has one token.
    """
    found = _proof_of_form(delivery) if _is_form(delivery) else _proof_of_json(delivery.body)
    timestamp, token, signature = (found.get(name) for name in _PROOF)
    if not (isinstance(timestamp, str) and isinstance(token, str) and isinstance(signature, str)):
        raise Forged
    if not _UNIX_TIME.fullmatch(timestamp) or not token:
        raise Forged
    return timestamp, token, signature


def _proof_of_json(body: bytes) -> Mapping[str, Any]:
    """Return what is said under "signature". The "parent-signature" of a subaccount proves nothing here: its token is another."""
    try:
        [proof] = [reading.value(raw) for name, raw in reading.members(body) if name == b"signature"]
    except (Unreadable, ValueError):
        raise Forged from None
    if not isinstance(proof, dict):
        raise Forged
    return proof


def _proof_of_form(delivery: Delivery) -> Mapping[str, str]:
    """Return the fields of the proof. Variables of ours may bear the same names: of these three, Mailgun's own come last."""
    try:
        return {name.decode(): text.decode() for name, text in _octets(delivery) if name in (b"timestamp", b"token", b"signature")}
    except UnicodeDecodeError:
        raise Forged from None


def _octets(delivery: Delivery) -> list[tuple[bytes, bytes]]:
    try:
        return reading.octets(delivery.body, delivery.header("Content-Type"))
    except Unreadable:
        raise Forged from None


def _is_form(delivery: Delivery) -> bool:
    return (delivery.header("Content-Type") or "").partition(";")[0].strip().lower() in _FORMS


def _digest(delivery: Delivery) -> bytes:
    """Return a digest of the body; of a form, of its fields, since the boundary between them is drawn anew each time."""
    covered = repr(_octets(delivery)).encode() if _is_form(delivery) else delivery.body
    return hashlib.sha256(covered).digest()


# What it says


def _told(delivery: Delivery) -> Batch:
    """Return the one event of a delivery, a form in the shape of today's JSON, or what is kept aside in its place."""
    if _is_form(delivery):
        try:
            fields = reading.form(delivery.body, delivery.header("Content-Type"))
        except Unreadable:
            return Batch([], [("unreadable", delivery.body)])
        return Batch([_as_json(fields)], pieces=[delivery.body])
    found = [raw for name, raw in reading.members(delivery.body) if name == b"event-data"]
    if len(found) != 1:
        return Batch([], [("no_event", delivery.body)])
    return reading.one_or_more(found[0])


def _as_json(fields: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields of a form under the names of today. Of most, Mailgun's own come before variables of ours with the same name."""
    first, last = dict(reversed(fields)), dict(fields)
    return {
        "event": first.get("event"),
        "recipient": first.get("recipient"),
        "reason": first.get("reason"),
        "timestamp": last.get("timestamp"),
        "message": {"headers": {"message-id": first.get("Message-Id", first.get("message-id"))}},
        "delivery-status": {"code": first.get("code"), "message": first.get("error", first.get("notification"))},
        "user-variables": {OURS: first.get(OURS) or _variable(first.get("message-headers", ""))},
    }


def _variable(headers: str) -> object:
    """Return our token from the headers of the message, which a form about a failure holds in JSON."""
    try:
        pairs = reading.value(headers.encode())
    except Unreadable:
        return None
    told = pairs if isinstance(pairs, list) else []
    found = [pair[1] for pair in told if isinstance(pair, list) and len(pair) == 2 and pair[0] == "X-Mailgun-Variables"]
    return reading.member(found[0], OURS) if found else None


def _read(told: Mapping[str, Any], delivery: Delivery) -> Event | Counted | str:
    """Return what one event says, or the reason why it is kept aside."""
    word, kind = _kind(told)
    if not isinstance(kind, Kind):
        return kind
    address, token = facts.text(told.get("recipient")), facts.text(facts.within(told, "user-variables", OURS))
    if not address and not token:
        return "no_recipient"
    # Whether a tag, a mailing list or the whole domain was left is not said: its tags are the message's (docs/providers/mailgun.md).
    happened_at = facts.moment(told.get("timestamp"), delivery.received_at)
    return Event(kind, _id(told, word), happened_at, address, token, None, _status(told))


def _kind(told: Mapping[str, Any]) -> tuple[str, Kind | Counted | str]:
    """Return what the event is called, and what it comes to."""
    word, reason, code = told.get("event"), told.get("reason"), facts.within(told, "delivery-status", "code")
    if not isinstance(word, str):
        return "", "unknown_kind"
    if word in ("failed", "dropped", "bounced") and str(code) in _SUPPRESSED:
        return word, Counted(str(Kind.DROPPED))
    if word == "dropped" and reason == "old":
        return word, Kind.BOUNCED_SOFT
    if word == "failed" and told.get("severity") == "permanent":
        return word, place(word, _permanent(told, reason))
    if word == "failed":
        return word, place(word, WORDS.get(f"failed/{told.get('severity')}"))
    return word, place(word, WORDS.get(word))


def _permanent(told: Mapping[str, Any], reason: object) -> Kind | str:
    """Return what a failure for good comes to. For a reason that does not blame the address, it is hard only on evidence against it."""
    known = WORDS.get(f"failed/permanent/{reason}", Kind.BOUNCED_SOFT)
    if known is Kind.BOUNCED_HARD and facts.within(told, "delivery-status", "bounce-type") == "soft":
        return Kind.BOUNCED_SOFT
    return Kind.BOUNCED_HARD if known is Kind.BOUNCED_SOFT and _status(told) in facts.NO_SUCH_MAILBOX else known


def _status(told: Mapping[str, Any]) -> str:
    given = [facts.within(told, "delivery-status", name) for name in ("enhanced-code", "code", "message", "description")]
    return next((status for each in given if (status := facts.status(each))), "")


def _id(told: Mapping[str, Any], word: str) -> str:
    """Return the event's own name, which is unique within a day, and the day; or what all of its repetitions say."""
    given, seconds = told.get("id"), told.get("timestamp")
    if isinstance(given, str) and 0 < len(given) <= 60 and isinstance(seconds, int | float) and 0 <= seconds < 10**11:
        return f"{given}/{seconds // 86400:.0f}"
    return facts.name_of(None, word, told.get("recipient"), facts.within(told, "message", "headers", "message-id"), seconds, given)
