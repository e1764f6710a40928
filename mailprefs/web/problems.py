"""Errors become answers here, and nowhere else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from typing import Any

from aiohttp import web

from mailprefs import errors, telemetry

RETRY = {"Retry-After": "5"}  # seconds
_BESIDE = {401: {"WWW-Authenticate": "Bearer"}, 503: RETRY}  # RFC 9110 §15.5.2: a 401 says what would let one in


class Powerless(errors.MailprefsError):
    """The API key may not do this."""


class TooLarge(errors.MailprefsError):
    """The request is larger than this door takes."""


class TooSlow(errors.MailprefsError):
    """The request took too long to arrive."""


_KINDS: tuple[tuple[type[errors.MailprefsError], int, str], ...] = (
    (errors.Forged, 401, "unauthorised"),
    (errors.Unreadable, 400, "unreadable"),
    (errors.UnknownScope, 404, "unknown-scope"),
    (errors.UnknownExport, 404, "unknown-export"),
    (errors.NotMade, 409, "not-made"),
    (errors.Outdated, 409, "outdated"),
    (errors.Expired, 410, "expired"),
    (errors.NotOnACluster, 501, "not-on-a-cluster"),
    (errors.NotInstalled, 501, "not-installed"),
    (errors.NotEntitled, 422, "not-entitled"),
    (errors.NotMintable, 422, "not-mintable"),
    (Powerless, 403, "powerless"),
    (TooLarge, 413, "too-large"),
    (TooSlow, 408, "too-slow"),
    (errors.Unavailable, 503, "unavailable"),
)


def problem(status: int, kind: str, detail: str, **more: Any) -> web.Response:
    """Return an ``application/problem+json`` answer (RFC 9457). ``detail`` never repeats what was sent."""
    body = {"type": f"/docs/errors/{kind}", "title": kind.replace("-", " "), "status": status, "detail": detail, **more}
    beside = _BESIDE.get(status)
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/problem+json", headers=beside)


def answer(error: errors.MailprefsError) -> web.Response:
    """Return the answer to one of our own errors."""
    for kind, status, name in _KINDS:
        if isinstance(error, kind):
            return problem(status, name, str(error))
    if isinstance(error, errors.Misconfigured):
        telemetry.log.error("misconfigured", why=str(error))  # who calls is told nothing of it
    return problem(500, "internal", "Something went wrong here. Nothing was acknowledged.")


def known(query: Collection[str], *names: str) -> None:
    """Raise Unreadable for a parameter that the route does not have: who asks for ``chanel=sms`` must not be given e-mail."""
    if set(query) - set(names):
        raise errors.Unreadable(f"there is a parameter that means nothing here; there are: {', '.join(names)}")


async def read_body(request: web.Request, *, limit: int, seconds: float, counted: Callable[[int], None] = lambda _size: None) -> bytes:
    """Return the raw body; each chunk is ``counted`` before it is kept. Never inflates anything.

    Raises TooLarge past ``limit`` bytes, without reading what says so itself, and TooSlow past ``seconds``.
    """
    if (request.content_length or 0) > limit:
        raise TooLarge
    taken = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.content.iter_chunked(65_536):
                counted(len(chunk))
                taken += chunk
                if len(taken) > limit:
                    raise TooLarge
    except TimeoutError:
        raise TooSlow from None
    except (web.HTTPException, ConnectionError, ValueError, web.RequestPayloadError):
        raise errors.Unreadable("the request broke off") from None
    return bytes(taken)
