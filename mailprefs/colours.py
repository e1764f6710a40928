"""A brand's colour becomes the colours of its pages, each moved just as far as it must be to be read (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

Rgb = tuple[int, int, int]
BLACK: Rgb = (0, 0, 0)
WHITE: Rgb = (255, 255, 255)
STEP = 0.02  # of the way to black or white
TEXT, BOLD, SHAPE = 4.5, 7.0, 3.0  # ratios: soft text, text, what is no text


@dataclass(frozen=True, slots=True)
class Theme:
    """What is the same for every brand, and how its own colour may move."""

    name: str
    bg: Rgb
    card: Rgb
    ink: Rgb
    soft: Rgb
    line: Rgb
    edge: Rgb
    toward: Rgb  # where a brand's colour is moved to until it can be read
    link: float  # ratio of its links
    tint: float  # how much of the brand's colour the panel has at most


LIGHT = Theme(
    "light", (244, 246, 246), WHITE, (24, 32, 33), (74, 88, 89), (214, 221, 220), (118, 132, 127), toward=BLACK, link=TEXT, tint=0.07
)
DARK = Theme(
    "dark",
    (14, 19, 19),
    (23, 30, 30),
    (235, 241, 240),
    (176, 189, 188),
    (45, 56, 56),
    (130, 145, 143),
    toward=WHITE,
    link=BOLD,
    tint=0.16,
)


@dataclass(frozen=True, slots=True)
class Moved:
    """A shade of a brand's colour that could not be read as it was."""

    theme: str
    token: str
    found: float  # the ratio it had
    needed: float
    used: str  # the shade that is used instead


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a brand's pages, by name, as ``#rrggbb``."""

    light: Mapping[str, str]
    dark: Mapping[str, str]
    moved: tuple[Moved, ...]


@cache
def palette(colour: str, dark: str | None = None) -> Palette:
    """Return what a brand's colour comes to. The fill of its buttons is never changed."""
    moved: list[Moved] = []
    return Palette(_shades(LIGHT, _rgb(colour), moved), _shades(DARK, _rgb(dark or colour), moved), tuple(moved))


def _shades(theme: Theme, brand: Rgb, moved: list[Moved]) -> dict[str, str]:
    tint = next(shade for shade in _tints(theme, brand) if _reads(shade, theme))
    grounds = (theme.bg, theme.card)

    def readable(token: str, needed: float, *on: Rgb) -> Rgb:
        used = next(shade for shade in _mixes(brand, theme.toward) if all(ratio(shade, each) >= needed for each in on))
        if used != brand:
            moved.append(Moved(theme.name, token, min(ratio(brand, each) for each in on), needed, _hex(used)))
        return used

    found = {
        **{name: getattr(theme, name) for name in ("bg", "card", "ink", "soft", "line", "edge")},
        "fill": brand,
        "on": WHITE if ratio(WHITE, brand) >= TEXT else BLACK,
        "fedge": readable("fedge", SHAPE, *grounds),
        "btext": readable("btext", theme.link, *grounds, tint),
        "tint": tint,
    }
    return {name: _hex(shade) for name, shade in found.items()}


def _tints(theme: Theme, brand: Rgb) -> Iterator[Rgb]:
    share = theme.tint
    while share > 0:
        yield _mix(theme.card, brand, share)
        share -= STEP
    yield theme.card


def _reads(tint: Rgb, theme: Theme) -> bool:
    return ratio(theme.ink, tint) >= BOLD and ratio(theme.soft, tint) >= TEXT


def _mixes(colour: Rgb, toward: Rgb) -> Iterator[Rgb]:
    return (_mix(colour, toward, min(1.0, n * STEP)) for n in range(int(1 / STEP) + 1))


def _mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def ratio(one: Rgb, other: Rgb) -> float:
    """Return the contrast of two colours, from 1 to 21 (WCAG 2.2, contrast ratio)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Rgb) -> float:
    red, green, blue = (_LINEAR[channel] for channel in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


_LINEAR = tuple(_linear(channel / 255) for channel in range(256))


def _rgb(colour: str) -> Rgb:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _hex(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
