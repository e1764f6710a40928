"""A logo is shapes, and nothing else gets into a page by it."""

from __future__ import annotations

import pytest

from mailprefs import logos

OPEN = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">'


def test_shapes_stand_in_the_page_as_they_were_drawn() -> None:
    drawn = f'{OPEN}<title>A</title><g fill="#0f5f63"><path d="M0 0h8v8z"/><circle cx="4" cy="4" r="2" fill="none"/></g></svg>'
    assert logos.clean(drawn) == (
        '<svg viewBox="0 0 8 8" aria-hidden="true" focusable="false"><g fill="#0f5f63"><path d="M0 0h8v8z"></path>'
        '<circle cx="4" cy="4" r="2" fill="none"></circle></g></svg>'
    )


def test_its_height_is_the_pages() -> None:
    assert "width" not in logos.clean('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8" width="900" height="900"/>')


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<path d="M0 0" onload="alert(1)"/>',
        '<path d="M0 0" style="fill:red"/>',
        '<path d="M0 0" class="first"/>',
        '<path d="M0 0" id="news"/>',
        "<style>body{display:none}</style>",
        "<foreignObject><p>x</p></foreignObject>",
        '<image href="https://tracker.example.net/x.png"/>',
        '<use href="#a"/>',
        '<a href="https://example.net"><path d="M0 0"/></a>',
        '<rect fill="url(https://example.net/x)"/>',
        '<rect fill="URL(#a)"/>',
        '<animate attributeName="x"/>',
        "<text>stop</text>",
        OPEN + "</svg>",
        '<x:script xmlns:x="http://www.w3.org/1999/xhtml">alert(1)</x:script>',
        '<path d="M0 0&quot;&gt;&lt;script&gt;"/>',
    ],
)
def test_what_is_no_shape_is_refused(inside: str) -> None:
    with pytest.raises(ValueError, match="has"):
        logos.clean(f"{OPEN}{inside}</svg>")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<svg",
        "<html/>",
        '<svg viewBox="0 0 1 1"/>',
        '<svg xmlns="http://www.w3.org/2000/svg"/>',
        f"{OPEN}{' ' * 5000}</svg>",
        f'<!DOCTYPE svg [<!ENTITY a "b">]>{OPEN}</svg>',
        f"{OPEN}<![CDATA[x]]></svg>",
    ],
)
def test_what_is_no_small_plain_svg_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is|has"):
        logos.clean(text)
