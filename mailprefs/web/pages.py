"""What people see: templates rendered in the reader's language and the brand's colours, under a strict policy, no second request."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from mailprefs import colours, languages
from mailprefs.catalogue import Brand
from mailprefs.colours import Palette
from mailprefs.languages import Language

PLAIN = "#0f5f63"  # the colour of a page that is no brand's


@cache
def environment() -> Environment:
    """Return the templates, whose words are in English until ``page`` says otherwise."""
    return Environment(
        loader=PackageLoader("mailprefs.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # an upgrade in place must not give a running service pages that it has no values for
    )


@cache
def _layout() -> str:
    lines = files("mailprefs.web").joinpath("templates", "style.css").read_text(encoding="utf-8").splitlines()
    return "".join(lines)  # a byte for each line is one in a hundred


@cache
def style(colour: str = PLAIN, dark: str | None = None) -> str:
    """Return the one style block of all pages in a brand's colour."""
    found = colours.palette(colour, dark)
    return f"{_roots(found)}\n{_layout()}"


def _roots(found: Palette) -> str:
    light, dark = (";".join(f"--{name}:{shade}" for name, shade in shades.items()) for shades in (found.light, found.dark))
    return f":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"


@cache
def policy(text: str) -> str:
    """Return the Content-Security-Policy of a page with this style block."""
    digest = b64encode(sha256(text.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


@cache
def headers() -> dict[str, str]:
    """Return the headers of every answer, whatever its status; a brand's page has a policy of its own."""
    return {
        "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
        "Content-Security-Policy": policy(style()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",  # with no-referrer, browsers send Origin: null
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
        "X-Robots-Tag": "noindex, nofollow",
        "Permissions-Policy": "interest-cohort=(), geolocation=(), camera=(), microphone=()",
    }


def render(name: str, brand: Brand | None, language: Language, **values: Any) -> tuple[str, str]:
    """Return one page, whole, and its policy. In its template ``_`` and ``ngettext`` are our words, ``say`` the sender's own."""
    dress = style(brand.colour, brand.colour_dark) if brand else style()
    words = {"_": language.gettext, "ngettext": language.ngettext, "say": language.of, "day": language.date}
    shown: dict[str, Any] = {"languages": (), "again": None, "honoured": False, **words, **values}
    text = environment().get_template(f"{name}.html").render(brand=brand, language=language, style=dress, **shown)
    return text, policy(dress)


def page(name: str, *, status: int = 200, brand: Brand | None = None, language: Language | None = None, **values: Any) -> web.Response:
    """Return one page as an answer."""
    return answer(status, *render(name, brand, language or languages.known()[languages.SOURCE], **values))


def answer(status: int, text: str, rules: str) -> web.Response:
    """Return a page that was rendered before."""
    made = web.Response(status=status, text=text, content_type="text/html", charset="utf-8")
    made.headers["Content-Security-Policy"] = rules
    return made


def warm() -> None:
    """Read every template and language, so that no first visitor waits for it."""
    languages.known()
    for name in environment().list_templates(extensions=["html"]):
        environment().get_template(name)
