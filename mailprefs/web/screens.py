"""How the pages of one's choices are dressed: the brand, the reader's language, and the same words for everything that does not work."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from mailprefs import languages
from mailprefs.catalogue import Brand
from mailprefs.web import pages, problems


def show(
    request: web.Request, name: str, brand: Brand | None, *, stored: str | None = None, status: int = 200, **values: Any
) -> web.Response:
    """Return one page in the reader's language: what was pressed, else the recipient's own, else the browser's."""
    said = languages.chosen(asked=request.query.get("lang", ""), stored=stored, accepted=request.headers.get("Accept-Language", ""))
    words: dict[str, Any] = {"_": said.gettext, "ngettext": said.ngettext, "language": said, "honoured": False}
    words["continues"] = said.of(brand.continues) if brand and brand.continues else said.gettext(pages.CONTINUES)
    return pages.page(name, status=status, brand=brand, **(words | values))


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
