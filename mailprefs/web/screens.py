"""How pages are dressed: the brand, the reader's language, and the same words for everything that does not work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from mailprefs import languages
from mailprefs.catalogue import Brand
from mailprefs.errors import Unavailable, Unsure
from mailprefs.languages import Language
from mailprefs.web import pages, problems
from mailprefs.web.keys import HOUSE, House

CHOSEN = "/preferences"  # the one page whose brand is not in its link

AGAIN = "-"  # shown in another language, where there is nothing to take back
FILLED = "{filled}"  # where a prepared page has one word that is known only when it is shown

Prepared = Mapping[tuple[str, int, str, str], tuple[str, str]]  # page, whose, language, what its word is if it has one → text, policy
PREPARED: web.AppKey[Prepared] = web.AppKey("prepared")


@dataclass(frozen=True, slots=True)
class Offered:
    """A language as a page offers it."""

    code: str
    name: str
    direction: str
    href: str


def show(
    request: web.Request,
    name: str,
    brand: Brand | None,
    *,
    locale: str | None = None,
    again: str | None = None,
    status: int = 200,
    **values: Any,
) -> web.Response:
    """Return one page in the reader's language.

    What a press made is shown ``again`` in another language by a press of its own, which carries this value and records nothing; without
    it, a link leads there.
    """
    said = speaking(request, brand, locale)
    wanted = {"brand": brand.name} if brand and request.path == CHOSEN else {}
    known: dict[str, Any] = {"session": "", "languages": list(_offered(**wanted)), "again": again, "query": _query(request)}
    return pages.page(name, status=status, brand=brand, language=said, **(known | values))


def speaking(request: web.Request, brand: Brand | None, locale: str | None = None) -> Language:
    """Return the language of a page: what was pressed, else the recipient's own, else the browser's, else the brand's."""
    accepted = request.headers.get("Accept-Language", "")
    usual = brand.language if brand else languages.SOURCE
    return languages.chosen(asked=request.query.get("lang", ""), stored=locale, accepted=accepted, usual=usual)


def _query(request: web.Request) -> str:
    """Return what keeps the language that was asked for, on the way to another page of ours."""
    asked = request.query.get("lang", "")
    return f"?lang={asked}" if asked in languages.known() else ""


def _offered(**wanted: str) -> Iterator[Offered]:
    """Yield each language and the way to it from a page; ``wanted`` is what the page was asked for with besides."""
    for each in languages.known().values():
        yield Offered(each.code, each.name, each.direction, f"?{urlencode({**wanted, 'lang': each.code})}")


def ends_here(request: web.Request) -> web.Response:
    """Forged, cut, foreign and malformed all get these bytes, and the way to another link."""
    return _fixed(request, "lost", 404, _host_of(request))


def away(request: web.Request, brand: Brand | None) -> web.Response:
    """Say that the page cannot be shown, and that nothing changed."""
    return _again(_fixed(request, "away", 503, brand))


def not_saved(request: web.Request, brand: Brand | None, error: Unavailable, *, session: str = "") -> web.Response:
    """Say plainly that nothing was recorded, or that it may have been; the press can be repeated, in the session that it was made in."""
    return _again(_fixed(request, "unsure" if isinstance(error, Unsure) else "unsaved", 503, brand, session=session))


def saved(request: web.Request, brand: Brand | None, *, number: str = "") -> web.Response:
    """Say that a stop is recorded, with the number of its receipt if it has one, where the rest of its page cannot be shown."""
    return _fixed(request, "saved", 200, brand, number=number)


def kept(request: web.Request, brand: Brand | None, *, session: str = "") -> web.Response:
    """Say that whatever was pressed is recorded, where the rest of its page cannot be shown."""
    return _fixed(request, "kept", 200, brand, session=session)


def prepared(house: House) -> Prepared:
    """Return every page that must be there when nothing else is: neither the database nor a template is asked for them."""
    pages.warm()
    each = [(name, "") for name in ("away", "lost", "unsaved", "unsure", "saved", "kept")]
    each += [("unsaved", "session"), ("unsure", "session"), ("kept", "session"), ("saved", "number")]
    return {
        (name, brand.number if brand else 0, code, word): pages.render(name, brand, language, **_words(word, house, brand))
        for brand in (*house.catalogue.brand, None)
        for code, language in languages.known().items()
        for name, word in each
    }


def _words(word: str, house: House, brand: Brand | None) -> dict[str, Any]:
    """Return what a prepared page is rendered with. In a session, a link to another language would leave it."""
    mailing = brand is not None and brand.number in house.mailing
    known = {"mailing": mailing, "languages": list(_offered()), "again": AGAIN if word == "session" else None}
    return known | {each: FILLED if each == word else "" for each in ("session", "number")}


def _fixed(request: web.Request, name: str, status: int, brand: Brand | None, **filled: str) -> web.Response:
    word, value = next(((word, value) for word, value in filled.items() if value), ("", ""))
    text, rules = request.app[PREPARED][name, brand.number if brand else 0, speaking(request, brand).code, word]
    return pages.answer(status, text.replace(FILLED, escape(value)), rules)


def _host_of(request: web.Request) -> Brand | None:
    """Return whose links lead to this host, or the only brand there is."""
    brands = request.app[HOUSE].catalogue.brand
    found = [brand for brand in brands if brand.link_host == request.host] or brands
    return found[0] if len(found) == 1 else None


def _again(response: web.Response) -> web.Response:
    response.headers.update(problems.RETRY)
    return response
