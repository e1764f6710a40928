"""Our own token in the headers of a message, where a provider returns them with what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailprefs.providers import facts
from mailprefs.providers.base import OURS

HEADER = f"x-{OURS}"  # in which a message may carry its token; its List-Unsubscribe does so by itself
_LINK = re.compile(r"/u/([A-Za-z0-9_-]{26}\.[A-Za-z0-9_-]{18})>")


def token(headers: object) -> str | None:
    """Return the token in a list of objects with name and value, None without one. Who it is for is found where it is verified."""
    returned = dict(_pairs(headers))
    if HEADER in returned:
        return returned[HEADER].strip()
    link = _LINK.search(returned.get("list-unsubscribe", ""))
    return link[1] if link else None


def _pairs(headers: object) -> Iterator[tuple[str, str]]:
    """Yield the name, in lower case, and the value of each header that has both."""
    for each in headers if isinstance(headers, list) else []:
        name, value = facts.text(facts.within(each, "name")), facts.text(facts.within(each, "value"))
        if name and value:
            yield name.strip().lower(), value
