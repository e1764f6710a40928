"""What the suite of promises must know of a provider. A new provider is one module ``case_<name>`` beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery, Provider

PAYLOADS = Path(__file__).parent.parent / "payloads"
DOCS = Path(__file__).parents[2] / "docs" / "providers"
RECEIVED = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """One provider under the promises."""

    provider: Provider
    credential: Credential  # sound, with everything it could need
    rotated: Credential  # the same, with the next key valid beside the first
    sign: Callable[[bytes], Delivery]  # a delivery of the body, signed with the first key
    sign_next: Callable[[bytes], Delivery]  # signed with the next key
    sign_strange: Callable[[bytes], Delivery]  # signed with a key of nobody's
    proofs: tuple[str, ...]  # the headers that prove it
    documented: Mapping[str, bytes]  # each event that the provider documents: its key in ``kinds`` → one such event
    body: Callable[[Sequence[bytes]], bytes]  # events → the body that delivers them
    unknown: bytes  # an event of a kind that nobody documents
    tokened: bytes  # an event that stops, with the token "our-token" in a custom argument
    short: Mapping[str, str]  # each secret → a value that is too short, or a part of one


def case_of(name: str) -> Case:
    """Return the case of a provider. A provider without one has kept no promise: the suite fails."""
    case = import_module(f".case_{name}", __package__).CASE
    assert isinstance(case, Case)
    assert case.provider is PROVIDERS[name]
    return case
