"""Mails we receive: a letter and its envelope in, and what it says is recorded.

A wish to leave goes by our token in the address it was sent to; without any token, by a sender whom the operator's own mail server has
proven. Bounces and complaints are heard as from a provider. What cannot be read or placed is kept aside and alarmed, never lost. No mail
turns anything on, and none is answered.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from itertools import islice
from uuid import UUID

from mailprefs import db, ledger, letters, links, reports, senders, telemetry, wishes
from mailprefs.addresses import Addresses
from mailprefs.catalogue import MAIL, Account, Brand, Catalogue
from mailprefs.db import Connection
from mailprefs.errors import Unreadable
from mailprefs.inbox import Inbox
from mailprefs.letters import Letter, Opened, field_of, fields
from mailprefs.links import KeyRing, KeyState, Links, Token
from mailprefs.providers.base import Heard, Kept
from mailprefs.reports import Report
from mailprefs.wishes import Wish
from mailprefs.words import MARKETING, Address, Cause, Change, Channel, Door, Effect, Kind, Stream

NAME = MAIL  # of the account under which mail is counted and kept aside
BOUNCES = "bounces"  # the other name that we are written to, at the domain of each brand's mailto

_TO = ("x-original-to", "delivered-to", "envelope-to", "to", "cc")  # where an address stands that the envelope was not told of
_ADDRESS = re.compile(r"(?<![^\s<>,;:\"])[^\s<>,;:\"@]+@[^\s<>,;:\"@]+")
_BY_BRAND = frozenset({Kind.COMPLAINED, Kind.COMPLAINT_RETRACTED, Kind.UNSUBSCRIBED})


@dataclass(frozen=True, slots=True)
class Said:
    """What a letter comes to: a person's own stops, and what else was heard, with the brand it is about."""

    raw: bytes = field(repr=False)
    stops: tuple[Change, ...]
    heard: tuple[tuple[Brand, Heard], ...]


@dataclass(frozen=True, slots=True)
class Read:
    """A letter, read once for all whom it came to."""

    letter: Letter
    now: datetime  # when it came
    found: tuple[Opened, Report | Wish] | None = None  # None: it cannot be read


