"""A message as a mailbox provider and the law will judge it: rule by rule, each with its clause. Bytes in, findings out; nothing raises.

The message is taken for marketing: a transactional one needs none of this. Nothing is looked up but through the ``dns`` that is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import Message
from enum import StrEnum, auto

from mailprefs import bodies, links
from mailprefs.catalogue import Brand, Catalogue
from mailprefs.errors import Forged
from mailprefs.links import LONGEST_WORD, ONE_CLICK, KeyRing

Dns = Callable[[bytes, int], bytes | None]  # a name and a time-out in seconds → its TXT record

LONGEST_LINE = 998  # octets, RFC 5322 §2.1.1
SIGNED = ("from", "list-unsubscribe", "list-unsubscribe-post")  # what a signature must cover: RFC 6376 §5.4, RFC 8058 §4
SIGNATURES = 8  # looked at in one message: each may cost a question to the DNS

# Hosts that send a click on elsewhere; RFC 8058 §3.1 forbids the redirect. A sender's own name for one is known by its paths.
TRACKERS = (
    *("sendgrid.net", "mandrillapp.com", "list-manage.com", "mailgun.org", "awstrack.me", "pstmrk.it", "sparkpostmail.com", "spgo.io"),
    *("klclick.com", "klclick1.com", "klclick2.com", "klclick3.com", "customeriomail.com", "hubspotlinks.com", "rs6.net", "exct.net"),
    *("exacttarget.com", "cmail19.com", "cmail20.com", "createsend.com", "mjt.lu", "sendibm1.com", "sendibm2.com", "sendibm3.com"),
    *("mlsend.com", "intercom-clicks.com", "activehosted.com", "getresponse.com", "urldefense.com", "safelinks.protection.outlook.com"),
    *("bit.ly", "t.co", "tinyurl.com", "goo.gl", "ow.ly", "is.gd", "buff.ly", "lnkd.in", "rebrand.ly", "cutt.ly"),
)
_REDIRECTS = re.compile(r"https?(?::|%3a)(?:/|%2f){2}|/(?:ls|wf|track)/click|/(?:CL0|L0|e3t|e/c)/", re.IGNORECASE)
_URL = re.compile(r"https://([^/?#@:\s]+)(?::[0-9]+)?(/\S*)?\Z")
_LIST_ID = re.compile(r"[^<>]*<[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)+>\s*\Z", re.ASCII)


class Verdict(StrEnum):
    """What became of one rule. Only ``fail`` fails the message; ``warn`` is what could not be looked at, or is unwise."""

    PASS = auto()
    WARN = auto()
    FAIL = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule, its verdict, what to do (or what holds), and the clause it comes from."""

    rule: str
    verdict: Verdict
    sentence: str  # what to do, or what holds
    source: str


