"""Keys, tokens, headers. Opens no socket; a link minted here stops mail for as long as its key is kept.

Bytes and numbers: ``docs/tokens.md``. A token is ``b64url(key id · scope · address key) "." b64url(tag)``, 45 characters;
the tag is the first 13 bytes of an HMAC-SHA256 under a subkey of the ring's key.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import struct
from base64 import b64decode, b64encode
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import UUID, SafeUUID

from itsdangerous import Signer, URLSafeTimedSerializer
from itsdangerous.encoding import want_bytes
from itsdangerous.signer import SigningAlgorithm

from mailprefs import bodies
from mailprefs.addresses import keyed
from mailprefs.errors import Forged, Misconfigured, NotMintable, Unguarded
from mailprefs.words import Stream

if TYPE_CHECKING:  # email.message brings in socket
    from email.message import Message

LENGTH = 45  # characters of a token
LONGEST_WORD = 74  # octets of a bracketed header word that every email.policy leaves alone
TAG = 13  # bytes: 104 bits, and its base64 ends in A, Q, g or w, which no linkifier cuts off
ONE_CLICK = "List-Unsubscribe=One-Click"  # RFC 8058 §3.1

_HEAD = struct.Struct(">BH")  # key id, scope
_BODY = struct.Struct(">BH16s")  # and the address
_URLSAFE, _STANDARD = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")
# of a UUID that is made from its bytes
_new, _set_int, _set_is_safe, _UNKNOWN = object.__new__, vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__, SafeUUID.unknown
_URL = re.compile(r"https://[^/?#@\s]+/u/([^/?#\s]+)\Z")  # nothing before the host's path, nothing after the token: no redirector
_WORD = re.compile(r"<\s*(https?:[^>]*?)\s*>", re.IGNORECASE)
_NAMEABLE = re.compile(r'(?![\w+/-]{43}=?\Z)[^"{\x00-\x1f]{1,200}\Z')  # a path to name in an error: not a secret given in its place


class KeyState(StrEnum):
    """What a key may still do. No state keeps an old link from stopping mail."""

    MINT = "mint"
    VERIFY = "verify"
    COMPROMISED = "compromised"  # may stop, nothing else


@dataclass(frozen=True, slots=True)
class Key:
    """One signing key of the ring."""

    id: int
    secret: bytes = field(repr=False)
    state: KeyState
    created: date


@dataclass(frozen=True)
class KeyRing:
    """The digest key, which never rotates, and the signing keys: many verify, one mints."""

    digest: bytes = field(repr=False)
    keys: tuple[Key, ...]
    export: bytes = field(repr=False)  # Ed25519 seed

    @cached_property
    def minting(self) -> Key:
        return next(key for key in self.keys if key.state is KeyState.MINT)

    @cached_property
    def fingerprints(self) -> Mapping[int, bytes]:
        """What tells this ring from another without giving it away: by key id, and under -1 the digest key."""
        secrets = {-1: self.digest, **{key.id: key.secret for key in self.keys}}
        return {number: _subkey(secret, "mailprefs/fingerprint/1")[:16] for number, secret in secrets.items()}

    def key(self, number: int) -> Key | None:
        return next((key for key in self.keys if key.id == number), None)

    def signer(self, number: int) -> Signer | None:
        """Return the signer of unsubscribe tokens under one key, None if the ring does not hold it."""
        return self._signers.get(number)

    @cached_property
    def _signers(self) -> Mapping[int, Signer]:
        return {key.id: TokenSigner(_subkey(key.secret, "mailprefs/u/1")) for key in self.keys}

    def timed(self, kind: str) -> URLSafeTimedSerializer:
        """Return the serializer of short-lived values of one kind, such as "undo". Loading wants ``max_age``, always."""
        trusted = [key for key in self.keys if key.state is not KeyState.COMPROMISED]
        trusted.sort(key=lambda key: key.state is KeyState.MINT)  # the last one signs
        return URLSafeTimedSerializer(
            [_subkey(key.secret, f"mailprefs/{kind}/1") for key in trusted],
            salt=f"mailprefs/{kind}",
            signer_kwargs={"digest_method": sha256, "key_derivation": "hmac"},
        )

    def retired(self, number: int, state: KeyState = KeyState.VERIFY) -> KeyRing:
        """Return the ring with one key only verifying or, where it leaked, compromised. Raises Misconfigured if nothing would mint."""
        key = self.key(number)
        if key is None:
            raise Misconfigured(f"the key ring has no key {number}")
        if key.state is KeyState.MINT:
            raise Misconfigured(f"key {number} is the one that mints; make a new one first: mailprefs keys new")
        if key.state is KeyState.COMPROMISED:
            return self  # what has leaked is never trusted again
        return replace(self, keys=tuple(replace(each, state=state) if each is key else each for each in self.keys))

    def renewed(self, today: date) -> KeyRing:
        """Return the ring with a new minting key; the old one goes on verifying."""
        number = max((key.id for key in self.keys), default=0) + 1
        if number > 255:
            raise Misconfigured("all 255 key ids have been used")
        old = tuple(replace(key, state=KeyState.VERIFY) if key.state is KeyState.MINT else key for key in self.keys)
        return replace(self, keys=(*old, Key(number, secrets.token_bytes(32), KeyState.MINT, today)))

    def dumped(self) -> str:
        """Return the key ring file, ready to be kept with mode 0600."""
        keys = [{"id": k.id, "secret": _b64(k.secret), "state": k.state.value, "created": k.created.isoformat()} for k in self.keys]
        return json.dumps({"digest": _b64(self.digest), "keys": keys, "export": _b64(self.export)}, indent=2) + "\n"

    @classmethod
    def new(cls, today: date) -> KeyRing:
        """Return a fresh ring with one minting key."""
        return cls(secrets.token_bytes(32), (), secrets.token_bytes(32)).renewed(today)

    @classmethod
    def load(cls, source: str) -> KeyRing:
        """Read a key ring from a file, or from its JSON. Raises Misconfigured, which never repeats a secret."""
        if source.lstrip().startswith("{"):
            return cls.parse(source)
        path = Path(source)
        named = f"the key ring {path}" if _NAMEABLE.match(source) else "the key ring that MAILPREFS_KEYS names"
        try:
            if path.stat().st_mode & 0o077:
                raise Misconfigured(f"{named} is open to others. Close it: chmod 600 {path}")
            return cls.parse(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            raise Misconfigured(
                f"{named} does not exist. It lies beside mailprefs.toml: go there, or let MAILPREFS_KEYS name it. If it is lost, "
                "restore it from your copy; only before the very first start, `mailprefs keys new` makes one."
            ) from None
        except (OSError, ValueError) as error:  # ValueError: not ASCII, or a NUL in the path
            raise Misconfigured(f"{named} cannot be read: {type(error).__name__}") from None

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read a key ring from its JSON. Raises Misconfigured."""
        try:
            raw = json.loads(text)
            keys = tuple(_key(entry) for entry in raw["keys"])
            ring = cls(_secret(raw["digest"]), keys, _secret(raw["export"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Misconfigured("the key ring is not in its form: digest, keys (id, secret, state, created), export") from None
        if len({key.id for key in keys}) != len(keys) or sum(key.state is KeyState.MINT for key in keys) != 1:
            raise Misconfigured("the key ring wants distinct key ids and exactly one key with the state mint")
        return ring


class _Truncated(SigningAlgorithm):
    """HMAC-SHA256 cut to 13 bytes, as ``Signer`` signs by itself: what ``TokenSigner.sign``, which goes past it, must come to."""

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        context = _context(key).copy()
        context.update(value)
        return context.digest()[:TAG]


class TokenSigner(Signer):
    """Signs unsubscribe tokens: SHA-256 over our own subkey, nothing derived from it. One keyed context, copied for each message."""

    def __init__(self, subkey: bytes) -> None:
        super().__init__(subkey, key_derivation="none", digest_method=sha256, algorithm=_Truncated())
        self._copy = _context(subkey).copy

    def sign(self, value: str | bytes) -> bytes:
        """Return the value, a dot, and its tag: the bytes of ``Signer.sign`` (a test), in half its time."""
        body = value if type(value) is bytes else want_bytes(value)
        context = self._copy()
        context.update(body)
        return body + b"." + b2a_base64(context.digest()[:TAG], newline=False).translate(_URLSAFE, b"=")


class Token(NamedTuple):
    """What an unsubscribe link says: whose, and what it stops."""

    key_id: int
    scope: int
    address: UUID


@dataclass(frozen=True, slots=True)
class Minted:
    """The body link of one message and its three headers, made by one function so that they cannot differ."""

    url: str
    list_unsubscribe: str
    list_unsubscribe_post: str
    list_id: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name, for any mail library."""
        return {
            "List-Unsubscribe": self.list_unsubscribe,
            "List-Unsubscribe-Post": self.list_unsubscribe_post,
            "List-Id": self.list_id,
        }

    def put_on(self, message: Message[Any, Any]) -> None:
        """Set the three headers on a message, in place of any it had: RFC 2369 §3 allows one of each."""
        for name, value in self.headers.items():
            del message[name]
            message[name] = value


class Mintable(Protocol):
    """What a link needs to know of a topic: its permanent number, its stream, and the name its List-Id goes by."""

    @property
    def number(self) -> int: ...
    @property
    def stream(self) -> Stream | None: ...
    @property
    def name(self) -> str: ...
    @property
    def sensitive(self) -> bool: ...


class Sender(Protocol):
    """What links need to know of a brand."""

    @property
    def number(self) -> int: ...
    @property
    def link_host(self) -> str: ...
    @property
    def mailto(self) -> str: ...


@dataclass(frozen=True)
class Links:
    """Mints the links of one brand."""

    ring: KeyRing = field(repr=False)
    host: str
    mailto: str

    def mint(self, address: UUID, topic: Mintable) -> Minted:
        """Return the body link and the headers for one recipient of a topic. Raises NotMintable for a transactional one."""
        return self._minted(self.token(address, topic), _list_id(topic, self.host))

    def token(self, address: UUID, topic: Mintable) -> str:
        """Return the signed token alone. Raises NotMintable."""
        mintable(topic)
        key = self.ring.minting
        return self.ring._signers[key.id].sign(_b64url(_BODY.pack(key.id, topic.number, address.int.to_bytes(16)))).decode()

    def stream(self, addresses: Iterable[UUID], topic: Mintable) -> Iterator[str]:
        """Yield a token for each address, in order: the same bytes as :meth:`token`, for millions. Raises NotMintable at once."""
        mintable(topic)
        return self._streamed(addresses, topic)

    def minted_stream(self, addresses: Iterable[UUID], topic: Mintable) -> Iterator[Minted]:
        """Yield the body link and headers for each address, in order. Raises NotMintable at once."""
        list_id = _list_id(topic, self.host)
        return (self._minted(token, list_id) for token in self.stream(addresses, topic))

    def url(self, token: str) -> str:
        return f"https://{self.host}/u/{token}"

    def word(self, token: str) -> str:
        """Return the mailto form of a token: ``mailto:u+TOKEN@host``."""
        local, _, host = self.mailto.partition("@")
        return f"mailto:{local}+{token}@{host}"

    @property
    def longest(self) -> int:
        """Octets of the longest bracketed header word it mints. Over 74, a mail library may encode it beyond recognition."""
        token = "x" * LENGTH
        return max(len(self.url(token)), len(self.word(token)))

    def _minted(self, token: str, list_id: str) -> Minted:
        url = self.url(token)
        return Minted(url, f"<{url}>, <{self.word(token)}>", ONE_CLICK, list_id)

    def _streamed(self, addresses: Iterable[UUID], topic: Mintable) -> Iterator[str]:
        key = self.ring.minting
        head = _HEAD.pack(key.id, topic.number)
        copy = _context(_subkey(key.secret, "mailprefs/u/1")).copy
        for address in addresses:
            body = b2a_base64(head + address.int.to_bytes(16), newline=False).translate(_URLSAFE, b"=")
            context = copy()
            context.update(body)
            yield (body + b"." + b2a_base64(context.digest()[:TAG], newline=False).translate(_URLSAFE, b"=")).decode()


def read(ring: KeyRing, text: str) -> Token:
    """Return what a token says. Raises Forged for every text but the one canonical spelling, whatever the reason."""
    if len(text) != LENGTH or not text.isascii():
        raise Forged
    spelled = text.encode()
    body = spelled[:26]
    try:
        key_id, scope, address = _BODY.unpack(a2b_base64(body.translate(_STANDARD) + b"=="))
    except (ValueError, struct.error):
        raise Forged from None
    signer = ring.signer(key_id)
    if signer is None or not hmac.compare_digest(signer.sign(body), spelled):
        raise Forged
    return tuple.__new__(Token, (key_id, scope, _uuid(address)))


def _uuid(raw: bytes) -> UUID:
    """Return what ``UUID(bytes=raw)`` returns (a test), which takes as long as the signature: it asks which of its six forms was meant."""
    made = _new(UUID)
    _set_int(made, int.from_bytes(raw))
    _set_is_safe(made, _UNKNOWN)
    return made


def token_in(url: str) -> str:
    """Return what stands in the token's place of a link of ours; empty for any other text, such as a redirector that ends in one."""
    found = _URL.match(url)
    return found[1] if found else ""


def guard(message: Message[Any, Any], *, stream: Stream, ring: KeyRing) -> None:
    """Refuse a marketing message that lacks its headers or, in any text part, its visible link. Raises Unguarded, which says what.

    One function minted both, so both must be the same link; RFC 8058 §3.1 for the headers, CAN-SPAM and the mailbox providers for the body.
    """
    if stream is Stream.TRANSACTIONAL:
        return
    url = _header_url(message)
    try:
        read(ring, token_in(url))
    except Forged:
        raise Unguarded("the List-Unsubscribe link was not minted by this key ring") from None
    parts = list(bodies.shown(message))
    if not parts:
        raise Unguarded("the message has no text part, so no visible link")
    for part in parts:
        if not bodies.shows(part, url):
            raise Unguarded(f"the {part.get_content_type()} part lacks the visible unsubscribe link")


def _header_url(message: Message[Any, Any]) -> str:
    for name in ("List-Unsubscribe", "List-Unsubscribe-Post"):
        if len(message.get_all(name, [])) != 1:
            raise Unguarded(f"the message wants exactly one {name} header")
    if str(message["List-Unsubscribe-Post"]).strip() != ONE_CLICK:
        raise Unguarded(f"List-Unsubscribe-Post must be {ONE_CLICK}")
    urls = _WORD.findall(str(message["List-Unsubscribe"]))
    if len(urls) != 1 or not urls[0].startswith("https:"):
        raise Unguarded("List-Unsubscribe wants exactly one https link")
    return str(urls[0])


def by_brand(brands: Iterable[Sender], ring: KeyRing) -> dict[int, Links]:
    """Return what mints the links of each brand, by its number."""
    return {brand.number: Links(ring, brand.link_host, brand.mailto) for brand in brands}


def mintable(topic: Mintable) -> None:
    """Raise NotMintable for a topic that has no links."""
    if topic.stream is not Stream.MARKETING:
        raise NotMintable


def _list_id(topic: Mintable, host: str) -> str:
    """Name the list in a domain of the sender's (RFC 2919). A sensitive topic's mail goes by its brand alone."""
    brand, _, name = topic.name.partition("/")
    return f"<{brand if topic.sensitive or not name else name}.{host.partition(':')[0]}>"


_context = cache(keyed)


def _subkey(secret: bytes, kind: str) -> bytes:
    """A token of one kind never works as another."""
    return hmac.digest(secret, kind.encode(), "sha256")


def _b64url(raw: bytes) -> bytes:
    return b2a_base64(raw, newline=False).translate(_URLSAFE, b"=")


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _secret(text: str) -> bytes:
    raw = b64decode(text, validate=True)
    if len(raw) != 32:
        raise ValueError("a key of the ring is 32 bytes")
    return raw


def _key(entry: Mapping[str, Any]) -> Key:
    number = entry["id"]
    if type(number) is not int or not 0 <= number <= 255:
        raise ValueError("a key id is 0 to 255")
    return Key(number, _secret(entry["secret"]), KeyState(entry["state"]), date.fromisoformat(entry["created"]))