@dataclass(frozen=True)
class Mailroom:
    """Reads letters to our addresses and records what they say."""

    catalogue: Catalogue
    addresses: Addresses = field(repr=False)
    ring: KeyRing = field(repr=False)
    authserv: str | None = None  # the name under which the operator's mail server says who is proven; None: nobody is

    def takes(self, recipient: str) -> bool:
        """True for an address of ours: a brand's mailto, or ``bounces`` at its domain, with anything behind a plus."""
        return bool(self._addressed(recipient))

    def read(self, letter: Letter, *, now: datetime) -> Said:
        """Return what a letter says to its one recipient. Never raises, whatever it holds."""
        return self.said(self.opened(letter, now=now), letter.recipient)

    def opened(self, letter: Letter, *, now: datetime) -> Read:
        """Return a letter, read. Never raises. May take a good part of a second of processor time: call it in a thread."""
        try:
            return self._opened(letter, now)
        except Exception as error:  # the mail library raises what it likes on hostile bytes, RecursionError among it
            return self._unreadable(error, letter, now)

    def said(self, read: Read, recipient: str) -> Said:
        """Return what a letter says to one of its recipients. Never raises. Takes milliseconds."""
        try:
            return self._said(read, recipient)
        except Exception as error:  # as above
            return self._unread(self._unreadable(error, read.letter, read.now), recipient)

    async def record(self, connection: Connection, said: Said, *, now: datetime) -> None:
        """Record what a letter says, in a transaction of its own; on return it has committed.

        Raises for trouble of the database alone: then nothing was kept. What the ledger refuses is kept aside.
        """
        try:
            await self._committed(connection, said, now)
        except Exception as error:
            if db.is_trouble(error):
                raise
            telemetry.log.error("mail_not_recorded", exc_info=error)
            await self._committed(connection, self._aside(said.raw, "not_recorded"), now)

    async def _committed(self, connection: Connection, said: Said, now: datetime) -> None:
        async with db.sure(connection), connection.transaction():
            added = await ledger.record(connection, said.stops, now=now)
            for brand, heard in said.heard:
                await self._inbox(brand).keep(connection, heard, now=now)
        for new in added:
            telemetry.count("presses", door=Door.MAIL, effect=Effect.STOP, new=str(new).lower())

    def _inbox(self, brand: Brand) -> Inbox:
        account = Account(name=NAME, provider=NAME, brand=brand.name)
        return Inbox(account, self.catalogue, self.addresses, self.ring, Channel.EMAIL, Door.MAIL)

    def _unreadable(self, error: Exception, letter: Letter, now: datetime) -> Read:
        if not isinstance(error, Unreadable):
            telemetry.log.warning("mail_unreadable", exc_info=error)
        return Read(letter, now)

    def _unread(self, read: Read, recipient: str) -> Said:
        """What cannot be read is kept aside. If it came to the very address that stops, it stops: nothing else is ever sent there."""
        raw = read.letter.raw
        said = self._aside(raw, "unreadable")
        token = self._token([[recipient]]) if self._stops(recipient) else None
        return replace(said, stops=tuple(self._of(token, sha256(raw).hexdigest()[:32], read.now))) if token else said

    def _aside(self, raw: bytes, reason: str) -> Said:
        return Said(raw, (), ((self.catalogue.brand[0], Heard(kept=(Kept(reason, raw[: reports.RAW]),))),))

    def _opened(self, letter: Letter, now: datetime) -> Read:
        opened = letters.opened(letter)
        return Read(letter, now, (opened, reports.read(opened, now=now) or wishes.read(opened)))

    def _said(self, read: Read, recipient: str) -> Said:
        if read.found is None:
            return self._unread(read, recipient)
        opened, found = read.found
        if isinstance(found, Report):
            heard = reports.heard(opened, found, recipient, self.ring)
            return Said(opened.raw, (), tuple(self._of_brands(opened, heard, recipient)))
        if not self._is_pressed(recipient, found):
            if reports.is_return(opened):
                return self._aside(opened.raw, "unreadable_return")
            if wishes.is_automatic(opened):
                return Said(opened.raw, (), ((self.catalogue.brand[0], Heard(counted={"automatic": 1})),))
        return self._wished(opened, found, recipient, read.now)

    # Whose report

    def _of_brands(self, opened: Opened, heard: Heard, recipient: str) -> Iterator[tuple[Brand, Heard]]:
        """Yield what was heard, with each brand that a complaint is about: its token's, else those that are written to there.

        Where there is a token it alone says whom: a report is written by anybody, who could name anyone in it.
        """
        heard = replace(heard, events=tuple(replace(event, address=None) if event.token else event for event in heard.events))
        tokens = [links.read(self.ring, event.token) for event in heard.events if event.token]
        about = [brand for token in tokens if (brand := self.catalogue.brand_of(token.scope))]
        first, *others = about or self._brands(opened, recipient)
        yield first, heard
        again = tuple(event for event in heard.events if event.kind in _BY_BRAND)
        for brand in others if again else ():
            yield brand, Heard(again)

    def _brands(self, opened: Opened, recipient: str) -> Sequence[Brand]:
        """Return the brands that a letter was written to; where no address of ours shows, every one: the doubt is how much to stop."""
        for text in (recipient, *self._shown(opened)):
            if found := self._addressed(text):
                return found
        return self.catalogue.brand

    def _addressed(self, recipient: str) -> Sequence[Brand]:
        domain = recipient.strip().strip("<>").rpartition("@")[2]
        return self._ours.get((_name(recipient), domain.lower().rstrip(".")), ())

    @cached_property
    def _ours(self) -> Mapping[tuple[str, str], Sequence[Brand]]:
        """The brands by the name and domain that they are written to."""
        found: dict[tuple[str, str], list[Brand]] = {}
        for brand in self.catalogue.brand:
            local, _, domain = brand.mailto.partition("@")
            for name in {local, BOUNCES}:
                found.setdefault((name, domain), []).append(brand)
        return found

    # A person's wish

    def _stops(self, recipient: str) -> bool:
        """True for an address that a person writes to in order to leave, false for the one that bounces come back to."""
        return _name(recipient) != BOUNCES or any(brand.mailto.startswith(f"{BOUNCES}@") for brand in self.catalogue.brand)

    def _is_pressed(self, recipient: str, wish: Wish) -> bool:
        """True if it came to the very address that stops, and says no more than that: then it counts even if a machine sent it."""
        return self._stops(recipient) and self._token([[recipient]]) is not None and wish.leaves and not wish.says_more

    def _wished(self, opened: Opened, wish: Wish, recipient: str, now: datetime) -> Said:
        pressed = list(self._pressed(opened, recipient))
        token = self._token(pressed) or self._lowered(opened, pressed)
        sender = None
        if token is None and wish.leaves:
            token = self._token(head for message in opened.carried for head in letters.in_headers(message))
            sender = None if token else self._sender(opened)
            if token is None and sender is None:  # whoever quotes a link holds it; but a proven sender speaks for the sender first
                token = self._token([opened.texts, [recipient]])
        stops: list[Change] = []
        if token is not None:
            stops = self._of(token, opened.digest, now)
        elif sender is not None:
            stops = self._changes(opened.digest, sender, [brand.number * 256 + MARKETING for brand in self._brands(opened, recipient)], now)
        reason = self._remains(pressed, wish, bool(stops), sender)
        heard = Heard(kept=(reports.aside(opened, reason),) if reason else (), counted={Kind.UNSUBSCRIBED: 1} if stops else {})
        return Said(opened.raw, tuple(stops), ((self._brands(opened, recipient)[0], heard),))

    def _remains(self, pressed: Iterable[Iterable[str]], wish: Wish, stopped: bool, sender: Address | None) -> str | None:
        """Return why a person should look at a letter; None if all was done that it asked."""
        if wish.says_more:
            return "words"
        if not stopped:
            return "sender_not_proven"
        lost = sender is not None and any(letters.tokenish(text) for place in pressed for text in place)
        return "token_unreadable" if lost else None  # somebody else's, it may be

    def _token(self, places: Iterable[Iterable[str]]) -> Token | None:
        word = letters.sure(self.ring, places)
        return links.read(self.ring, word) if word else None

    def _pressed(self, opened: Opened, recipient: str) -> Iterator[Sequence[str]]:
        """Yield where a token says by itself that its holder leaves: the address that stops, and the subject.

        In the address that bounces come back to it says nothing of the kind: notices of absence are sent there too.
        """
        yield [text for text in (recipient,) if self._stops(text)]
        yield [text for text in self._shown(opened) if self._stops(text)]
        yield [letters.decoded(field_of(opened.top, "subject"))]

    def _shown(self, opened: Opened) -> list[str]:
        """Return the addresses in the fields that say whom a letter is to."""
        return [address for name in _TO for text in fields(opened.top, name) for address in _ADDRESS.findall(text)][: letters.CANDIDATES]

    def _lowered(self, opened: Opened, pressed: Iterable[Iterable[str]]) -> Token | None:
        """Return the token that a relay wrote in small letters: its letters are those of one that we make for the very sender.

        Nobody else could know them: what is left of the tag has more than 90 bits.
        """
        words = (word for place in pressed for text in place for word in letters.tokenish(text))
        lowered = {word for word in islice(words, letters.CANDIDATES) if word == word.lower()}
        if not lowered:
            return None
        for text in senders.claimed(opened.top, opened.sender):
            key = self.addresses.heard(text, Channel.EMAIL).key
            for minted in self._minted(key):
                if any(hmac.compare_digest(minted.lower(), word) for word in lowered):
                    return links.read(self.ring, minted)
        return None

    def _minted(self, key: UUID) -> Iterator[str]:
        for brand_links in self._every_key:
            for scope in self.catalogue.scopes:
                if scope.is_topic and scope.stream is Stream.MARKETING:
                    yield brand_links.token(key, scope)

    @cached_property
    def _every_key(self) -> Sequence[Links]:
        """What mints under each key of the ring, the old ones too: links in people's inboxes were signed with them."""
        rings = (replace(self.ring, keys=(replace(key, state=KeyState.MINT),)) for key in self.ring.keys)
        return [Links(ring, "", "") for ring in rings]

    def _sender(self, opened: Opened) -> Address | None:
        text = senders.proven(opened.top, self.authserv)
        with suppress(Unreadable):
            return self.addresses.read(text) if text else None
        return None

    def _of(self, token: Token, digest: str, now: datetime) -> list[Change]:
        return self._changes(digest, Address(token.address, Channel.EMAIL), self.catalogue.left_by(token.scope), now)

    def _changes(self, digest: str, address: Address, scopes: Sequence[int], now: datetime) -> list[Change]:
        """Return a person's own stops. The letter names them, and the scope: one that is delivered twice is one."""
        return [Change(address, n, Cause.CHOICE, Effect.STOP, Door.MAIL, f"stop-{n}-{digest}", now) for n in scopes]


def _name(recipient: str) -> str:
    """Return what stands before the plus, or before the at, of an address."""
    local = recipient.strip().strip("<>").rpartition("@")[0]
    return local.partition("+")[0].lower()