@dataclass(frozen=True, slots=True)
class _Part:
    kind: str  # text/plain or text/html
    shows_link: bool
    words: str


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the rules look at, taken out of the bytes once."""

    raw: bytes
    fields: Mapping[str, Sequence[str]]  # lower-case name → values as they stand, folds and all
    words: Sequence[str]  # the bracketed words of List-Unsubscribe
    link: str  # the one https link among them, else empty
    parts: Sequence[_Part]
    ring: KeyRing | None
    catalogue: Catalogue | None
    dns: Dns | None

    @property
    def brand(self) -> Brand | None:
        """The brand whose mail the link stops, by its token; None where that cannot be told."""
        if self.catalogue is None or self.ring is None:
            return None
        try:
            return self.catalogue.brand_of(links.read(self.ring, links.token_in(self.link)).scope)
        except Forged:
            return None


Judgement = tuple[Verdict, str]


def check(raw: bytes, ring: KeyRing | None = None, catalogue: Catalogue | None = None, *, dns: Dns | None = None) -> tuple[Finding, ...]:
    """Return a finding for every rule, always the same rules in the same order. What is not passed in is not looked at: a warning."""
    message = _parsed(raw)
    fields: dict[str, list[str]] = {}
    for name, value in message.raw_items():
        fields.setdefault(name.lower(), []).append(str(value))
    words = re.findall(r"<([^<>]*)>", _field(fields, "list-unsubscribe"))
    link = _one_https(words)
    facts = _Facts(raw, fields, words, link, _parts(message, link), ring, catalogue, dns)
    return tuple(Finding(rule, *judge(facts), source) for rule, judge, source in RULES)


def passed(findings: Sequence[Finding]) -> bool:
    """True if no rule failed."""
    return all(finding.verdict is not Verdict.FAIL for finding in findings)


def _parsed(raw: bytes) -> Message:
    try:
        return message_from_bytes(raw, policy=policy.compat32)
    except Exception:  # the mail library raises what it likes on hostile bytes, RecursionError among it
        return Message()


def _parts(message: Message, link: str) -> Sequence[_Part]:
    try:
        return [
            _Part(part.get_content_type(), bool(link) and bodies.shows(part, link), _plain(bodies.words(part)))
            for part in bodies.shown(message)
        ]
    except Exception:  # as above: a part that cannot be read shows nobody a link
        return ()


def _field(fields: Mapping[str, Sequence[str]], name: str) -> str:
    """Return the one value of a field, unfolded; empty if there is none, or more than one."""
    found = fields.get(name, ())
    return re.sub(r"\r?\n(?=[ \t])", "", found[0]).strip() if len(found) == 1 else ""


def _one_https(words: Sequence[str]) -> str:
    """Return the one web link among the words if it is https and whole, else nothing."""
    urls = [word for word in words if re.match(r"\s*https?:", word, re.IGNORECASE)]
    return urls[0] if len(urls) == 1 and urls[0].startswith("https://") and not re.search(r"\s", urls[0]) else ""


def _plain(text: str) -> str:
    """Letters and digits alone, so that a postal address is found however it is broken into lines."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _once(facts: _Facts, name: str) -> Judgement | None:
    """Judge that a field stands there exactly once; None if it does."""
    count = len(facts.fields.get(name.lower(), ()))
    if count == 1:
        return None
    return Verdict.FAIL, f"Add the {name} header." if count == 0 else f"Keep one {name} header: there are {count}."


def _from(facts: _Facts) -> Judgement:
    if wrong := _once(facts, "From"):
        return wrong
    if "@" not in _field(facts.fields, "from"):
        return Verdict.FAIL, "Write an address in From."
    return Verdict.PASS, "One From header with an address."


def _list_unsubscribe(facts: _Facts) -> Judgement:
    return _once(facts, "List-Unsubscribe") or (Verdict.PASS, "One List-Unsubscribe header.")


def _post(facts: _Facts) -> Judgement:
    if wrong := _once(facts, "List-Unsubscribe-Post"):
        return wrong
    if _field(facts.fields, "list-unsubscribe-post") != ONE_CLICK:
        return Verdict.FAIL, f"Write exactly {ONE_CLICK} in List-Unsubscribe-Post."
    return Verdict.PASS, "One List-Unsubscribe-Post header with its one pair."


def _list_id(facts: _Facts) -> Judgement:
    if wrong := _once(facts, "List-Id"):
        return wrong
    name = _field(facts.fields, "list-id")
    if not _LIST_ID.match(name) or len(name) > 255:
        return Verdict.FAIL, "Write List-Id as <topic.host>, in a domain of yours, in at most 255 octets."
    return Verdict.PASS, "One List-Id header that names the list."


def _https(facts: _Facts) -> Judgement:
    if any(re.search(r"\s", word) for word in facts.words):
        return Verdict.FAIL, "Take the white space out of the brackets of List-Unsubscribe: a fold there breaks the link."
    if not facts.link:
        return Verdict.FAIL, "Put exactly one https link, and no http link, in brackets into List-Unsubscribe."
    return Verdict.PASS, "One https link in List-Unsubscribe."


