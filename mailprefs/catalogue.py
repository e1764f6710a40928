"""Brands, topics and accounts, read from ``mailprefs.toml``. Secrets are never in it, only the names of their variables."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from mailprefs import logos, mistakes
from mailprefs.errors import Misconfigured, UnknownScope
from mailprefs.words import ADS, FIRST_TOPIC, LAST_TOPIC, MARKETING, ROOT, TRANSACTIONAL, Channel, Stream, Wanted

RESERVED = ("marketing", "transactional", "ads")
MAIL = "mail"  # what comes by plain mail is counted and kept under this name
_NAME = r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$"
_COLOUR = r"^#[0-9a-fA-F]{6}$"
_HOST = r"^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?$"
_SENDER = r"^(?:[^<>@\"\x00-\x1f]{1,100} <[!-~]+@[a-z0-9.-]+>|[!-~]+@[a-z0-9.-]+)$"  # of our own mails, with a name or without
_SPAN = re.compile(r"([0-9]{1,6})(ms|s|m|h|d)")
_WANTS = {Wanted.OPT_OUT: 0, Wanted.OPT_IN: 1, Wanted.DOUBLE_OPT_IN: 2}
_TRANSLATED = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")))  # RFC 6052, 8215, 2765: IPv4 behind them
_NOBODYS = tuple(map(IPv6Network, ("3fff::/20", "5f00::/16")))  # RFC 9637, 9602: newer than what Python knows of
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}  # in seconds


def _span(value: object) -> object:
    """Read "15m" as a span of time. A bare number has no unit and is refused."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not (found := _SPAN.fullmatch(value)):
        raise mistakes.wrong('wants a span such as "15m", "2s" or "1h"')
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _titles(value: object) -> object:
    return {"en": value} if isinstance(value, str) else value


Name = Annotated[str, Field(pattern=_NAME)]
Number = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]  # so that a secret written here by mistake is refused unread
Span = Annotated[timedelta, BeforeValidator(_span)]
Words = Annotated[Mapping[str, str], BeforeValidator(_titles), Field(min_length=1)]  # language → text


