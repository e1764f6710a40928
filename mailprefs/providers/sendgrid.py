"""SendGrid: its signed Event Webhook in, its unsubscribe groups (ASM) out. What is known of it: docs/providers/sendgrid.md."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from mailprefs.errors import Forged, Misconfigured, Unreadable
from mailprefs.providers import reading, samples, signing, telling
from mailprefs.providers.base import (
    MOVING,
    OURS,
    Answers,
    Credential,
    Delivery,
    Heard,
    Kept,
    Listed,
    Outcome,
    Rejected,
    Sample,
    Settlement,
    Telling,
    Unclear,
    Unsafe,
    Unsignable,
)
from mailprefs.providers.calling import Line, base_of
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

WORDS: Mapping[str, Kind | str] = {
    "processed": "SendGrid took the message over; the recipient's side has said nothing yet",
    "delivered": Kind.DELIVERED,
    "deferred": Kind.DEFERRED,
    "dropped": Kind.DROPPED,  # held back for what SendGrid knew before: an echo, whatever its reason says
    "open": "engagement is no consent",
    "click": "engagement is no consent",
    "spamreport": Kind.COMPLAINED,
    "unsubscribe": Kind.UNSUBSCRIBED,
    "group_unsubscribe": Kind.UNSUBSCRIBED,
    "group_resubscribe": Kind.RESUBSCRIBED,
    "account_status_change": "it is about the account and no recipient; kept aside for the operator to see",
}
BOUNCES: Mapping[str, Kind] = {  # by the ``type`` of a bounce
    "bounce": Kind.BOUNCED_HARD,
    "blocked": Kind.BLOCKED,
    "expired": Kind.BOUNCED_SOFT,  # given up after 72 hours of deferrals
}
COUNTED = frozenset(word for word, kind in WORDS.items() if kind not in MOVING and word != "account_status_change")
PASSING = reading.Passing("event", COUNTED)

TRY_OUT = "private_key"  # lent for a try-out alone: no account has it
SIGNATURE, TIMESTAMP = "X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp"
_DIGITS = re.compile(r"[0-9]{1,18}")
_UNIX_TIME = re.compile(r"[0-9]{10}")  # seconds, from 2001 to 2286
_STATUS = re.compile(r"[245](?:\.[0-9]{1,3}\.[0-9]{1,3}|[0-9]{2})")
_NO_SUCH_MAILBOX = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})  # RFC 3463 §3.2, RFC 7505: the address itself is bad
_OTHER_FAULT = frozenset({"Content", "Frequency or Volume Too High", "Reputation", "Technical Failure"})
_FOUNDED = datetime(2009, 7, 1, tzinfo=UTC).timestamp()  # SendGrid can have told nothing before
_LAST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()  # that a datetime can say

_KEY_ADVICE = "At SendGrid, Settings → Mail Settings → Event Webhook → Signature verification shows the key; set it unchanged."
_API_ADVICE = "At SendGrid, Settings → API Keys makes one; it needs full access to Unsubscribe Groups under Suppressions."


@dataclass(frozen=True, slots=True)
class SendGrid:
    """SendGrid both ways. Holds no state."""

    budget: timedelta = telling.BUDGET

    name: ClassVar[str] = "sendgrid"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers()
    kinds: ClassVar[Mapping[str, Kind | str]] = {**WORDS, **{f"bounce/{type_}": kind for type_, kind in BOUNCES.items()}}
    secrets_in: ClassVar[tuple[str, ...]] = ("webhook_key",)
    seals: ClassVar[tuple[str, ...]] = (SIGNATURE,)
    secrets_out: ClassVar[tuple[str, ...]] = ("api_key",)
    hosts: ClassVar[tuple[str, ...]] = ("api.sendgrid.com", "api.eu.sendgrid.com")
    batch: ClassVar[int] = 200  # its limit is not documented; the echo of 200 addresses always fits the 64 KiB we read
    pace: ClassVar[float] = 3.0  # a stop is three requests, and 600 a minute is the limit that SendGrid has named

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        credential.needed("webhook_key", 80, _KEY_ADVICE)
        for name in ("webhook_key", "webhook_key_next"):
            try:
                signing.p256_key(credential.secrets.get(name) or credential.secrets["webhook_key"])
            except Unreadable:
                raise credential.wrong(name, "is not a P-256 public key in base64", _KEY_ADVICE) from None
        if credential.groups or "api_key" in credential.secrets:
            credential.needed("api_key", 16, _API_ADVICE)
        if strange := [group for group in credential.groups if not _DIGITS.fullmatch(group)]:
            raise Misconfigured(
                f"Account '{credential.account}': scopes maps to '{strange[0]}', but a SendGrid group is known by its number. "
                "Marketing → Unsubscribe Groups shows it."
            )
        base_of(credential, self.hosts)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the raw bytes were signed for this account. There is no window (docs/providers/sendgrid.md)."""
        timestamp = delivery.header(TIMESTAMP) or ""
        # Nothing stands between timestamp and body in what is signed: of a fixed form, so that neither can lend the other a byte.
        if not _UNIX_TIME.fullmatch(timestamp):
            raise Forged
        signing.ecdsa_p256(credential.valid("webhook_key"), delivery.header(SIGNATURE), timestamp.encode(), delivery.body)

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery. Never raises; events, kept and counted together are as many as it told."""
        batch = reading.batch(delivery.body, PASSING)
        events: list[Event] = []
        kept = [Kept(reason, raw) for reason, raw in batch.aside]
        counted = batch.passed
        for n, told in enumerate(batch.values):
            word = told.get("event") if type(told) is dict else None
            if type(word) is str and word in COUNTED:
                counted[word] += 1
            elif isinstance(read := _read(told, delivery.received_at), Event):
                events.append(read)
            else:
                kept.append(Kept(read, batch.raw(n)))
        return Heard(tuple(events), tuple(kept), counted)

    def sample(self, told: Sample) -> bytes:
        """Return the body in which SendGrid would tell this."""
        named = {"email": told.address, "timestamp": samples.unix(told.at), "sg_event_id": told.id, "category": [samples.SUBJECT]}
        if told.kind is Kind.UNSUBSCRIBED and told.group:
            return samples.spelt([{"event": "group_unsubscribe", "asm_group_id": int(told.group), **named}])
        return samples.spelt([{"event": "unsubscribe" if told.kind is Kind.UNSUBSCRIBED else "delivered", **named}])

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a body, signed with a private key that was lent. Raises Unsignable without one."""
        timestamp, key = str(samples.unix(at)), credential.secrets.get(TRY_OUT)
        if key is None:
            raise Unsignable(
                "SendGrid alone has the private key of webhook_key. To try the whole way, make a pair of keys of your own, set the public "
                "one as webhook_key_next, and lend the private one: --signed-by FILE."
            )
        signature = signing.ecdsa_p256_of(key, timestamp.encode(), body)
        return samples.posted(body, at, {TIMESTAMP: timestamp, SIGNATURE: signature})

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling in its group, never in the global list, which would stop transactional mail as well."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            await _settle(_line(http, credential, self.hosts), group, stop, addresses, settled)

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List the group as SendGrid holds it: addresses alone, it gives no dates here."""
        line = _line(http, credential, self.hosts)
        await _must_exist(line, group)
        async with aclosing(line.chunks(f"/v3/asm/groups/{group}/suppressions")) as chunks:
            try:
                async for address in reading.strings(chunks):
                    yield Listed(address, group)
            except Unreadable:
                raise Unclear("broken_json") from None


# In


def _read(told: Any, received_at: datetime) -> Event | str:
    """Return one event that can change a standing, or the reason why it is kept aside."""
    if not isinstance(told, dict):
        return "no_object"
    word = told.get("event")
    if word == "account_status_change":
        return "account_change"
    kind = _bounce(told) if word == "bounce" else WORDS.get(word) if isinstance(word, str) else None
    if not isinstance(kind, Kind):
        return "unknown_kind"
    address, token = _text(told.get("email")), _text(told.get(OURS))
    if not address and not token:
        return "no_recipient"
    # "unsubscribe" is the link for all mail; a group in it only says what the message was sent with (docs/providers/sendgrid.md).
    group = _group(told.get("asm_group_id")) if word in ("group_unsubscribe", "group_resubscribe") else None
    return Event(kind, _id(told), _moment(told.get("timestamp"), received_at), address, token, group, _status(told))


def _bounce(told: dict[str, Any]) -> Kind:
    """Return what kind of bounce it is. Of a type that we do not know, hard only on evidence against the address itself."""
    type_ = told.get("type")
    if isinstance(type_, str) and type_.lower() in BOUNCES:
        return BOUNCES[type_.lower()]
    status, fault = _status(told), _text(told.get("bounce_classification"))
    # Without a type, as in SendGrid's own older samples, the word "bounce" means a permanent failure: its status must agree.
    permanent = type_ is None and status.startswith("5") and fault not in _OTHER_FAULT
    no_mailbox = status in _NO_SUCH_MAILBOX or fault == "Invalid Address"
    return Kind.BOUNCED_HARD if permanent or no_mailbox else Kind.BOUNCED_SOFT


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _status(told: dict[str, Any]) -> str:
    status = told.get("status")
    return status if isinstance(status, str) and _STATUS.fullmatch(status) else ""


def _group(value: Any) -> str:
    """Return a group's number as text. "" for none that can be read: it maps to nothing, which stops all marketing and alarms."""
    text = str(value) if isinstance(value, int) and 0 <= value < 10**18 else value
    return text if isinstance(text, str) and _DIGITS.fullmatch(text) else ""