def _https_first(facts: _Facts) -> Judgement:
    if not facts.words or not facts.words[0].startswith("https://"):
        return Verdict.FAIL, "Put the https link first in List-Unsubscribe, before any mailto."
    return Verdict.PASS, "The https link comes first."


def _length(facts: _Facts) -> Judgement:
    longest = max((len(word.encode("utf-8", "replace")) for word in facts.words), default=0)
    if longest > LONGEST_WORD:
        return Verdict.WARN, f"Take a shorter host: a word of {longest} octets may be encoded by mail libraries, {LONGEST_WORD} are safe."
    return Verdict.PASS, f"No word of List-Unsubscribe is longer than {LONGEST_WORD} octets."


def _encoded(facts: _Facts) -> Judgement:
    for name in ("list-unsubscribe", "list-unsubscribe-post", "list-id"):
        for value in facts.fields.get(name, ()):
            if re.search(r"=\?[^?\s]+\?[bq]\?", value, re.IGNORECASE) or not value.isascii():
                return (
                    Verdict.FAIL,
                    "Keep the List headers in plain ASCII: your mail library encoded one, and mailbox providers then ignore it.",
                )
    return Verdict.PASS, "No encoded word in the List headers."


def _line_length(facts: _Facts) -> Judgement:
    longest = max(map(len, re.split(rb"\r?\n", facts.raw)))
    if longest > LONGEST_LINE:
        return Verdict.FAIL, f"Break the lines: one has {longest} octets, {LONGEST_LINE} are allowed."
    return Verdict.PASS, f"No line is longer than {LONGEST_LINE} octets."


def _token(facts: _Facts) -> Judgement:
    if not (token := links.token_in(facts.link)):
        return Verdict.FAIL, "Mint the link with mailprefs: this is no https://host/u/token."
    if facts.ring is None:
        return Verdict.WARN, "Give the key ring (MAILPREFS_KEYS) to have the link's signature checked."
    try:
        links.read(facts.ring, token)
    except Forged:
        return Verdict.FAIL, "Mint the link with this key ring: its signature does not hold."
    return Verdict.PASS, "The link was minted by this key ring."


def _host(facts: _Facts) -> Judgement:
    if not (found := _URL.match(facts.link)):
        return Verdict.FAIL, "Put a link to your own link host into List-Unsubscribe."
    host = found[1].lower()
    if any(host == tracker or host.endswith(f".{tracker}") for tracker in TRACKERS) or _REDIRECTS.search(found[2] or ""):
        return Verdict.FAIL, "Turn click tracking off for this link: it goes through a redirector, and one-click must not be redirected."
    brand = facts.brand
    if brand and host != brand.link_host.partition(":")[0]:
        return Verdict.FAIL, f"Mint the link for {brand.link_host}: it goes to another host."
    return Verdict.PASS, "The link goes straight to its host."


def _visible(kind: str, name: str) -> Callable[[_Facts], Judgement]:
    def judge(facts: _Facts) -> Judgement:
        parts = [part for part in facts.parts if part.kind == kind]
        if not facts.parts:
            return Verdict.FAIL, "Add a text part with the visible unsubscribe link."
        if not parts:
            return Verdict.PASS, f"There is no {name} part."
        if not all(part.shows_link for part in parts):
            return Verdict.FAIL, f"Show the link of List-Unsubscribe, the same to the letter, in the {name} part."
        return Verdict.PASS, f"The {name} part shows the same link as the header."

    return judge


def _postal(facts: _Facts) -> Judgement:
    if facts.catalogue is None:
        return Verdict.WARN, "Give the catalogue (MAILPREFS_CONFIG) to have the postal address looked for."
    brands = (facts.brand,) if facts.brand else facts.catalogue.brand
    wanted = [_plain(brand.postal_address) for brand in brands]
    if facts.parts and all(any(address in part.words for address in wanted) for part in facts.parts):
        return Verdict.PASS, "The body gives the sender's postal address."
    return Verdict.FAIL, "Write the postal address of the brand, as the catalogue has it, into every text part."


