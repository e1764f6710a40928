"""What the reader of a message sees: its words, and the links that can be followed. Hostile bytes change nothing but the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # email.message brings in socket, which minting must not
    from email.message import Message

    Part = Message[Any, Any]


def shown(message: Part) -> Iterator[Part]:
    """Yield the parts that a reader is shown: text and HTML, outside of attachments and of forwarded messages."""
    if message.get_content_disposition() == "attachment" or message.get_content_maintype() == "message":
        return
    if message.is_multipart():  # asked first: get_payload() decodes, and a hostile charset makes it raise
        parts: Any = message.get_payload()
        for part in parts:
            yield from shown(part)
    elif message.get_content_type() in ("text/plain", "text/html"):
        yield message


def shows(part: Part, url: str) -> bool:
    """Tell whether a text part lets its reader follow this very link: written out, or behind words or a picture of an HTML part."""
    text = text_of(part)
    if part.get_content_type() != "text/html":
        return _written(url, text)
    page = _read(text)
    return url in page.followed or _written(url, "".join(page.words))


def words(part: Part) -> str:
    """Return what a part says to its reader, in one line: for an HTML part, without its markup."""
    text = text_of(part)
    return " ".join((" ".join(_read(text).words) if part.get_content_type() == "text/html" else text).split())


def text_of(part: Part) -> str:
    """Return the text of a text part, whatever it says of its encoding: what cannot be decoded is replaced, never raised."""
    raw = part.get_payload(decode=True)
    content = raw if isinstance(raw, bytes) else b""
    try:
        return content.decode(part.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):  # an unknown charset
        return content.decode("utf-8", "replace")


def _written(url: str, text: str) -> bool:
    """A longer link that begins with this one is another link."""
    return re.search(re.escape(url) + r"(?![\w/?#&=%-])", text) is not None


class _Page(HTMLParser):
    """The words of a page, and the links that have words or a picture in them. Comments and styles are not seen."""

    UNSEEN = ("script", "style", "template", "title")

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.followed: set[str] = set()
        self._link = ""
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._link = (dict(attrs).get("href") or "").strip()
        elif tag == "img" and not self._unseen:
            self.followed.add(self._link)
        elif tag in self.UNSEEN:
            self._unseen += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._link = ""
        elif tag in self.UNSEEN:
            self._unseen = max(0, self._unseen - 1)

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        self.words.append(data)
        if data.strip():
            self.followed.add(self._link)


def _read(text: str) -> _Page:
    page = _Page()
    with suppress(AssertionError):  # what html.parser raises on a broken <![section: what stood before it has been read
        page.feed(text)
        page.close()
    return page
