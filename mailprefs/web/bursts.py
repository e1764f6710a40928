"""Bursts: many presses of pages from one network within minutes, as scanners make them that press buttons. Flagged, never refused."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from aiohttp import web

from mailprefs import telemetry
from mailprefs.web import asking

MANY = 30  # presses of one network
WITHIN = timedelta(minutes=2)
KEPT = 5_000  # networks that are remembered, by one process; the longest quiet is forgotten first


@dataclass
class Bursts:
    """Counts presses by network, in spans that begin with the first."""

    _seen: OrderedDict[str, tuple[datetime, int]] = field(default_factory=OrderedDict)

    def pressed(self, network: str, now: datetime) -> bool:
        """Count a press and return whether it is the one that makes a burst."""
        since, presses = self._seen.pop(network, (now, 0))
        if not timedelta() <= now - since < WITHIN:
            since, presses = now, 0
        self._seen[network] = (since, presses + 1)
        if len(self._seen) > KEPT:
            self._seen.popitem(last=False)
        return presses + 1 == MANY


def noticed(request: web.Request, seen: Bursts, now: datetime) -> None:
    """Count a press of a page, and alarm at a burst with its network: a range of many machines, and no person's address."""
    network = asking.network(request)
    if network and seen.pressed(network, now):
        telemetry.alarm("burst_of_presses", network=network)
