"""How many mails may be asked for by one network, and by all of them, in an hour: a bound on what strangers can have written and sent.

In this process alone. The three an hour to one address are kept in the database, and hold whoever asks.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

from aiohttp import web

OF_ONE = 30  # askings of one network in an hour
OF_ALL = 6_000  # of everybody who has no link, together
KEPT = 20_000  # networks that are remembered; the longest quiet is forgotten first
HOUR = timedelta(hours=1)


@dataclass
class Askers:
    """Counts what is asked for without a link, in hours that begin with the first asking."""

    _networks: OrderedDict[str, tuple[datetime, int]] = field(default_factory=OrderedDict)

    def allowed(self, network: str | None, now: datetime) -> bool:
        """Count one more and return whether there is room for it. Who has had all of theirs takes nothing from the others."""
        return (network is None or self._room(network, OF_ONE, now)) and self._room("", OF_ALL, now)

    def _room(self, name: str, most: int, now: datetime) -> bool:
        since, asked = self._networks.pop(name, (now, 0))
        if not timedelta() <= now - since < HOUR:
            since, asked = now, 0
        self._networks[name] = (since, asked + 1)
        if len(self._networks) > KEPT:
            self._networks.popitem(last=False)
        return asked < most


def network(request: web.Request) -> str | None:
    """Return the network that a request came from: /24 or /56; None where only a proxy of our own is seen.

    Behind a proxy it is what the proxy itself saw: the last entry of X-Forwarded-For, which nobody before it can write.
    """
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip()
    for text in (request.remote or "", forwarded, forwarded.rpartition(":")[0].strip("[]")):  # some proxies write the port as well
        try:
            found = ip_address(text)
        except ValueError:
            continue
        found = getattr(found, "ipv4_mapped", None) or found
        if found.is_global:
            return str(ip_network(f"{found}/{24 if found.version == 4 else 56}", strict=False))
    return None
