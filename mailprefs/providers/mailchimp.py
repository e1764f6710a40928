"""Mailchimp Marketing: the webhooks of an audience in, its members out. What is known of it: docs/providers/mailchimp.md."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from hashlib import md5
from typing import TYPE_CHECKING, ClassVar

from mailprefs.errors import Forged, Misconfigured, Unreadable
from mailprefs.providers import facts, offsets, posted, reading, samples, signing, telling
from mailprefs.providers.base import (
    Answers,
    Credential,
    Delivery,
    Heard,
    Listed,
    Outcome,
    Sample,
    Settlement,
    Telling,
    Unclear,
    Unsafe,
)
from mailprefs.providers.calling import PAGE, Answer, Line, base_of
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.providers.steady import Steady
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

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

OUT, IN = "unsubscribed", "subscribed"
MEMBERS = 1000  # in one page of a listing, the most it gives
_AUDIENCE = re.compile(r"[0-9a-f]{10}")
_API_KEY = re.compile(r"[!-~]{16,}-([a-z]{2,4}[0-9]{1,3})")  # it ends in the data centre
_TITLES = {"Member In Compliance State": "left_there", "Forgotten Email Not Subscribed": "deleted_there"}
_API_ADVICE = "At Mailchimp, Account → Extras → API keys makes one; it ends in - and a data centre, such as -us19."
_MAP_ADVICE = (
    "An audience is known by its id, such as a6b5da1054: Audience → Settings → Audience name and defaults. "
    "Interest groups and tags are no opt-outs: Mailchimp mails whoever is subscribed."
)


@dataclass(frozen=True, slots=True)
class Mailchimp:
    """Mailchimp Marketing both ways. Holds no state."""

    budget: timedelta = telling.BUDGET

    name: ClassVar[str] = "mailchimp"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers(greets=frozenset({"GET", "HEAD"}))  # by which it tries an address that is being entered
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_in: ClassVar[tuple[str, ...]] = ("url_secret",)
    secrets_out: ClassVar[tuple[str, ...]] = ("api_key",)
    hosts: ClassVar[tuple[str, ...]] = tuple(f"us{n}.api.mailchimp.com" for n in range(1, 31))  # an account's own is in its key
    batch: ClassVar[int] = 10  # each is two requests
    pace: ClassVar[float] = 2.0  # no limit is documented but ten connections at once, of which the courier has four

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        signing.check(credential, "url_secret", 24, _URL_ADVICE)
        for name in ("url_secret", "url_secret_next"):
            if not _URL_SAFE.fullmatch(credential.secrets.get(name) or credential.secrets["url_secret"]):
                raise credential.wrong(name, "holds a letter that an address spells in more than one way", _URL_ADVICE)
        if any(name in credential.secrets for name in ("webhook_key", "webhook_key_next")):
            signing.check(credential, "webhook_key", 16, _KEY_ADVICE)
        if credential.groups or "api_key" in credential.secrets:
            _base(credential, credential.needed("api_key", 20, _API_ADVICE), self.hosts)
        only = credential.options.get("list_id") or None
        if strange := [group for group in credential.groups if not _AUDIENCE.fullmatch(group) or only not in (None, group)]:
            beside = " of list_id" if only else ""
            raise Misconfigured(
                f"Account '{credential.account}': scopes maps to '{strange[0]}', which is no audience{beside}. {_MAP_ADVICE}"
            )

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

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling as the status of a member of the audience. Nobody is deleted for good, nobody is mailed."""

        async def act(group: str, stop: bool, addresses: list[str], settled: telling.Settled) -> None:
            line = await self._line(http, credential, group)
            await telling.each(addresses, settled, partial(_stopped if stop else _let_go, line, group))

        return await telling.told(tellings, self.budget, act)

    async def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List everyone who is unsubscribed from the audience, with the latest time at which that can have been."""
        line = await self._line(http, credential, group)
        async for member in offsets.walk(partial(_page, line, group), "id"):
            address = facts.text(member.get("email_address"))
            if address is None:
                raise Unclear("other_shape")
            yield Listed(address, group, facts.dated(member.get("last_changed")))

    async def _line(self, http: ClientSession, credential: Credential, group: str) -> Line:
        """Return the way to an audience. Raises Unsafe unless it exists."""
        if not _AUDIENCE.fullmatch(group):
            raise Unsafe(f"The account maps a topic to what is no id of an audience. {_MAP_ADVICE}")
        key = credential.lent("api_key", _API_ADVICE)
        proof = b64encode(f"mailprefs:{key}".encode()).decode()
        line = Steady(http, _base(credential, key, self.hosts), {"Authorization": f"Basic {proof}", "Accept": "application/json"})
        answer = await line.call("GET", f"/3.0/lists/{group}?fields=id")
        if answer.status == 404:
            raise Unsafe(f"Mailchimp has no audience {group} (any more). Map the topic to one that exists.")
        if facts.within(answer.json(200), "id") != group:
            raise Unclear("other_audience")
        return line


# In


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


# Out


def _base(credential: Credential, key: str, hosts: Sequence[str]) -> str:
    """Return where the account's API is: its key says in which data centre. Raises Misconfigured."""
    found = _API_KEY.fullmatch(key)
    if not found:
        raise credential.wrong("api_key", "is not one, or only a part of one", _API_ADVICE)
    return base_of(credential, (f"{found[1]}.api.mailchimp.com", *hosts))


