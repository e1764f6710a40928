"""How the pages of one's choices are dressed: the brand, the reader's language, and the same words for everything that does not work."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from mailprefs.catalogue import Brand
from mailprefs.web import pages, problems


def show(request: web.Request, name: str, brand: Brand | None, *, status: int = 200, **values: Any) -> web.Response:
    """Return one page."""
    words: dict[str, Any] = {"_": _plain, "ngettext": _plural}
    return pages.page(name, status=status, brand=brand, **words, **values)


def _plain(text: str, **values: object) -> str:
    return text % values if values else text


def _plural(one: str, many: str, num: int, **values: object) -> str:
    return _plain(one if num == 1 else many, num=num, **values)


def ends_here(_request: web.Request) -> web.Response:
    """Forged, cut, foreign and malformed all get these bytes."""
    return pages.sorry(404, "This link does not work", "It may have been cut off. Open it again from the email, in full.")


def away(_request: web.Request, _brand: Brand) -> web.Response:
    """Say that the page cannot be shown."""
    return _again(pages.sorry(503, "This page is not working right now", "Nothing was changed. Your link keeps working."))


def not_saved(_request: web.Request, _brand: Brand) -> web.Response:
    """Say plainly that nothing was recorded; the press can be repeated."""
    return _again(pages.sorry(503, "Not saved", "The problem is on our side. Nothing was changed."))


def _again(response: web.Response) -> web.Response:
    response.headers.update(problems.RETRY)
    return response
