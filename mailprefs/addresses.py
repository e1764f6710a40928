"""Raw text becomes an Address: one canonical form, one key, in one place.

The libraries are imported in the slow path alone, so that minting for millions stays quick and loads nothing.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

from mailprefs.errors import Unreadable
from mailprefs.words import Address, Channel

LONGEST = 254  # octets of an address, RFC 5321 §4.5.3.1.3 and its errata
LONGEST_LOCAL = 64  # octets before the @
KEY, DIGEST = 16, 32  # bytes of a key, and of the digest whose beginning it is
_NONE, _NOBODY = bytes(DIGEST), bytes(KEY)

# Nearly every address: ASCII, no quotes, no A-label, no special-use domain. What it passes, the library passes unchanged (a test).
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"(?![A-Za-z0-9]{2}--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SPECIAL = r"(?:arpa|invalid|local|localhost|onion|test)"
_PLAIN = re.compile(
    rf"(?=.{{1,{LONGEST}}}\Z)(?=[^@]{{1,{LONGEST_LOCAL}}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+(?!{_SPECIAL}\Z){_LABEL}(?<=[A-Za-z])\Z",
    re.IGNORECASE | re.ASCII,  # without ASCII, the Kelvin sign would count as a k
)
# What nobody sees, and the library lets through: two who look alike would be two (Default_Ignorable_Code_Point of Unicode's UCD).
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]")
_PHONE = re.compile(r"\+[0-9 ().\-]{6,24}\Z")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of many addresses, 16 bytes each, b"" where there is none. Kept as the digests that they begin: to cut each costs more."""

    digests: bytes = field(repr=False)

    def __len__(self) -> int:
        return len(self.digests) // DIGEST

    def __getitem__(self, n: int) -> bytes:
        found = self.digests[n * DIGEST : n * DIGEST + KEY]
        return b"" if found == _NOBODY else found

    def __iter__(self) -> Iterator[bytes]:
        return (self[n] for n in range(len(self)))

    def heads(self) -> array[int]:
        """Return the first 32 bits of each, as the machine reads them."""
        return array("I", self.digests)[:: DIGEST // 4]


class Addresses:
    """Reads addresses and gives each its key, under one digest key that never rotates."""

    def __init__(self, digest: bytes) -> None:
        self._pads = {channel: _pads(digest, channel) for channel in Channel}

    def read(self, text: str) -> Address:
        """Return the address that a text spells, e-mail or phone number. Raises Unreadable, which never repeats the text."""
        trimmed = text.strip()
        if "@" in trimmed:
            return self._found(Channel.EMAIL, email(trimmed), trimmed)
        if _PHONE.match(trimmed):
            number = phone(trimmed)
            return self._found(Channel.SMS, number, number)
        raise Unreadable("neither an e-mail address nor a phone number with its country code")

    def readable(self, text: str) -> bool:
        """True for a text that spells an address we would accept."""
        try:
            self.read(text)
        except Unreadable:
            return False
        return True

    def heard(self, text: str, channel: Channel | None = None) -> Address:
        """Return the address a provider reports, whatever it looks like: what we would not accept is keyed as it is spelled.

        ``channel`` is what the provider reaches people by: whatever it names is reached so. None where nobody knows but the spelling.
        Its text is kept only where it is printable and no longer than an address can be; else it is known by its key alone.
        """
        if channel is not Channel.SMS and _PLAIN.match(text):  # nearly every one
            return self._found(Channel.EMAIL, text.lower(), text)
        spelled = _spelled(text)
        if channel in (None, spelled):
            with suppress(Unreadable):
                return self.read(text)
        return self._unaccepted(channel or spelled, text.strip())

    def asked(self, text: str) -> tuple[Address, bool]:
        """Return the address that an application asks about, and whether we would accept it; if not, as a provider's report of it."""
        try:
            return self.read(text), True
        except Unreadable:
            return self._unaccepted(_spelled(text), text.strip()), False

    def _unaccepted(self, channel: Channel, trimmed: str) -> Address:
        found = self._found(channel, trimmed.casefold(), trimmed)
        return found if len(trimmed) <= LONGEST and trimmed.isprintable() else replace(found, text=None)

    def key(self, channel: Channel, canonical: str) -> UUID:
        """Return the key of a canonical address: 16 bytes of HMAC-SHA256 over channel, NUL and text (docs/state.md §1)."""
        begun, around = self._pads[channel]
        within = begun.copy()
        within.update(canonical.encode("utf-8", "surrogatepass"))
        whole = around.copy()
        whole.update(within.digest())
        return UUID(bytes=whole.digest()[:KEY])

    def keys(self, canonical: Iterable[bytes]) -> Keys:
        """Return the keys of canonical e-mail addresses, in bulk; none of b""."""
        inner, outer = (pad.copy for pad in self._pads[Channel.EMAIL])
        found = []
        for each in canonical:  # as `key` does it
            if each:
                within, around = inner(), outer()
                within.update(each)
                around.update(within.digest())
                found.append(around.digest())
            else:
                found.append(_NONE)
        return Keys(b"".join(found))

    def _found(self, channel: Channel, canonical: str, text: str) -> Address:
        return Address(self.key(channel, canonical), channel, text)


def _spelled(text: str) -> Channel:
    trimmed = text.strip()
    return Channel.SMS if trimmed.startswith("+") and "@" not in trimmed else Channel.EMAIL


def email(text: str) -> str:
    """Return the canonical form of an e-mail address: folded local part, domain as lower-case A-label. Raises Unreadable."""
    if _PLAIN.match(text):
        return text.lower()
    return _unusual_email(text)


def phone(text: str) -> str:
    """Return a phone number in E.164. Raises Unreadable."""
    import phonenumbers

    try:
        number = phonenumbers.parse(text)
    except phonenumbers.NumberParseException:
        raise Unreadable("not a phone number") from None
    if not phonenumbers.is_possible_number(number):
        raise Unreadable("not a possible phone number")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _unusual_email(text: str) -> str:
    from email_validator import EmailNotValidError, validate_email

    try:
        if len(text.encode()) > LONGEST:  # before any parsing: bounded work for hostile input
            raise Unreadable("longer than an address can be")
        # the library's A-labels are idna.encode(domain, uts46=True), which takes long enough once (a test)
        domain = validate_email(text, strict=True, check_deliverability=False).ascii_domain
    except (EmailNotValidError, UnicodeError, ValueError):  # the library's message repeats the address
        raise Unreadable("not an e-mail address") from None
    local = text.rpartition("@")[0]
    if len(local.encode()) > LONGEST_LOCAL:  # the library counts characters
        raise Unreadable("longer than an address can be")
    if _UNSEEN.search(local):
        raise Unreadable("with a character in it that nobody sees")
    return f"{_folded(local)}@{domain}"


def _folded(local: str) -> str:
    """Folding undoes NFKC for 26 letters, such as ΐ and ǰ: without the second pass their capitals would be another address."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", local).casefold())


class Context(Protocol):
    """What a keyed HMAC context can do."""

    def copy(self) -> Context: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


def halves(key: bytes, channel: Channel) -> tuple[bytes, bytes]:
    """Return what the two halves of HMAC-SHA256 (RFC 2104 §2) begin with for an address that is reached so."""
    whole = (key if len(key) <= 64 else sha256(key).digest()).ljust(64, b"\0")
    return bytes(b ^ 0x36 for b in whole) + f"{channel}\0".encode(), bytes(b ^ 0x5C for b in whole)


def _pads(key: bytes, channel: Channel) -> tuple[Any, Any]:
    """Return both halves, begun: to copy them is quicker than the whole."""
    inner, outer = halves(key, channel)
    return sha256(inner), sha256(outer)


def keyed(key: bytes) -> Context:
    """Return a keyed HMAC-SHA256 context to copy for each message: the C object itself where hmac keeps one, which is quickest."""
    whole: Any = hmac.new(key, digestmod=sha256)
    context: Context = getattr(whole, "_hmac", None) or whole
    return context
