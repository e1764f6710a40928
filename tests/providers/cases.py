"""What the suite of promises must know of a provider. A new provider is one module ``case_<name>`` beside this one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery, Ear, Heard

PAYLOADS = Path(__file__).parent.parent / "payloads"
DOCS = Path(__file__).parents[2] / "docs" / "providers"
RECEIVED = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def unsigned(body: bytes) -> Delivery:
    """Return a delivery that nobody signed, for what only reads it."""
    return Delivery([], body, RECEIVED)


def in_seconds(event: bytes, odd: bytes) -> bytes:
    """Return an event whose ``timestamp``, a number, gave way to something odd."""
    return re.sub(rb'("timestamp": )\d+', lambda found: found[1] + odd, event)


ODD_TIMES = (b"0", b"-1", b"1e400", b"99999999999999999999", b'"soon"', b"null", b"true", b"[]", b"4102444800", b"1763812800000")


def in_header(delivery: Delivery, name: str) -> str | None:
    """Return a proof that is a header."""
    return delivery.header(name)


def with_header(delivery: Delivery, name: str, *values: str) -> Delivery:
    """Return the delivery with these values for a header, none or several, in place of its own."""
    others = [(key, value) for key, value in delivery.headers if key.lower() != name.lower()]
    return replace(delivery, headers=[*others, *((name, value) for value in values)])


@dataclass(frozen=True)
class Case:
    """One provider under the promises."""

    provider: Ear
    credential: Credential  # sound, with everything it could need
    rotated: Credential  # the same, with the next key valid beside the first
    sign: Callable[[bytes], Delivery]  # a delivery of the body, signed with the first key
    sign_next: Callable[[bytes], Delivery]  # signed with the next key
    sign_strange: Callable[[bytes], Delivery]  # signed with a key of nobody's
    proofs: tuple[str, ...]  # the headers that prove it
    documented: Mapping[str, bytes]  # each event that the provider documents: its key in ``kinds`` → one such event
    body: Callable[[Sequence[bytes]], bytes]  # events → the body that delivers them
    unknown: bytes  # an event of a kind that nobody documents
    tokened: bytes  # an event that stops, with ``token`` in it where the provider returns something of ours
    short: Mapping[str, str]  # each secret → a value that is too short, or a part of one
    unsigned: Callable[[bytes], Delivery] = unsigned  # a delivery of the body for what only reads it
    timed: Callable[[bytes, bytes], bytes] = in_seconds  # an event, with something odd in place of its time
    token: str | None = "our-token"  # None: the provider returns nothing of ours
    single: bool = False  # a delivery tells one event; else any number
    covers: Literal["bytes", "values", "nothing"] = "bytes"  # what a signature covers of the body
    inside: bool = False  # the proof stands in the body: what cannot be read cannot be proven
    nobody: Credential | None = None  # one that can prove nothing; by default the credential without its secrets


def case_of(name: str) -> Case:
    """Return the case of a provider. A provider without one has kept no promise: the suite fails."""
    case = import_module(f".case_{name}", __package__).CASE
    assert isinstance(case, Case)
    assert case.provider is PROVIDERS[name]
    return case
