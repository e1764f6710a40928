"""What every provider is: a verifier, a reader, a teller and a lister. Providers never see the database.

Two directions. *In*: ``verify`` raises :class:`~mailprefs.errors.Forged` or says nothing, ``parse`` is pure and never raises on
bytes that verified. *Out*: ``tell`` asserts states at the provider, ``pull`` lists what the provider believes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from mailprefs.errors import MailprefsError, Misconfigured
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

OURS = "mailprefs"  # the name under which our token travels in a provider's custom arguments
MOST_KEPT = 1_000  # of one delivery that are kept aside one by one: more are kept in one piece
# These become Events, the others are counted: they can change a standing, but for `blocked`, which another status would make a hard bounce.
MOVING = frozenset(
    {
        Kind.BOUNCED_HARD,
        Kind.BOUNCED_SOFT,
        Kind.BLOCKED,
        Kind.COMPLAINED,
        Kind.COMPLAINT_RETRACTED,
        Kind.UNSUBSCRIBED,
        Kind.RESUBSCRIBED,
    }
)


@dataclass(frozen=True, slots=True)
class Credential:
    """One account with one provider: its name, its secrets, and what stands beside them in the catalogue."""

    account: str
    secrets: Mapping[str, str] = field(repr=False)
    options: Mapping[str, object] = field(default_factory=dict)
    api_base: str | None = None  # a loopback address or one of the provider's own hosts; None is the provider's usual one

    @property
    def groups(self) -> tuple[str, ...]:
        """The provider's ids that the account's ``scopes`` map to. None: it is heard, never told."""
        scopes = self.options.get("scopes")
        return tuple(map(str, scopes.values())) if isinstance(scopes, Mapping) else ()

    def valid(self, secret: str) -> tuple[str, ...]:
        """Return the values of one secret that are valid now: itself and, in a rotation, its ``_next``."""
        return tuple(v for name in (secret, f"{secret}_next") if (v := self.secrets.get(name)))

    def values(self, option: str) -> tuple[object, ...]:
        """Return the values of an option: those of its array, or its own."""
        found = self.options.get(option)
        return tuple(found) if isinstance(found, list | tuple) else (found,)

    def needed(self, secret: str, shortest: int, advice: str) -> str:
        """Return a secret that is there, in printable ASCII and not too short. Raises Misconfigured, which ends in the advice."""
        value = self.secrets.get(secret, "")
        if not value:
            raise self.wrong(secret, "is missing", advice)
        if len(value) < shortest or not value.isascii() or not value.isprintable() or " " in value:
            raise self.wrong(secret, "is not one, or only a part of one", advice)
        return value

    def lent(self, secret: str, advice: str) -> str:
        """Return a secret that telling needs. Raises Barred, which ends in the advice, without it."""
        if value := self.secrets.get(secret):
            return value
        raise Barred(f"Account '{self.account}' has no {secret}. {advice}")

    def wrong(self, secret: str, what: str, advice: str) -> Misconfigured:
        """Return the error for a secret, which names it and never shows it."""
        return Misconfigured(f"Account '{self.account}': the secret {secret} {what}. {advice}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of a provider, as it came: raw body, headers in order with repeats."""

    headers: Sequence[tuple[str, str]]
    body: bytes
    received_at: datetime
    method: str = "POST"
    url: str = ""

    def header(self, name: str) -> str | None:
        """Return the value of a header that came exactly once; None if it is missing or repeated."""
        found = [v for k, v in self.headers if k.lower() == name.lower()]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Kept:
    """Something in a verified delivery that we could not read or place: kept aside with its reason, never lost."""

    reason: str  # a short fixed word, such as "unknown_kind"
    raw: bytes


@dataclass(frozen=True, slots=True)
class Once:
    """A proof that counts for one body alone, where the signature does not cover the body: the same with another body is a forgery."""

    nonce: str
    digest: bytes  # SHA-256 of what it came with


@dataclass(frozen=True, slots=True)
class Heard:
    """What a delivery said: events that can change a standing, what was kept aside, and how many of the rest."""

    events: tuple[Event, ...] = ()
    kept: tuple[Kept, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)  # kind → how many that change nothing
    once: Once | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What this provider takes to mean what we mean: status codes, and where it wants more, a body or headers."""

    kept: int = 200  # committed; do not send it again
    forged: int = 401  # proven forgery
    trouble: int = 503  # ours; send it again
    body: bytes = b""  # of ``kept``
    content_type: str = "text/plain"  # of ``body``
    challenge: Mapping[str, str] = field(default_factory=dict)  # headers of ``forged``, such as WWW-Authenticate
    greets: frozenset[str] = frozenset()  # methods other than POST by which it tries an address first: answered 200, nothing is read


@dataclass(frozen=True, slots=True)
class Telling:
    """One state to assert: this address must be stopped (or not) in this group of the provider's."""

    address: str
    group: str
    stop: bool


