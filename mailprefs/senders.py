"""Who is proven to have sent a letter: the address in From, where the operator's own mail server says that its domain stands behind it.

mailprefs verifies no DKIM and asks no DNS itself: the server that took the letter in has done so and says what came of it in an
Authentication-Results field (RFC 8601). Anyone can write such a field, so one counts only if it bears the name that the operator
configured. In every doubt nobody is proven.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailprefs import addresses
from mailprefs.errors import Unreadable
from mailprefs.letters import LONGEST_FIELD, fields

if TYPE_CHECKING:
    from mailprefs.letters import Part

_MAILBOX = r'[^\s<>"(),:;@\\]+@[^\s<>"(),:;@\\]+'
_FROM = re.compile(rf'(?:"(?:[^"\\]|\\.)*"|[^"<>(),:;@\\])*<\s*({_MAILBOX})\s*>|({_MAILBOX})')  # one mailbox, RFC 5322 §3.4
_WRITTEN = re.compile(rf'(?<![^\s<>"(),:;@\\]){_MAILBOX}')  # not begun within a word: a long one would be read from each of its letters

_OUTSIDE = re.compile(r'\s+|"(?:[^"\\]|\\.)*"|[^\s();"\\]+|[();]')
_COMMENT = re.compile(r"[^()\\]+|\\.|[()]")
_RESULT = re.compile(r"([a-z0-9-]+)(?:/[0-9]+)?=([a-z]+)", re.IGNORECASE)
_PROPERTY = re.compile(r'([a-z]+\.[a-z0-9-]+)="?([^"\s]*)"?', re.IGNORECASE)

_NO_POLICY = frozenset({"none", "bestguesspass"})  # the domain publishes none: what DKIM and SPF say decides
_VOUCHES = {"dkim": ("header.d", "header.i"), "spf": ("smtp.mailfrom",)}  # method → the properties that name a domain


@dataclass(frozen=True, slots=True)
class _Result:
    """One verdict of an Authentication-Results field. A property that came twice is none."""

    method: str
    verdict: str
    properties: dict[str, str]


def proven(top: Part, authserv: str | None) -> str | None:
    """Return the address in From if the server of that name proved it, else None: always None where no name is configured.

    Only the topmost field with the name counts: the server wrote it last, above whatever the letter brought along (RFC 8601 §5).
    """
    written = fields(top, "from")
    found = _FROM.fullmatch(written[0]) if authserv and len(written) == 1 and len(written[0]) < LONGEST_FIELD else None
    if not found or not authserv:
        return None
    sender = str(found[1] or found[2])
    try:
        domain = addresses.email(sender).rpartition("@")[2]
    except Unreadable:
        return None
    return sender if _stands_behind(domain, _results(fields(top, "authentication-results"), authserv)) else None


def claimed(top: Part, envelope: str | None) -> list[str]:
    """Return the addresses that a letter says it is from, the first few, proven by nothing."""
    return [found[0] for text in (*fields(top, "from")[:1], envelope or "") for found in _WRITTEN.finditer(text)][:3]


def _stands_behind(domain: str, results: Sequence[_Result]) -> bool:
    judged = [each for each in results if each.method == "dmarc" and each.verdict not in _NO_POLICY]
    if judged:
        return all(each.verdict == "pass" and each.properties.get("header.from", "").lower() == domain for each in judged)
    return any(
        _aligned(domain, each.properties.get(name, ""))
        for each in results
        if each.verdict == "pass"
        for name in _VOUCHES.get(each.method, ())
    )


def _aligned(domain: str, identity: str) -> bool:
    """The same domain, or one above it. DMARC also takes one below (RFC 7489 §3.1): that wants a list of public suffixes, so not here."""
    signer = identity.rpartition("@")[2].lower()
    return "." in signer and (domain == signer or domain.endswith(f".{signer}"))


def _results(values: Sequence[str], authserv: str) -> Sequence[_Result]:
    for value in values:
        clauses = _clauses(value)
        if clauses and clauses[0][:1] and clauses[0][0].strip('"').lower() == authserv.lower():
            return [result for clause in clauses[1:] if (result := _result(clause))]
    return ()


def _result(clause: Sequence[str]) -> _Result | None:
    found = _RESULT.fullmatch(clause[0]) if clause else None
    if not found:
        return None
    properties: dict[str, str] = {}
    for piece in clause[1:]:
        if said := _PROPERTY.fullmatch(piece):
            name = said[1].lower()
            properties[name] = "" if name in properties else said[2]
    return _Result(found[1].lower(), found[2].lower(), properties)


def _clauses(value: str) -> list[list[str]]:
    """Return the pieces between the semicolons, without comments. A field that is not whole says nothing."""
    clauses: list[list[str]] = [[]]
    glued = False
    for piece in _pieces(value):
        if piece is None:
            return []
        if piece == ";":
            clauses.append([])
        elif glued and piece.strip():
            clauses[-1][-1] += piece
        elif piece.strip():
            clauses[-1].append(piece)
        glued = bool(piece.strip()) and piece != ";"
    return clauses


def _pieces(value: str) -> Iterator[str | None]:
    """Yield words, quoted strings, semicolons and space; a comment as space; None for what cannot be."""
    at = depth = 0
    while at < len(value):
        found = (_COMMENT if depth else _OUTSIDE).match(value, at)
        if not found or (not depth and found[0] == ")"):
            yield None
            return
        at = found.end()
        if found[0] in ("(", ")"):
            depth += 1 if found[0] == "(" else -1
            yield " "
        elif not depth:
            yield found[0]
    if depth or len(value) >= LONGEST_FIELD:
        yield None
