"""What a delivery told, sorted: events that can change a standing, what is only counted, and what is kept aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mailprefs.providers.base import MOVING, Heard, Kept
from mailprefs.providers.reading import Batch
from mailprefs.words import Event, Kind


@dataclass(frozen=True, slots=True)
class Counted:
    """Something told that changes no standing, in our word where we have one, else in the provider's."""

    word: str


def place(word: str, meant: Kind | str | None) -> Kind | Counted | str:
    """Return what a provider's word comes to: a kind that can change a standing, a count, or why it is kept aside.

    ``meant`` is what the provider's map says: a kind, the reason why it changes nothing, or None for a word that is not in it.
    """
    if meant is None:
        return "unknown_kind"
    if isinstance(meant, Kind):
        return meant if meant in MOVING else Counted(str(meant))
    return Counted(word)


def sort(batch: Batch, read: Callable[[Mapping[str, Any]], Event | Counted | str]) -> Heard:
    """Return what was told, each value read on its own: an event, a count, or the reason why it is kept aside as it came."""
    events: list[Event] = []
    kept = [Kept(reason, raw) for reason, raw in batch.aside]
    counted = Counter[str]()
    for n, told in enumerate(batch.values):
        found = read(told) if isinstance(told, dict) else "no_object"
        if isinstance(found, Event):
            events.append(found)
        elif isinstance(found, Counted):
            counted[found.word] += 1
        else:
            kept.append(Kept(found, batch.raw(n)))
    return Heard(tuple(events), tuple(kept), counted)
