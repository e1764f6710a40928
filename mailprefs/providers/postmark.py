"""Postmark: its webhooks in, known by user and password; the suppressions of its message streams out: docs/providers/postmark.md."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from mailprefs.errors import Misconfigured, Unreadable
from mailprefs.providers import facts, reading, samples, signing, telling
from mailprefs.providers.base import (
    OURS,
    Credential,
    Delivery,
    Heard,
    Listed,
    Outcome,
    Rejected,
    Sample,
    Settlement,
    Telling,
    Unclear,
    Unsafe,
)
from mailprefs.providers.calling import Line, base_of
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.unsigned import Unsigned
from mailprefs.words import Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

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

REASONS: Mapping[str, Kind] = {  # why somebody stands on the suppression list of a stream
    "ManualSuppression": Kind.UNSUBSCRIBED,
    "SpamComplaint": Kind.COMPLAINED,
    "HardBounce": Kind.BOUNCED_HARD,
}
CHOICE = "ManualSuppression"  # the one reason that a go takes away
KEPT: Mapping[str | None, Settlement] = {  # what a go comes to where it is no choice that stands there
    "HardBounce": telling.DONE,  # deleting it would reactivate the address for all mail; the choice is not there
    "SpamComplaint": Settlement(Outcome.REFUSED, "complaint"),  # Postmark deletes none
}
_STRANGE = Settlement(Outcome.REFUSED, "other_reason")
NEVER = frozenset({"outbound", "inbound"})  # every server has them: for transactional mail, and for what it receives
_STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

_ADVICE = "Make up both, and set them at Postmark: Servers → your server → the message stream → Webhooks → Basic auth credentials."
_OUT_ADVICE = "At Postmark, Servers → your server → API Tokens shows the server's token; set it unchanged."
_STREAM_ADVICE = "Servers → your server → Message Streams shows the ids; map each topic to a stream of the type Broadcasts."


@dataclass(frozen=True, slots=True)
class Postmark(Unsigned):
    """Postmark both ways. It is answered 401, never 403, which would end all retries (docs/providers/postmark.md "How it is verified")."""

    budget: timedelta = telling.BUDGET

    name: ClassVar[str] = "postmark"
    advice: ClassVar[str] = _ADVICE
    kinds: ClassVar[Mapping[str, Kind | str]] = {
        **OTHERS,
        **{f"Bounce/{type_}": kind for type_, kind in BOUNCES.items()},
        **{f"SubscriptionChange/{change}": kind for change, kind in CHANGES.items()},
    }

    secrets_out: ClassVar[tuple[str, ...]] = ("server_token",)
    hosts: ClassVar[tuple[str, ...]] = ("api.postmarkapp.com",)
    batch: ClassVar[int] = 50
    pace: ClassVar[float] = 2.0  # a stop is two requests; Postmark names no limit

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        signing.check_basic(credential, self.advice)
        if credential.groups or "server_token" in credential.secrets:
            credential.needed("server_token", 16, _OUT_ADVICE)
        if strange := [group for group in credential.groups if group in NEVER or not _STREAM.fullmatch(group)]:
            raise Misconfigured(
                f"Account '{credential.account}': scopes maps to '{strange[0]}', which is no message stream for marketing. {_STREAM_ADVICE}"
            )
        base_of(credential, self.hosts)

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

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling in its stream, after asking that no transactional mail goes through it."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            line = _line(http, credential, self.hosts)
            await _must_be_for_marketing(line, group)
            await (_close if stop else _open)(line, group, addresses, settled)

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List the stream as Postmark holds it, with when and why."""
        line = _line(http, credential, self.hosts)
        await _must_be_for_marketing(line, group)
        async with aclosing(line.chunks(f"/message-streams/{group}/suppressions/dump")) as chunks:
            try:
                async for entry in reading.entries(chunks, "Suppressions"):
                    yield _listed(entry, group)
            except Unreadable:
                raise Unclear("broken_json") from None


# In


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


# Out


def _line(http: ClientSession, credential: Credential, hosts: Sequence[str]) -> Line:
    token = credential.lent("server_token", _OUT_ADVICE)
    return Line(http, base_of(credential, hosts), {"X-Postmark-Server-Token": token, "Accept": "application/json"})


