"""A brand's logo, as it may stand in a page: shapes alone, nothing that runs, is fetched, or has a style or a name of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError

LONGEST = 4096  # bytes
_SVG = "{http://www.w3.org/2000/svg}"
_SHAPES = frozenset({"svg", "g", "path", "circle", "ellipse", "rect", "line", "polyline", "polygon"})
_GEOMETRY = "d cx cy r rx ry x y x1 x2 y1 y2 width height points transform viewBox preserveAspectRatio"
_PAINT = "fill fill-opacity fill-rule clip-rule opacity stroke stroke-width stroke-linecap stroke-linejoin stroke-miterlimit stroke-opacity"
_ATTRIBUTES = frozenset(f"{_GEOMETRY} {_PAINT}".split())
_IGNORED = frozenset({"title", "desc", "metadata"})  # the brand's name stands beside it as text
_VALUE = re.compile(r"[\w\s#.,()%+-]*", re.ASCII)


def clean(text: str) -> str:
    """Return an SVG as the markup of a page. Raises ValueError, which says what it may not have."""
    if len(text.encode()) > LONGEST:
        raise ValueError(f"is larger than {LONGEST} bytes")
    if "<!DOCTYPE" in text or "<!ENTITY" in text or "<![" in text:
        raise ValueError("has declarations; save it as plain SVG")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - short, and without any declaration that could grow
    except ParseError:
        raise ValueError("is no well-formed SVG") from None
    if root.tag != f"{_SVG}svg":
        raise ValueError("is no SVG: its outermost element is another")
    if "viewBox" not in root.attrib:
        raise ValueError("has no viewBox, so that it would not scale")
    return "".join(_written(root, outermost=True))


def _written(element: Element, *, outermost: bool = False) -> Iterator[str]:
    name = str(element.tag).removeprefix(_SVG)
    if name in _IGNORED:
        return
    if name not in _SHAPES or (name == "svg" and not outermost):
        raise ValueError(f"has <{name}>, and only shapes are shown: {', '.join(sorted(_SHAPES - {'svg'}))}")
    attributes = "".join(
        f' {key}="{escape(value)}"' for key, value in _attributes(element) if not (outermost and key in ("width", "height"))
    )
    yield f"<{name}{attributes}" + (' aria-hidden="true" focusable="false">' if outermost else ">")
    for child in element:
        yield from _written(child)
    yield f"</{name}>"


def _attributes(element: Element) -> Iterator[tuple[str, str]]:
    for key, value in element.attrib.items():
        if key not in _ATTRIBUTES:
            raise ValueError(f"has the attribute {key.rpartition('}')[2]}, which is none of a plain shape")
        if not _VALUE.fullmatch(value) or "url" in value.lower():
            raise ValueError(f"has a value of {key} that is no number, colour or path")
        yield key, value
