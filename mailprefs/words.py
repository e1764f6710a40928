"""The words of the house, as types. Everything here is a value; nothing here acts.

The glossary in ``docs/glossary.md`` says what each word means to a reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

ROOT = 0  # the scope above every brand
MARKETING, TRANSACTIONAL, ADS = 1, 2, 3  # a brand's fixed nodes, added to brand × 256
FIRST_TOPIC, LAST_TOPIC = 16, 255
BUCKETS = 1024  # every table about an address is spread over this many

Clock = Callable[[], datetime]  # says what time it is, in UTC; read at doors and in the worker, and handed on


class Channel(StrEnum):
    """How an address is reached."""

    EMAIL = "email"
    SMS = "sms"


class Stream(StrEnum):
    """Why we write. Whatever is unset is marketing."""

    MARKETING = "marketing"
    TRANSACTIONAL = "transactional"


class Wanted(StrEnum):
    """The consent a topic asks for before it may be sent."""

    OPT_OUT = "opt-out"
    OPT_IN = "opt-in"
    DOUBLE_OPT_IN = "double-opt-in"


class Cause(StrEnum):
    """Why a scope is on hold. A closed list; the last two end by themselves."""

    CHOICE = "choice"
    COMPLAINT = "complaint"
    MINOR = "minor"
    STAFF = "staff"
    BOUNCE = "bounce"
    INVALID = "invalid"
    PAUSE = "pause"
    SOFT = "soft"

    @property
    def ends(self) -> bool:
        """True for the causes whose stops carry an ``until``."""
        return self in (Cause.PAUSE, Cause.SOFT)


class Effect(StrEnum):
    """What a Change does to a standing."""

    STOP = "stop"
    GO = "go"
    GRANT = "grant"  # evidence of consent: counts for its very topic, lifts nothing
    WITHDRAW = "withdraw"  # takes one earlier Change out of the fold
    NOTE = "note"  # evidence alone, such as a provider that says "resubscribed"


class Door(StrEnum):
    """Where a Change came in."""

    LINK = "link"
    PAGE = "page"
    MANAGE = "manage"
    MAIL = "mail"
    SMS = "sms"
    PROVIDER = "provider"
    IMPORT = "import"
    STAFF = "staff"
    RECONCILE = "reconcile"
    SYSTEM = "system"


class Kind(StrEnum):
    """What a provider says happened, in our words, finer than bounced or rejected."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED_HARD = "bounced_hard"
    BOUNCED_SOFT = "bounced_soft"
    BLOCKED = "blocked"
    DROPPED = "dropped"  # the provider held it back: an echo, never a new opt-out
    COMPLAINED = "complained"
    COMPLAINT_RETRACTED = "complaint_retracted"
    UNSUBSCRIBED = "unsubscribed"
    RESUBSCRIBED = "resubscribed"


@dataclass(frozen=True, slots=True)
class Address:
    """One reachable place. The key outlives the text, which erasure forgets."""

    key: UUID
    channel: Channel | None = None  # None: known by its key alone, from a link
    text: str | None = None

    @property
    def bucket(self) -> int:
        """The key's bucket, 0 to 1,023. The only place that says how it is found."""
        return (self.key.int >> 112) % BUCKETS  # of its first two bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A request that a standing be altered. The only input of the ledger.

    ``id`` is the fact's own name at its door: a provider's event, the nonce of a form, a row of an import.
    For a withdrawal it is the evidence of the Change to take back.
    """

    address: Address
    scope: int
    cause: Cause
    effect: Effect
    door: Door
    id: str
    happened_at: datetime
    until: datetime | None = None
    by: str | None = None  # the account that told us, or the operator

    @property
    def evidence(self) -> str:
        """The key of this Change in its address's ledger: the same fact twice is one row."""
        return f"undo:{self.id}" if self.effect is Effect.WITHDRAW else f"{self.door}:{self.id}"


@dataclass(frozen=True, slots=True)
class Event:
    """A fact told by a provider, in our words."""

    kind: Kind
    id: str  # unique at the account that told it
    happened_at: datetime
    address: str | None = None  # as the provider wrote it
    token: str | None = None  # our own, from the returned headers
    group: str | None = None  # the provider's group, list, tag or topic that was left
    detail: str = ""  # a code such as "5.1.1", never free text


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing on the path of a topic that speaks against sending."""

    scope: str  # its name, such as "connective/marketing"
    cause: str  # a Cause, "consent_missing", "unknown_topic" or "unreadable"
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """May this address be sent this topic now, and every reason why not."""

    address: str
    topic: str
    allowed: bool
    reasons: tuple[Reason, ...] = ()
