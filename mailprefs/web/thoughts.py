"""Second thoughts: how often a day the presses of one person can be taken back. Each that can is a row of the ledger."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from mailprefs import ledger

MOST = 16  # presses of one person in a day that offer a way back
KEPT = 20_000  # people who are remembered, by one process; the longest quiet is forgotten first


@dataclass
class SecondThoughts:
    """Counts the presses of each person's pages, in this process alone: a bound on rows, and no part of what is right."""

    _seen: OrderedDict[UUID, tuple[datetime, int]] = field(default_factory=OrderedDict)  # since when, and how many

    def allowed(self, key: UUID, now: datetime) -> bool:
        """Count a press and return whether it may offer a way back."""
        since, presses = self._seen.pop(key, (now, 0))
        if now - since > ledger.SURE:
            since, presses = now, 0
        self._seen[key] = (since, presses + 1)
        if len(self._seen) > KEPT:
            self._seen.popitem(last=False)
        return presses < MOST