async def _must_be_for_marketing(line: Line, group: str) -> None:
    """Raise Unsafe unless the stream is there and of the type Broadcasts: whoever is put on another's list gets no receipts."""
    if not _STREAM.fullmatch(group):
        raise Unsafe(f"The account maps a topic to what is no id of a message stream. {_STREAM_ADVICE}")
    answer = await line.call("GET", f"/message-streams/{group}")
    if answer.status in (404, 422):
        raise Unsafe(f"Postmark has no message stream '{group}' (any more). {_STREAM_ADVICE}")
    found = answer.json(200)
    if facts.within(found, "ID") != group:
        raise Unclear("other_stream")
    if facts.within(found, "MessageStreamType") != "Broadcasts":
        raise Unsafe(f"The message stream '{group}' is not of the type Broadcasts: an opt-out would stop receipts too. {_STREAM_ADVICE}")
    if facts.within(found, "ArchivedAt") is not None:
        raise Unsafe(f"The message stream '{group}' is archived. {_STREAM_ADVICE}")


async def _close(line: Line, group: str, addresses: list[str], settled: telling.Settled) -> None:
    """Put the addresses on the stream's list. Whoever Postmark will not put there is stopped all the same if they stand there already."""
    settled |= await _written(line, f"/message-streams/{group}/suppressions", addresses, "Suppressed")
    for address in [address for address in addresses if settled[address].outcome is Outcome.REFUSED]:
        if await _reason(line, group, address) is not None:
            settled[address] = telling.DONE


async def _open(line: Line, group: str, addresses: list[str], settled: telling.Settled) -> None:
    """Take the addresses' choices off the stream's list; what a bounce or a complaint put there stays."""
    reasons = {address: await _reason(line, group, address) for address in addresses}
    settled |= {address: KEPT.get(reason, _STRANGE) for address, reason in reasons.items() if reason not in (None, CHOICE)}
    if left := [address for address in addresses if address not in settled]:
        # whoever does not stand there is told all the same: what was put there takes a minute to show
        written = await _written(line, f"/message-streams/{group}/suppressions/delete", left, "Deleted")
        refused = {address for address in left if written[address].outcome is Outcome.REFUSED}
        settled |= written | {address: telling.DONE for address in refused if reasons[address] is None}


async def _written(line: Line, path: str, addresses: list[str], wanted: str) -> telling.Settled:
    """Send the addresses in one request and return what Postmark says became of each."""
    answer = await line.call("POST", path, json={"Suppressions": [{"EmailAddress": address} for address in addresses]})
    if answer.status in telling.REFUSALS:
        raise Rejected(f"Postmark refused a request with status {answer.status}.")
    said = {(entry["EmailAddress"].casefold(), entry.get("Status")) for entry in map(_entry, _entries(answer.json(200)))}
    return {address: _verdict({status for each, status in said if each == address.casefold()}, wanted) for address in addresses}


def _verdict(said: set[object], wanted: str) -> Settlement:
    if said == {wanted}:
        return telling.DONE
    return Settlement(Outcome.REFUSED, "failed") if said == {"Failed"} else Settlement(Outcome.UNKNOWN, "not_echoed")


async def _reason(line: Line, group: str, address: str) -> str | None:
    """Return why the address stands on the stream's list, None if it does not."""
    answer = await line.call("GET", f"/message-streams/{group}/suppressions/dump?EmailAddress={quote(address, safe='')}")
    for entry in map(_entry, _entries(answer.json(200))):
        if entry["EmailAddress"].casefold() == address.casefold():
            return str(entry.get("SuppressionReason"))
    return None


def _entries(told: object) -> list[Any]:
    found = facts.within(told, "Suppressions")
    if not isinstance(found, list):
        raise Unclear("other_shape")
    return found


def _entry(told: Any) -> Mapping[str, Any]:
    """Return an entry of the list as it came. Raises Unclear unless it names an address."""
    if not isinstance(told, dict) or not isinstance(told.get("EmailAddress"), str):
        raise Unclear("other_shape")
    return told


def _listed(told: Any, group: str) -> Listed:
    entry = _entry(told)
    kind = REASONS.get(str(entry.get("SuppressionReason")), Kind.UNSUBSCRIBED)
    return Listed(entry["EmailAddress"], group, facts.dated(entry.get("CreatedAt")), kind)
