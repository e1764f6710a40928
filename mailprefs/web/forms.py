"""Forms as they are posted: bounded, read leniently, and never by a script in the page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import parse_qs
from uuid import UUID, uuid4

from aiohttp import web
from itsdangerous import BadData

from mailprefs.errors import MailprefsError
from mailprefs.web import problems
from mailprefs.web.keys import House

BODY = 8 * 1024  # bytes
PATIENCE = 5.0  # seconds
KEPT = timedelta(days=30)  # that a form keeps its nonce; an older press counts all the same


async def fields(request: web.Request) -> Mapping[str, str]:
    """Return the last value of each field of a form; none at all of a body that is broken, endless, or no form."""
    try:
        body = await problems.read_body(request, limit=BODY, seconds=PATIENCE)
        return {name: values[-1] for name, values in parse_qs(body.decode("ascii"), max_num_fields=16).items()}
    except (MailprefsError, ValueError):
        return {}


def by_script(request: web.Request) -> bool:
    """True for a form that a browser says nobody pressed. One that says nothing of it is believed: not every browser does."""
    return request.headers.get("Sec-Fetch-Mode") == "navigate" and "Sec-Fetch-User" not in request.headers


def unpressed(request: web.Request) -> bool:
    """True for a form that nobody pressed on a page of ours: a script's, or another site's. For pages that no mailbox provider posts to."""
    return by_script(request) or request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")


def fresh(house: House) -> str:
    """Return the signed nonce of a form."""
    return str(house.ring.timed("form").dumps(uuid4().hex))


def nonce(house: House, value: str) -> str:
    """Return what a press is called: the nonce of its form, so that a reload is no second press; a new one if the form is odd or old."""
    try:
        return UUID(hex=house.ring.timed("form").loads(value, max_age=int(KEPT.total_seconds()))).hex
    except (BadData, ValueError, TypeError, AttributeError):
        return uuid4().hex
