"""A message that came by mail, opened: its parts, its fields, and the tokens of ours in it. Bytes in; no database, no network.

Anyone may have written it. What is looked at is bounded in octets, parts and depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, message_from_string, policy
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import cached_property
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

from mailprefs import bodies, links
from mailprefs.errors import Forged, Unreadable
from mailprefs.links import KeyRing
from mailprefs.providers.facts import EARLIEST

if TYPE_CHECKING:
    Part = Message[Any, Any]

READ = 256 * 1024  # octets that are looked at: what a mail system reports stands before the message that it returns
NESTED = 50  # boundaries named in them: the parser holds every line against all that are open
PARTS = 100  # of a message, outside of those it carries
LONGEST_FIELD = 4096  # characters of a field that are looked at
LONGEST_SUBJECT = 1000  # characters: the library takes the square of their number over encoded words that do not end
CANDIDATES = 100  # words of one place that may be tokens

FORM = r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{26}\.[A-Za-z0-9_-]{18}(?![A-Za-z0-9_-])"  # of a token, whoever made it
_TOKEN = re.compile(FORM)
_MESSAGE_ID = re.compile(r"<[^<>@\s]+@[^<>@\s]+>")
_HEADERS_ALONE = ("text/rfc822-headers", "message/global-headers")
_REPORTS = ("message/delivery-status", "message/global-delivery-status", "message/feedback-report", "message/disposition-notification")


class _Cut(policy.Compat32):
    """The library's oldest policy, for which a field ends where we stop looking: it takes the square of the number of parameters."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:LONGEST_FIELD]


CUT = _Cut()  # what hostile messages are parsed by


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it came, and what its envelope said."""

    raw: bytes = field(repr=False)
    recipient: str = field(default="", repr=False)  # "": not known
    sender: str | None = field(default=None, repr=False)  # "": the null path; None: not known


@dataclass(frozen=True)  # no slots: what has been read in it is kept
class Opened:
    """A letter, parsed, whoever of its recipients it came to."""

    raw: bytes = field(repr=False)
    sender: str | None = field(repr=False)  # as in Letter
    top: Part
    parts: tuple[Part, ...]  # the top and what stands in it, but not in the messages it carries
    carried: tuple[Part, ...]  # the messages it returns or forwards; of some the headers alone

    def part(self, *kinds: str) -> Part | None:
        """Return the first part of one of these content types."""
        return next((part for part in self.parts if part.get_content_type() in kinds), None)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The texts that its reader is shown."""
        return tuple(bodies.text_of(part) for part in islice(bodies.shown(self.top), PARTS))

    @cached_property
    def digest(self) -> str:
        """What the letter is known by: a digest of its Message-ID, or of its octets where it has none of its own."""
        named = fields(self.top, "message-id")
        own = named[0].encode("utf-8", "surrogateescape") if len(named) == 1 and _MESSAGE_ID.fullmatch(named[0]) else self.raw
        return sha256(own).hexdigest()[:32]

    @property
    def comes_back(self) -> bool:
        """True if it came from no mailbox: a mail server wrote it (RFC 5321 §4.5.5)."""
        paths = fields(self.top, "return-path")[:1] if self.sender is None else [self.sender]
        return any(path in ("", "<>") for path in paths)


def opened(letter: Letter) -> Opened:
    """Return a letter, parsed. Raises Unreadable for what is nested beyond reason."""
    head = letter.raw[:READ]
    if head.lower().count(b"boundary") > NESTED:
        raise Unreadable("more boundaries than any letter needs")
    try:
        top = message_from_bytes(head, policy=CUT)
    except RecursionError:
        raise Unreadable("messages in messages beyond reason") from None
    parts = tuple(islice(_flat(top), PARTS))
    return Opened(letter.raw, letter.sender, top, parts, tuple(found for part in parts if (found := _carried(part)) is not None))


def _flat(top: Part) -> Iterator[Part]:
    waiting = [top]
    while waiting:
        part = waiting.pop()
        yield part
        if part.get_content_maintype() == "multipart":
            waiting.extend(reversed(_inside(part)))


