"""Whose fault a refusal is: the address's, or the provider's. No I/O here.

A provider that refuses nearly everything for a few minutes is unwell, whatever it says of the addresses. Its word against an address
counts only beside a companion that it took: of the same kind, in a request that began no earlier than the one that was refused first.
An outage that begins while we send has no companions: whatever was taken had begun before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from mailprefs.outbox import Push

MOST = 1000  # suspects that are remembered; the oldest make room
NEVER = float("inf")


@dataclass(slots=True)
class Jury:
    """What one account has taken and refused of one kind: the stops, or the goes, of one scope."""

    _suspects: dict[Push, float] = field(default_factory=dict)  # refused, not taken since → when the first such request began
    _companions: int = 0  # taken by requests that began while there were suspects
    _taken_at: float = -NEVER  # when the latest request began that anything was taken of

    def hear(self, begun: float, *, taken: Collection[Push] = (), refused: Iterable[Push] = ()) -> None:
        """Note one answer to a request that began at ``begun``, in seconds of any clock that never goes back."""
        for push in refused:
            self._suspects.setdefault(push, begun)
            if len(self._suspects) > MOST:
                self._suspects.pop(next(iter(self._suspects)))
        since = next(iter(self._suspects.values()), NEVER)
        if taken:
            self._taken_at = max(self._taken_at, begun)
        if begun >= since:
            self._companions += len(taken)
        self._clear(taken)

    def guilty(self, refused: Iterable[Push]) -> set[Push]:
        """Return those of the refused that are so for what they are. None, if more is suspect than was taken: then it is the provider."""
        if self._companions < len(self._suspects):
            return set()
        found = {push for push in refused if self._suspects.get(push, NEVER) <= self._taken_at}
        self._clear(found)
        return found

    def _clear(self, pushes: Iterable[Push]) -> None:
        """These are suspects no more. Without any, the trouble is over, and who was taken in it speaks for nobody later."""
        for push in pushes:
            self._suspects.pop(push, None)
        if not self._suspects:
            self._companions = 0