class Outcome(StrEnum):
    """What became of one telling."""

    DONE = "done"  # the provider confirmed it, in its documented status, type and shape
    UNKNOWN = "unknown"  # it may or may not have been applied: assert again after a settle delay
    REFUSED = "refused"  # the provider refuses this very one: quarantine and alarm


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of one telling, in the order they were given."""

    outcome: Outcome
    detail: str = ""  # a code, never an address


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of the provider's own list."""

    address: str
    group: str
    stopped_at: datetime | None = None
    kind: Kind = Kind.UNSUBSCRIBED  # why it stands there, as far as the provider says: COMPLAINED and BOUNCED_HARD are no choices


@dataclass(frozen=True, slots=True)
class Sample:
    """What a delivery of our own making tells, to try out whether an account is heard: that mail was delivered, or that somebody left."""

    kind: Kind  # DELIVERED, which changes nothing, or UNSUBSCRIBED
    address: str  # of nobody
    id: str  # in letters, digits and hyphens: no other sample has it
    at: datetime
    group: str = ""  # of the provider's, that is left; "" where the account maps none


class Slow(MailprefsError):
    """The provider asks us to wait."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__()
        self.wait = wait


class Barred(MailprefsError):
    """The provider does not accept our credential."""


class Rejected(MailprefsError):
    """The provider refuses the whole request because of something in it: halve it to find the one."""


class Unclear(MailprefsError):
    """The provider's answer did not come, or is not what it documents."""

    def __init__(self, detail: str) -> None:
        super().__init__()
        self.detail = detail  # a code, such as "http_500"


class Unsafe(MailprefsError):
    """What was asked would do harm at the provider, such as a group that no longer exists."""


class Unlisted(Unsafe):
    """The provider shows no list that could be laid beside ours. What it is told is told again from time to time in its place."""


class Ear(Protocol):
    """A provider as it is heard. One file each, one line in ``PROVIDERS``, one folder of payloads, one page of docs."""

    name: ClassVar[str]
    channel: ClassVar[Channel]
    answers: ClassVar[Answers]
    kinds: ClassVar[Mapping[str, Kind | str]]  # its word for an event → ours, or the reason why it changes nothing
    secrets_in: ClassVar[tuple[str, ...]]  # needed to hear it

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if it is mapped, told."""

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the raw bytes were signed for this account."""

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery. Never raises: what cannot be read is in ``kept``."""
        ...


@runtime_checkable
class Sealed(Protocol):
    """A provider whose proof travels in a header: a delivery without it is refused before its body is read."""

    seals: ClassVar[tuple[str, ...]]  # at least one of these headers is with every genuine delivery


@runtime_checkable
class Bound(Protocol):
    """A provider whose proof holds for what an account says of itself as well: one secret may then serve several accounts."""

    covers: ClassVar[tuple[str, ...]]  # options of the account: with another value for one of them, the delivery does not verify


@runtime_checkable
class Fetching(Protocol):
    """A provider whose proof wants something from outside, such as a certificate."""

    async def fetch(self, http: ClientSession, credential: Credential, delivery: Delivery) -> None:
        """Bring what ``verify`` will look at, once, and hold it. Raises Forged for a place that is not the provider's own, before any
        request is made, and Unavailable if it does not come: then the provider is asked to send again."""


@runtime_checkable
class Resolving(Protocol):
    """A provider that names people by ids of its own."""

    async def resolve(self, http: ClientSession, credential: Credential, heard: Heard) -> Heard:
        """Return what was heard with addresses in place of ids. Raises Unavailable if the provider does not answer: it sends again."""
        ...


class Unsignable(MailprefsError):
    """Only the provider has the key that proves its deliveries. The text says what can be tried instead."""


@runtime_checkable
class Signing(Protocol):
    """A provider whose deliveries we can make as it would, to try out whether an account is heard."""

    def sample(self, told: Sample) -> bytes:
        """Return the body in which the provider would tell this."""
        ...

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a body, proven with the account's own secrets. Its ``url`` is the part of the address from ``?`` on.

        Raises Unsignable where only the provider has the key.
        """
        ...


@runtime_checkable
class Provider(Ear, Protocol):
    """A provider both ways: heard and told."""

    secrets_out: ClassVar[tuple[str, ...]]  # needed to tell it
    hosts: ClassVar[tuple[str, ...]]  # of its own, which an api_base may name
    batch: ClassVar[int]  # addresses per request
    pace: ClassVar[float]  # requests per second and account

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling (all of one group, all stops or all goes) and return a settlement for each, in order.

        Raises Slow (429), Barred (401, 403), Rejected (the request as a whole), Unsafe (the mapping must be mended first).
        Any other trouble is an UNKNOWN settlement, never an exception.
        """
        ...

    def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """List everyone the provider holds stopped in a group. Raises the errors of ``tell``, and Unclear if the listing is not whole."""
        ...