async def _stopped(line: Line, audience: str, address: str) -> Settlement:
    """Unsubscribe a member, one that is made first if need be, and look whether it is so."""
    member = {"email_address": address, "status_if_new": OUT, "status": OUT}
    return await _written(line, "PUT", audience, address, member)


async def _let_go(line: Line, audience: str, address: str) -> Settlement:
    """Take a member back who is unsubscribed, and look whether it is so. Who was never in is put away, not subscribed.

    Mailchimp itself refuses to take back who left there; ``pending`` would mail them, and is never used.
    """
    member = await _member(line, audience, address)
    if facts.within(member, "status") != OUT:
        return telling.DONE
    if facts.text(facts.within(member, "timestamp_opt")):
        return await _written(line, "PATCH", audience, address, {"status": IN})
    return await _written(line, "DELETE", audience, address, None)


async def _written(line: Line, method: str, audience: str, address: str, member: Mapping[str, str] | None) -> Settlement:
    """Write a member, or archive it where there is nothing to write, and look whether it is as told."""
    # A field that the audience asks for is no reason to keep mailing somebody who wants no more.
    path = _path(audience, address) + ("?skip_merge_validation=true" if member else "")
    answer = await line.call(method, path, json=member, most=PAGE)
    if answer.status in telling.REFUSED:
        return Settlement(Outcome.REFUSED, _TITLES.get(str(_title(answer)), f"http_{answer.status}"))
    if member:
        answer.json(200)
    elif answer.status != 204:
        raise answer.unclear
    stopped = facts.within(await _member(line, audience, address), "status") == OUT
    return telling.DONE if stopped is (method == "PUT") else Settlement(Outcome.UNKNOWN, "not_confirmed")


def _title(answer: Answer) -> object:
    """Return what a refusal is called."""
    try:
        return facts.within(reading.value(answer.body), "title")
    except Unreadable:
        return None


async def _member(line: Line, audience: str, address: str) -> object:
    """Return what the audience has of a member: its status, and when it opted in. None if it is none."""
    answer = await line.call("GET", f"{_path(audience, address)}?fields=email_address,status,timestamp_opt")
    if answer.status == 404:
        return None
    member = answer.json(200)
    if not facts.text(facts.within(member, "status")):
        raise Unclear("other_shape")
    return member


def _path(audience: str, address: str) -> str:
    return f"/3.0/lists/{audience}/members/{md5(address.lower().encode(), usedforsecurity=False).hexdigest()}"


async def _page(line: Line, audience: str, offset: int) -> offsets.Page:
    """Return the unsubscribed members from an offset on, who changed last at the end."""
    fields = "members.id,members.email_address,members.status,members.last_changed,total_items"
    order = "sort_field=last_changed&sort_dir=ASC"
    path = f"/3.0/lists/{audience}/members?status={OUT}&count={MEMBERS}&offset={offset}&{order}&fields={fields}"
    found = (await line.call("GET", path, most=PAGE)).json(200)
    members, total = facts.within(found, "members"), facts.within(found, "total_items")
    if not isinstance(members, list) or type(total) is not int or any(facts.within(each, "status") != OUT for each in members):
        raise Unclear("other_shape")
    return members, total