def _drawn(path: str, info: ValidationInfo) -> str:
    """Return the markup of the logo in a file beside the catalogue; none of a catalogue that is no file."""
    if info.context is None:
        return ""
    try:
        return logos.clean((info.context / path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise mistakes.wrong(f"'{path}' cannot be read: {type(error).__name__}") from None
    except ValueError as error:
        raise mistakes.wrong(f"'{path}' {error}") from None


def _ours(code: str) -> str:
    """Refuse a language that the pages do not speak."""
    from mailprefs import languages  # what it stands on takes a while to load, and few catalogues name a language

    if code not in languages.known():
        raise mistakes.wrong(f"wants one of {', '.join(languages.known())}")
    return code


Logo = Annotated[str, AfterValidator(_drawn)]  # the name of a file, read as what stands in a page


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Topic(_Entry):
    """One thing a brand writes about: the unit a person can choose."""

    name: Name
    title: Words
    number: Number = Field(ge=FIRST_TOPIC, le=LAST_TOPIC)
    stream: Stream = Stream.MARKETING
    consent: Wanted = Wanted.OPT_OUT
    often: Words | None = None
    sensitive: Flag = False
    retired: Flag = False

    @model_validator(mode="after")
    def _sound(self) -> Topic:
        if self.name in RESERVED:
            raise mistakes.wrong(f"'{self.name}' is a reserved name", "name")
        if self.stream is Stream.TRANSACTIONAL and self.consent is not Wanted.OPT_OUT:
            raise mistakes.wrong("a transactional topic asks for no consent", "consent")
        return self


class Brand(_Entry):
    """A sender as its recipients know it."""

    name: Name
    title: str = Field(min_length=1)
    number: Number = Field(ge=1, le=255)
    link_host: str = Field(pattern=_HOST)
    mailto: str = Field(pattern=r"^[a-z0-9]+@[a-z0-9.-]+$")
    postal_address: str = Field(min_length=1)
    ads: Flag = False
    complaint: Literal["final", "liftable"] = "final"
    logo: Logo | None = None
    colour: str = Field(default="#0f5f63", pattern=_COLOUR)
    colour_dark: str | None = Field(default=None, pattern=_COLOUR)  # in the dark; without it, the same
    language: Annotated[str, AfterValidator(_ours)] = "en"  # of its pages, for who asks for none of ours
    from_: str | None = Field(default=None, alias="from", pattern=_SENDER)
    mailer: Name | None = None  # the webhook that mails what we write, in place of SMTP
    page: Literal["open", "private"] = "open"
    continues: Words | None = None
    kinds: Words | None = None
    topic: tuple[Topic, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Brand:
        if self.name in RESERVED:
            raise mistakes.wrong(f"'{self.name}' is a reserved name", "name")
        _once([t.name for t in self.topic], "topic", "name")
        _once([t.number for t in self.topic], "topic", "number")
        return self


class Account(_Entry):
    """One credential with one provider, and which of our scopes are mapped to what over there."""

    name: Name
    provider: Name
    brand: Name
    secrets: Mapping[str, Variable] = Field(default_factory=dict)  # secret → the environment variable that holds it
    scopes: Mapping[str, str] = Field(default_factory=dict)  # our scope → the provider's group, stream, topic or tag
    share_bounces: Flag = False
    settle: Span = timedelta(minutes=15)
    api_base: str | None = None
    public_url: str | None = None
    stops: str | None = None
    domain: str | None = None
    subaccount: str | None = None
    list_id: str | None = None
    domain_id: str | None = None
    region: str | None = None
    contact_list: str | None = None
    topic_arns: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way_back(self) -> Account:
        names, ids = list(self.scopes), list(self.scopes.values())
        for n, one in enumerate(ids):
            if one in ids[:n]:
                raise mistakes.wrong(f"'{names[ids.index(one)]}' is mapped to '{one}' already: one id, one scope", "scopes", names[n])
        return self


class Webhook(_Entry):
    """A system of the sender's own that hears our changes."""

    name: Name
    url: str
    secret: Variable
    private: Flag = False  # it stands in your own network: plain HTTP and addresses inside are allowed

    @model_validator(mode="after")
    def _reachable(self) -> Webhook:
        """Refuse what is no endpoint, and one inside by its number; what a name leads to is looked at when it is called."""
        try:
            found = urlsplit(self.url)
            host, _ = found.hostname or "", found.port
        except ValueError:
            raise mistakes.wrong("wants an address such as https://crm.example.com/hooks/mailprefs", "url") from None
        if found.scheme not in (("https", "http") if self.private else ("https",)) or not host or found.username or found.fragment:
            raise mistakes.wrong("wants an address such as https://crm.example.com/hooks/mailprefs", "url")
        if not self.private and _inside(host):
            raise mistakes.wrong("leads inside; write private = true if that is meant", "url")
        return self


def _inside(host: str) -> bool:
    """True for a name or a number of this machine or its network; also where a number is written in letters of another width."""
    plain = unicodedata.normalize("NFKC", host).replace("\u3002", ".")
    try:
        return not is_public(ip_address(plain))
    except ValueError:
        return plain == "localhost" or plain.endswith(".localhost") or plain != host


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """True for one address of the open internet, and of no tunnel that may lead back inside."""
    within = [getattr(address, "sixtofour", None), getattr(address, "ipv4_mapped", None)]
    if any(each is not None for each in within) or any(address in net for net in (*_TRANSLATED, *_NOBODYS)):
        return False
    if address.version == 6 and int(address) < 1 << 32:
        return False
    return address.is_global and not address.is_multicast and not getattr(address, "is_site_local", False)


@dataclass(frozen=True, slots=True)
class Scope:
    """A node of the tree: its permanent number, its path from the root, and what a topic asks for."""

    number: int
    path: tuple[int, ...]
    name: str  # "*", "connective", "connective/marketing", "connective/newsletter"
    stream: Stream | None = None
    wanted: Wanted = Wanted.OPT_OUT
    sensitive: bool = False
    retired: bool = False

    @property
    def is_topic(self) -> bool:
        return len(self.path) == 4

    @property
    def brand(self) -> int:
        """The number of the brand it belongs to, 0 at the root."""
        return self.number >> 8

    def wants(self, channel: Channel) -> int:
        """Return the consent it wants on a channel: 0 none, 1 any evidence, 2 confirmed. Marketing by SMS always wants consent."""
        least = 1 if channel is Channel.SMS and self.stream is Stream.MARKETING and self.is_topic else 0
        return max(least, _WANTS[self.wanted])


class SoftBounces(_Entry):
    """How many soft bounces within which window put an address on hold, and for how long."""

    threshold: int = Field(default=5, ge=2, le=1000)
    window: Span = timedelta(days=30)
    hold: Span = timedelta(days=14)


class Catalogue(_Entry):
    """Everything ``mailprefs.toml`` says."""

    soft_bounces: SoftBounces = SoftBounces()

    brand: tuple[Brand, ...] = ()
    account: tuple[Account, ...] = ()
    webhook: tuple[Webhook, ...] = ()

    @model_validator(mode="after")
    def _sound(self) -> Catalogue:
        if not self.brand:
            raise mistakes.wrong("wants at least one [[brand]]", "brand")
        _once([b.name for b in self.brand], "brand", "name")
        _once([b.number for b in self.brand], "brand", "number")
        _once([a.name for a in self.account], "account", "name")
        _once([w.name for w in self.webhook], "webhook", "name")
        for n, account in enumerate(self.account):
            self._check(account, n)
        for n, brand in enumerate(self.brand):
            if brand.mailer and brand.mailer not in {w.name for w in self.webhook}:
                raise mistakes.wrong(f"there is no [[webhook]] '{brand.mailer}'", "brand", n, "mailer")
        return self

    def _check(self, account: Account, n: int) -> None:
        """Refuse an account whose brand or scopes do not exist, or that would carry a marketing stop to transactional mail."""
        if account.name == MAIL:
            raise mistakes.wrong(f"'{MAIL}' is what comes by plain mail; give the account another name", "account", n, "name")
        if account.brand not in {b.name for b in self.brand}:
            raise mistakes.wrong(f"there is no brand '{account.brand}'", "account", n, "brand")
        for name in account.scopes:
            scope = self._by_name.get(f"{account.brand}/{name}")
            if scope is None or not (scope.is_topic or scope.number & 255 in (MARKETING, TRANSACTIONAL, ADS)):
                raise mistakes.wrong(f"'{name}' is no topic of '{account.brand}'", "account", n, "scopes", name)
            if scope.stream is Stream.TRANSACTIONAL:
                raise mistakes.wrong(f"'{name}' is transactional: no opt-out may reach it", "account", n, "scopes", name)
        if self._whole(account) not in self._by_name:
            raise mistakes.wrong(f"'{account.stops}' is no scope of '{account.brand}'", "account", n, "stops")

    def _whole(self, account: Account) -> str:
        """Return the whole name of what an account stops."""
        name = "marketing" if account.stops is None else account.stops
        return name if name.partition("/")[0] == account.brand else f"{account.brand}/{name}"

    def _in(self, account: Account, name: str) -> Scope:
        return self._by_name[f"{account.brand}/{name}"]

    @cached_property
    def scopes(self) -> tuple[Scope, ...]:
        """Every node of the tree, the root first, each after its parent."""
        return (Scope(ROOT, (ROOT,), "*"), *(scope for brand in self.brand for scope in _tree(brand)))

    @cached_property
    def _by_name(self) -> Mapping[str, Scope]:
        return {scope.name: scope for scope in self.scopes}

    @cached_property
    def by_number(self) -> Mapping[int, Scope]:
        return {scope.number: scope for scope in self.scopes}

    def scope(self, name: str) -> Scope:
        """Return the scope that a name means: ``brand/topic``, ``brand``, ``*``, or a topic alone where that is unique."""
        if (found := self._named(name)) is None:
            raise UnknownScope(f"no such scope; there are: {', '.join(s.name for s in self.scopes)}")
        return found

    def topic(self, name: str) -> Scope:
        """Return the topic that a name means. Raises UnknownScope."""
        if (scope := self._named(name)) is None or not scope.is_topic:
            raise UnknownScope(f"{'that is no' if scope else 'no such'} topic; there are: {', '.join(s.name for s in self.topics)}")
        return scope

    def _named(self, name: str) -> Scope | None:
        if found := self._by_name.get(name):
            return found
        alone = [scope for scope in self.scopes if scope.name.endswith(f"/{name}")]
        if len(alone) > 1:
            raise UnknownScope("that name is in more than one brand; write it as brand/topic")
        return alone[0] if alone else None

    @cached_property
    def topics(self) -> tuple[Scope, ...]:
        """The topics in use, in the order of the file."""
        return tuple(scope for scope in self.scopes if scope.is_topic and not scope.retired)

    def brand_of(self, number: int) -> Brand | None:
        """Return the brand that a scope's number belongs to, known topic or not."""
        return next((brand for brand in self.brand if brand.number == number >> 8), None)

    def title_of(self, number: int) -> Topic | None:
        """Return a topic by its scope's number."""
        brand = self.brand_of(number)
        return next((topic for topic in brand.topic if topic.number == number & 255), None) if brand else None

    def account_named(self, name: str) -> Account | None:
        return next((account for account in self.account if account.name == name), None)

    def mapped(self, account: Account) -> Mapping[int, str]:
        """Return what an account is told about: scope number → the provider's id. Never a sensitive topic (docs/state.md §6)."""
        pairs = ((self._in(account, name), group) for name, group in account.scopes.items())
        return {scope.number: group for scope, group in pairs if not scope.sensitive and not scope.retired}

    def called(self, account: Account) -> Mapping[int, str]:
        """Return under which provider's id an account is told of each mapped scope: under another it has been told nothing."""
        return {scope: f"{account.provider}/{group}" for scope, group in self.mapped(account).items()}

    def heard(self, account: Account) -> Mapping[str, int]:
        """Return what an account's ids mean to us: the provider's id → scope number. Sensitive and retired topics are heard too."""
        return {group: self._in(account, name).number for name, group in account.scopes.items()}

    def stopped_by(self, account: Account) -> int:
        """Return the number of the scope that STOP to this account stops."""
        return self._by_name[self._whole(account)].number

    def left_by(self, number: int) -> tuple[int, ...]:
        """Return what a token of this number stops: its scope, or where that is in doubt all marketing it may mean (docs/state.md §1).

        A number nobody knows is its brand's, and one of a brand nobody knows may be any brand's. No token is for anything but marketing.
        """
        scope, brand = self.by_number.get(number), self.brand_of(number)
        if scope is not None and scope.stream is Stream.MARKETING:
            return (number,)
        return tuple(each.number * 256 + MARKETING for each in ((brand,) if brand else self.brand))

    def marketing_of(self, account: Account) -> int:
        """Return the number of the marketing node of an account's brand."""
        return self._by_name[f"{account.brand}/marketing"].number


def _tree(brand: Brand) -> Iterator[Scope]:
    base = brand.number * 256
    top = (ROOT, base)
    yield Scope(base, top, brand.name)
    yield Scope(base + MARKETING, (*top, base + MARKETING), f"{brand.name}/marketing", Stream.MARKETING)
    yield Scope(base + TRANSACTIONAL, (*top, base + TRANSACTIONAL), f"{brand.name}/transactional", Stream.TRANSACTIONAL)
    if brand.ads:
        yield Scope(base + ADS, (*top, base + ADS), f"{brand.name}/ads")
    for topic in brand.topic:
        stream = base + (MARKETING if topic.stream is Stream.MARKETING else TRANSACTIONAL)
        number = base + topic.number
        path = (*top, stream, number)
        yield Scope(number, path, f"{brand.name}/{topic.name}", topic.stream, topic.consent, topic.sensitive, topic.retired)


def _once(values: list[Any], table: str, key: str) -> None:
    for n, value in enumerate(values):
        if value in values[:n]:
            raise mistakes.wrong(f"{value!r} is used twice", table, n, key)


def load(path: Path) -> Catalogue:
    """Read the catalogue from a file. Raises Misconfigured, which names the line and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Misconfigured(f"{path} does not exist. `mailprefs init` writes one; MAILPREFS_CONFIG names another place.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} cannot be read: {type(error).__name__}") from None
    return parse(text, path.name, path.parent)


def parse(text: str, name: str = "mailprefs.toml", folder: Path | None = None) -> Catalogue:
    """Read the catalogue from text, and logos from its folder. Raises Misconfigured, which names the line and the key."""
    try:
        return Catalogue.model_validate(tomllib.loads(text), context=folder)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(mistakes.misspelt(name, text, str(error))) from None
    except ValidationError as error:
        raise Misconfigured("\n".join(mistakes.complaint(name, text, one) for one in error.errors())) from None
