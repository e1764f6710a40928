"""Pages: rendered whole, under a policy that lets nothing run and nothing be fetched, whatever stands in them."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError

from mailprefs import languages
from mailprefs.catalogue import Brand
from mailprefs.web import pages

BRAND = Brand(
    name="connective",
    title="Connective Care",
    number=1,
    link_host="go.example.com",
    mailto="u@go.example.com",
    postal_address="1 Main Street",
    colour="#ffd400",
)
HOSTILE = '"><script>alert(1)</script><img src=x onerror=y>{{ 7 * 7 }}'


class Seen(HTMLParser):
    """The elements of a page, with their attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.texts[self._inside] = self.texts.get(self._inside, "") + data

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def rendered(title: str = "Connective Care", **changes: object) -> str:
    return pages.render("lost", BRAND.model_copy(update={"title": title, **changes}), languages.known()["en"], mailing=True)[0]


def test_the_policy_lets_in_the_style_of_the_page_and_nothing_else() -> None:
    policy = pages.page("lost", brand=BRAND, mailing=True).headers["Content-Security-Policy"]
    style = Seen(rendered()).texts["style"]
    assert f"style-src 'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" in policy, "else a browser shows the page bare"
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "script-src" not in policy, "what is not named is 'none'"


def test_a_page_asks_for_nothing_and_runs_nothing() -> None:
    seen = Seen(rendered())
    assert {"html", "head", "title", "style", "body"} <= seen.tags
    assert not seen.tags & {"script", "link", "iframe", "object", "img", "base"}
    assert not any(name.startswith("on") or name in ("src", "style") for _, attrs in seen.elements for name in attrs)
    assert ("html", {"lang": "en", "dir": "ltr"}) in seen.elements
    assert "url(" not in seen.texts["style"]


def test_what_stands_in_a_page_is_text_whatever_it_is() -> None:
    seen = Seen(rendered(HOSTILE, postal_address=HOSTILE))
    assert seen.tags == Seen(rendered()).tags
    assert HOSTILE in " ".join(seen.texts.values()), "the control: it is there, as it was written"


def test_a_page_that_lacks_a_value_is_not_shown() -> None:
    with pytest.raises(UndefinedError):
        pages.page("lost", status=404)


def test_the_same_page_is_the_same_bytes() -> None:
    answers = [pages.page("lost", status=404, mailing=False) for _ in range(2)]
    assert answers[0].text == answers[1].text
    assert [(a.status, a.content_type, a.charset) for a in answers] == [(404, "text/html", "utf-8")] * 2


def test_every_answer_tells_browsers_to_keep_to_themselves() -> None:
    headers = pages.headers()
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "noindex" in headers["X-Robots-Tag"]
    assert headers["Referrer-Policy"] == "same-origin", "no other site learns a link"
    assert re.fullmatch(r"max-age=\d{8}; includeSubDomains", headers["Strict-Transport-Security"])
    assert "Set-Cookie" not in headers
