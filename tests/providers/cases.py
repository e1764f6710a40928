"""What the suite of promises must know of a provider. A new provider is one module ``case_<name>`` beside this one."""

from __future__ import annotations

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


ODD_TIMES = (b"0", b"-1", b"1e400", b"99999999999999999999", b'"soon"', b"null", b"true", b"[]", b"4102444800", b"1763812800000")
ODD_ISO_TIMES = (  # for who writes a time as ISO 8601
    b"0",
    b"1700000000",
    b'""',
    b'"soon"',
    b"null",
    b"true",
    b"[]",
    b'"2026-11-20T16:28:50"',
    b'"2027-01-01T00:00:00Z"',
    b'"1970-01-01T00:00:00Z"',
)


def unsigned(body: bytes) -> Delivery:
    """Return a delivery that nobody signed, for what only reads it."""
    return Delivery([], body, RECEIVED)


def in_header(delivery: Delivery, name: str) -> str | None:
    """Return a proof that is a header."""
    return delivery.header(name)


def with_header(delivery: Delivery, name: str, *values: str) -> Delivery:
    """Return the delivery with these values for a header, none or several, in place of its own."""
    others = [(key, value) for key, value in delivery.headers if key.lower() != name.lower()]
    return replace(delivery, headers=[*others, *((name, value) for value in values)])


def as_it_is(event: bytes) -> bytes:
    return event


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
    token: str | None = "our-token"  # None: the provider returns nothing of ours
    batched: bool = True  # a delivery carries any number of events; else one
    covered: bool = True  # the proof covers the body
    by_value: bool = False  # what is covered is what the body says, not its bytes: other bytes are accepted if they say the same
    inside: bool = False  # the proof stands in the body: what cannot be read cannot be proven, and is refused
    proof: Callable[[Delivery, str], str | None] = in_header  # a delivery's proof of that name
    with_proof: Callable[..., Delivery] = with_header  # the delivery with these values for a proof, none or several
    wrapped: Callable[[bytes], bytes] = as_it_is  # an event → what of its delivery is kept if it cannot be read
    unsigned: Callable[[bytes], Delivery] = unsigned  # a delivery of the body for what only reads it
    time: bytes | None = rb'("timestamp": )\d+'  # when an event happened, behind a group that stays; None: it never says
    odd_times: Sequence[bytes] = ODD_TIMES
    windowed: bool = False  # what is signed anew by each attempt must be on time where it stops nobody; what stops never must
    nobody: Credential | None = None  # one that can prove nothing; by default the credential without its secrets

    def bodies(self, events: Sequence[bytes]) -> list[bytes]:
        """Return the bodies that deliver these events: one of all of them, or one of each."""
        return [self.body(events)] if self.batched else [self.body([event]) for event in events]

    def heard(self, events: Sequence[bytes], received_at: datetime = RECEIVED) -> Heard:
        """Return what these events say, signed and read, in however many deliveries."""
        deliver = self.sign if self.unsigned is unsigned else self.unsigned  # of which the case says that reading it is the same
        told = [self.provider.parse(replace(deliver(body), received_at=received_at)) for body in self.bodies(events)]
        counted = sum((Counter(heard.counted) for heard in told), Counter[str]())
        return Heard(tuple(each for heard in told for each in heard.events), tuple(each for heard in told for each in heard.kept), counted)


def case_of(name: str) -> Case:
    """Return the case of a provider. A provider without one has kept no promise: the suite fails."""
    case = import_module(f".case_{name}", __package__).CASE
    assert isinstance(case, Case)
    assert case.provider is PROVIDERS[name]
    return case
