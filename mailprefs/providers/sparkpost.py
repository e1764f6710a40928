"""SparkPost: its event webhooks in, known by user and password; its suppression list out: docs/providers/sparkpost.md."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from mailprefs.errors import Misconfigured
from mailprefs.providers import facts, reading, samples, telling
from mailprefs.providers.base import OURS, Credential, Delivery, Heard, Listed, Sample, Settlement, Telling, Unsafe
from mailprefs.providers.calling import base_of
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.sparkpost_lists import EVERYTHING, Suppressions
from mailprefs.providers.steady import Steady
from mailprefs.providers.unsigned import Unsigned
from mailprefs.words import Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

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

LONGEST_LIST = 255  # octets of a List-Id, RFC 2919 §2
PRIMARY = "0"  # the account itself, where it has subaccounts
_LIST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")
_SUBACCOUNT = re.compile(r"[1-9][0-9]{0,17}")
_API_ADVICE = "At SparkPost, Configuration → API Keys makes one; it needs Suppression Lists: Read/Write."
_SUBACCOUNT_ADVICE = "Configuration → Subaccounts shows them. Leave it out for the account itself."
_MAP_ADVICE = (
    f"Map each topic to the List-Id of its mail, such as newsletter.example.com, and marketing as a whole to '{EVERYTHING}'. "
    "Any other list or type would stop transactional mail too."
)


@dataclass(frozen=True, slots=True)
class SparkPost(Unsigned):
    """SparkPost both ways. Holds no state."""

    budget: timedelta = telling.BUDGET
    pause: timedelta = timedelta(seconds=0.1)  # between two requests: its limits change with its load

    name: ClassVar[str] = "sparkpost"
    advice: ClassVar[str] = _ADVICE
    kinds: ClassVar[Mapping[str, Kind | str]] = {
        **WORDS,
        **{f"{word}/{code}": kind for word in ("bounce", "out_of_band") for code, kind in CLASSES.items()},
    }

    secrets_out: ClassVar[tuple[str, ...]] = ("api_key",)
    hosts: ClassVar[tuple[str, ...]] = ("api.sparkpost.com", "api.eu.sparkpost.com")
    batch: ClassVar[int] = 20  # a stop is two readings of each and one write, which take 6 seconds at that distance
    pace: ClassVar[float] = 0.16  # so that one is over before the next begins

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        Unsigned.check(self, credential)
        if credential.groups or "api_key" in credential.secrets:
            credential.needed("api_key", 16, _API_ADVICE)
        if strange := [group for group in credential.groups if not _is_list(group)]:
            raise Misconfigured(
                f"Account '{credential.account}': scopes maps to '{strange[0]}', which is no list for marketing. {_MAP_ADVICE}"
            )
        if not _SUBACCOUNT.fullmatch(_subaccount(credential) or "1"):
            raise Misconfigured(f"Account '{credential.account}': subaccount is no number of one. {_SUBACCOUNT_ADVICE}")
        base_of(credential, self.hosts)

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

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling in its list, with the type that never stops transactional mail."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            list_ = self._list(http, credential, group, self.pause)
            await (list_.close if stop else list_.open)(addresses, settled)

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List the group as SparkPost holds it, with when and why."""
        async for listed in self._list(http, credential, group, self.pause * 5).everyone():
            yield listed

    def _list(self, http: ClientSession, credential: Credential, group: str, pause: timedelta) -> Suppressions:
        if not _is_list(group):
            raise Unsafe(f"The account maps a topic to what is no list for marketing. {_MAP_ADVICE}")
        headers = {"Authorization": credential.lent("api_key", _API_ADVICE), "Accept": "application/json"}
        base, subaccount = base_of(credential, self.hosts), _subaccount(credential)
        # Without the header a question is about all subaccounts as well, and its answer up to 20 minutes old.
        asks = Steady(http, base, headers | {"X-MSYS-SUBACCOUNT": subaccount or PRIMARY}, pause)
        writes = Steady(http, base, headers | ({"X-MSYS-SUBACCOUNT": subaccount} if subaccount else {}), pause)
        return Suppressions(asks, writes, group, subaccount or PRIMARY)


def _is_list(group: str) -> bool:
    return group == EVERYTHING or (len(group) <= LONGEST_LIST and _LIST.fullmatch(group) is not None)


def _subaccount(credential: Credential) -> str:
    return str(credential.options.get("subaccount") or "")


# In


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
