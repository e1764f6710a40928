"""Passes: what a link says that was mailed to somebody, and proves by being there that they read that mailbox. Each ends by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid4

from itsdangerous import BadData

from mailprefs.errors import Forged
from mailprefs.links import KeyRing

_LONGEST = 400 * 24 * 3600  # seconds: older than that, no text of ours says anything


class Purpose(StrEnum):
    """What a pass is for. Each has keys of its own: none works as another."""

    MANAGE = "manage"  # opens one's choices
    SESSION = "session"  # they were opened: it stands in the forms of that page
    CONFIRM = "confirm"  # answers whether mail is wanted


# since it was made
WORKS = {Purpose.MANAGE: timedelta(minutes=60), Purpose.SESSION: timedelta(minutes=60), Purpose.CONFIRM: timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class Pass:
    """Whose it is, for what, and since when. ``id`` is the mail's: a session goes by that of the link which opened it."""

    purpose: Purpose
    key: UUID  # of the address
    scope: int  # the brand, or the topic that is asked about
    id: UUID
    at: datetime

    def left(self, now: datetime) -> timedelta:
        """Return how long it still works; zero or less if it has ended."""
        return self.at + WORKS[self.purpose] - now

    def works(self, now: datetime) -> bool:
        return self.left(now) > timedelta()

    def opened(self, now: datetime) -> Pass:
        """Return the session that a link to one's choices opens."""
        return replace(self, purpose=Purpose.SESSION, at=now)


def fresh(purpose: Purpose, key: UUID, scope: int, now: datetime) -> Pass:
    return Pass(purpose, key, scope, uuid4(), now)


def write(ring: KeyRing, one: Pass) -> str:
    """Return the signed text of a pass, fit for a URL."""
    return str(ring.timed(one.purpose).dumps([one.key.hex, one.scope, one.id.hex, int(one.at.timestamp())]))


def read(ring: KeyRing, purpose: Purpose, text: str) -> Pass:
    """Return what a pass says, whether or not it has ended. Raises Forged for every text that is no pass for this."""
    try:
        key, scope, id_, at = ring.timed(purpose).loads(text, max_age=_LONGEST)
        return Pass(purpose, UUID(hex=key), int(scope), UUID(hex=id_), datetime.fromtimestamp(at, UTC))
    except (BadData, ValueError, TypeError, AttributeError, OverflowError):
        raise Forged from None