def _signatures(facts: _Facts) -> list[frozenset[str]]:
    """What each DKIM signature says it covers, in the order of the message."""
    tags = [re.search(r"(?:\A|;)\s*h\s*=([^;]*)", value) for value in facts.fields.get("dkim-signature", ())[:SIGNATURES]]
    return [frozenset(re.sub(r"\s", "", tag[1]).lower().split(":")) if tag else frozenset() for tag in tags]


def _covered(facts: _Facts) -> Judgement:
    signatures = _signatures(facts)
    if not signatures:
        return Verdict.FAIL, "Sign the message with DKIM."
    if any(covered.issuperset(SIGNED) for covered in signatures):
        return Verdict.PASS, "A DKIM signature covers From and both unsubscribe headers."
    nearest = min((sorted(set(SIGNED) - covered) for covered in signatures), key=len)
    return Verdict.FAIL, f"Have your signer cover {' and '.join(nearest)} too: without it one-click is not offered."


def _valid(facts: _Facts) -> Judgement:
    whole = [n for n, covered in enumerate(_signatures(facts)) if covered.issuperset(SIGNED)]
    if not whole:
        return Verdict.FAIL, "Sign the message with DKIM over both unsubscribe headers; there is no such signature to verify."
    if facts.dns is None:
        return Verdict.WARN, "The signature was not verified: that takes an answer from the DNS."
    outcomes = {_verified(facts.raw, n, facts.dns) for n in whole}
    if Verdict.PASS in outcomes:
        return Verdict.PASS, "The DKIM signature holds."
    if Verdict.WARN in outcomes:
        return Verdict.WARN, "The signature could not be verified: the DNS did not answer, or its kind is not known here. Try again."
    return Verdict.FAIL, "Sign the message last of all and publish the key: no covering DKIM signature holds."


def _verified(raw: bytes, n: int, dns: Dns) -> Verdict:
    import dkim

    try:
        return Verdict.PASS if dkim.DKIM(raw).verify(n, dnsfunc=lambda name, timeout=5: dns(name, timeout)) else Verdict.FAIL
    except (dkim.DnsTimeoutError, dkim.NaClNotFoundError, OSError):
        return Verdict.WARN
    except Exception:  # dkimpy meets hostile signatures with IndexError, binascii.Error and the like
        return Verdict.FAIL


RULES: Sequence[tuple[str, Callable[[_Facts], Judgement], str]] = (
    ("from", _from, "RFC 5322 §3.6"),
    ("list-unsubscribe", _list_unsubscribe, "RFC 2369 §3"),
    ("list-unsubscribe-post", _post, "RFC 8058 §3.1"),
    ("list-id", _list_id, "RFC 2919 §2"),
    ("https-link", _https, "RFC 8058 §3.1, RFC 2369 §2"),
    ("https-first", _https_first, "RFC 2369 §2"),
    ("word-length", _length, "RFC 2047 §2, as mail libraries apply it"),
    ("encoded-word", _encoded, "RFC 2047 §5"),
    ("line-length", _line_length, "RFC 5322 §2.1.1"),
    ("token", _token, "RFC 8058 §3.1 and §6"),
    ("link-host", _host, "RFC 8058 §3.1"),
    ("link-in-text", _visible("text/plain", "plain text"), "15 USC 7704(a)(5), Gmail sender guidelines"),
    ("link-in-html", _visible("text/html", "HTML"), "15 USC 7704(a)(5), Gmail sender guidelines"),
    ("postal-address", _postal, "15 USC 7704(a)(5)"),
    ("dkim-covers", _covered, "RFC 8058 §3.1 and §4"),
    ("dkim-valid", _valid, "RFC 8058 §4, RFC 6376 §6.1"),
)