def _id(told: dict[str, Any]) -> str:
    """Return the event's own name, or one that every repetition of the same event gets as well."""
    given = told.get("sg_event_id")
    if isinstance(given, str) and 0 < len(given) <= 100:
        return given
    facts = [told.get(name) for name in ("event", "email", "timestamp", "sg_message_id", "asm_group_id")]
    return f"sha256-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}"


def _moment(value: Any, received_at: datetime) -> datetime:
    """Return when it happened. A time that is none, before SendGrid's own or after now is the time of receipt."""
    seconds = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
    if type(seconds) not in (int, float) or not _FOUNDED <= seconds <= _LAST:
        return received_at
    return min(datetime.fromtimestamp(seconds, UTC), received_at)


# Out


def _line(http: ClientSession, credential: Credential, hosts: Sequence[str]) -> Line:
    key = credential.lent("api_key", _API_ADVICE)
    return Line(http, base_of(credential, hosts), {"Authorization": f"Bearer {key}", "Accept": "application/json"})


async def _settle(line: Line, group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
    """Every address is in ``settled`` at the end; if there is trouble on the way, those are that were settled before it."""
    await _must_exist(line, group)
    if stop:
        settled |= await _added(line, group, addresses)
    else:
        await telling.each(addresses, settled, partial(_removed, line, group))


async def _must_exist(line: Line, group: str) -> None:
    """Raise Unsafe unless the group exists: what is added to a missing one lands in the global list (docs/providers/sendgrid.md)."""
    if not _DIGITS.fullmatch(group):
        raise Unsafe("The account maps a topic to what is no number of a SendGrid group. Correct scopes in mailprefs.toml.")
    answer = await line.call("GET", f"/v3/asm/groups/{group}")
    if answer.status == 404:
        raise Unsafe(f"SendGrid has no unsubscribe group {group} (any more). Map the topic to one that exists.")
    found = answer.json(200)
    if not isinstance(found, dict) or str(found.get("id")) != group:
        raise Unclear("other_group")


async def _added(line: Line, group: str, addresses: list[str]) -> dict[str, Settlement]:
    """Add the addresses to the group in one call; done is who is in its echo."""
    answer = await line.call("POST", f"/v3/asm/groups/{group}/suppressions", json={"recipient_emails": addresses})
    if answer.status in telling.REFUSALS:
        raise Rejected(f"SendGrid refused a request with status {answer.status}.")
    echo = answer.json(201)
    echoed = echo.get("recipient_emails") if isinstance(echo, dict) else None
    if not isinstance(echoed, list):
        raise Unclear("other_shape")
    await _must_exist(line, group)  # a number is never given twice: if it exists now, it did when the addresses were added
    done = {each.casefold() for each in echoed if isinstance(each, str)}
    return {address: telling.DONE if address.casefold() in done else Settlement(Outcome.UNKNOWN, "not_echoed") for address in addresses}


async def _removed(line: Line, group: str, address: str) -> Settlement:
    """Remove one address from the group; it need not be in it."""
    answer = await line.call("DELETE", f"/v3/asm/groups/{group}/suppressions/{quote(address, safe='')}")
    if answer.status in (204, 404):
        return telling.DONE
    if answer.status in (400, 413, 422):
        return Settlement(Outcome.REFUSED, f"http_{answer.status}")
    return Settlement(Outcome.UNKNOWN, f"http_{answer.status}")