def _carried(part: Part) -> Part | None:
    kind = part.get_content_type()
    if kind in _HEADERS_ALONE:
        return message_from_string(_text(part), policy=CUT)
    if part.get_content_maintype() != "message" or kind in _REPORTS:
        return None
    inside = _inside(part)
    if not inside:
        return None
    return message_from_string(_text(part), policy=CUT) if _is_encoded(part) else inside[0]


def blocks(part: Part) -> list[Part]:
    """Return the groups of fields in a part that reports something (RFC 3464 §2.1, RFC 5965 §3), the empty ones left out."""
    if part.is_multipart() and part.get_content_type() == "message/delivery-status" and not _is_encoded(part):
        found = _inside(part)
    else:
        texts = (text.strip("\r\n") for text in re.split(r"\r?\n[ \t]*\r?\n", _text(part)))
        found = [message_from_string(text, policy=CUT) for text in texts if ":" in text]
    return [block for block in found if block.keys()]


def _inside(part: Part) -> list[Part]:
    """Return the parts of a part. Asking one that has none for its payload can raise."""
    payload: Any = part.get_payload() if part.is_multipart() else []
    return list(payload)


def _is_encoded(part: Part) -> bool:
    """RFC 2046 §5.2.1 forbids it for most messages within messages; gateways do it all the same."""
    return any(value.lower() in ("base64", "quoted-printable") for value in fields(part, "content-transfer-encoding"))


def _text(part: Part) -> str:
    """Return what stands in a part of type message, or the text of any other, undone from its encoding."""
    if not part.is_multipart():
        return bodies.text_of(part)
    whole = "\n\n".join(_written(inner) for inner in _inside(part))
    if not _is_encoded(part):
        return whole
    undone = Message()
    undone["Content-Type"] = "text/plain; charset=utf-8"
    undone["Content-Transfer-Encoding"] = field_of(part, "content-transfer-encoding")
    undone.set_payload(whole)
    return bodies.text_of(undone)


def _written(message: Part) -> str:
    """Return a message as text. The library's own generator refuses heads that are odd."""
    head = "".join(f"{name}: {_readable(str(value))}\n" for name, value in message.raw_items())
    body = "" if message.is_multipart() else bodies.text_of(message).strip("\r\n")
    return f"{head}\n{body}" if head and body else head or body


def fields(part: Part, name: str) -> list[str]:
    """Return the values of a field, unfolded, in their order. ``name`` is in lower case."""
    return [_unfolded(value) for key, value in part.raw_items() if key.lower() == name]


def field_of(part: Part, name: str) -> str:
    """Return the first value of a field, "" where there is none."""
    return next(iter(fields(part, name)), "")


def _unfolded(value: object) -> str:
    return " ".join(_readable(str(value)[:LONGEST_FIELD]).split())


def _readable(text: str) -> str:
    """The parser escapes what is not ASCII in a head; RFC 6532 says that it is UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def decoded(value: str) -> str:
    """Return the beginning of a field's value without encoded words (RFC 2047); as it stands where they cannot be read."""
    with suppress(Exception):  # the library raises what it likes on hostile words
        return str(make_header(decode_header(value[:LONGEST_SUBJECT])))
    return value[:LONGEST_SUBJECT]


def moment(value: str, received_at: datetime) -> datetime:
    """Return the moment of a Date field. One that is none, too old or after now is the time of receipt."""
    with suppress(Exception):  # as above
        found = parsedate_to_datetime(value)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        return found if EARLIEST <= found <= received_at else received_at
    return received_at


def tokenish(text: str) -> list[str]:
    """Return the words of a text that have the form of a token, whether or not we made them."""
    return [found[0] for found in islice(_TOKEN.finditer(text), CANDIDATES)]


def sure(ring: KeyRing, places: Iterable[Iterable[str]]) -> str | None:
    """Return the token in the first place where tokens of ours name one person alone. A place that names several cannot tell whose."""
    for place in places:
        found: dict[object, str] = {}
        for word in islice((word for text in place for word in tokenish(text)), CANDIDATES):
            with suppress(Forged):
                found.setdefault(links.read(ring, word).address, word)
        if len(found) == 1:
            return next(iter(found.values()))
    return None


def in_headers(message: Part) -> Iterator[list[str]]:
    """Yield the places of a message's head where tokens stand: first the field that is for them, then all others."""
    yield fields(message, "list-unsubscribe")
    yield [_unfolded(value) for _, value in message.raw_items()]
