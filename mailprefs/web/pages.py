"""What people see: templates rendered under a strict policy, no script, no second request."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

CONTINUES = "Messages about an order, an account or care you have with us."


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("mailprefs.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


@cache
def _style() -> str:
    return files("mailprefs.web").joinpath("templates", "style.css").read_text(encoding="utf-8").strip()


@cache
def headers() -> dict[str, str]:
    """Return the headers of every answer, whatever its status."""
    digest = b64encode(sha256(_style().encode()).digest()).decode()
    return {
        "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",  # with no-referrer, browsers send Origin: null
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
        "X-Robots-Tag": "noindex, nofollow",
        "Permissions-Policy": "interest-cohort=(), geolocation=(), camera=(), microphone=()",
    }


def page(name: str, *, status: int = 200, **values: Any) -> web.Response:
    """Return one page, whole."""
    text = _environment().get_template(f"{name}.html").render(**values)
    return web.Response(status=status, text=text, content_type="text/html", charset="utf-8")


def sorry(status: int, title: str, words: str) -> web.Response:
    """Return a page that says what is wrong and what to do; the same bytes whatever was sent."""
    return page("sorry", status=status, title=title, words=words, brand=None)
