"""Every brand's pages can be read, whatever colour it brings."""

from __future__ import annotations

from itertools import product

from mailprefs import colours
from mailprefs.colours import BOLD, SHAPE, TEXT, palette, ratio


def rgb(text: str) -> colours.Rgb:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def test_every_colour_of_the_cube_gives_pages_that_can_be_read() -> None:
    for red, green, blue in product(range(0, 256, 15), repeat=3):
        found = palette.__wrapped__(f"#{red:02x}{green:02x}{blue:02x}")
        for shades, link in ((found.light, TEXT), (found.dark, BOLD)):
            c = {name: rgb(shade) for name, shade in shades.items()}
            grounds = [c["bg"], c["card"]]
            assert ratio(c["on"], c["fill"]) >= TEXT
            assert min(ratio(c["fedge"], each) for each in grounds) >= SHAPE
            assert min(ratio(c["edge"], each) for each in grounds) >= SHAPE
            assert min(ratio(c["btext"], each) for each in [*grounds, c["tint"]]) >= link
            assert min(ratio(c["ink"], each) for each in [*grounds, c["tint"]]) >= BOLD
            assert min(ratio(c["soft"], each) for each in [*grounds, c["tint"]]) >= TEXT
            assert c["fill"] == (red, green, blue)


def test_a_yellow_brand_keeps_its_button_and_gets_links_that_can_be_read() -> None:
    found = palette("#ffd400")
    assert [found.light[name] for name in ("fill", "on", "fedge", "btext")] == ["#ffd400", "#000000", "#a88c00", "#856e00"]
    assert [found.dark[name] for name in ("fill", "btext")] == ["#ffd400", "#ffd400"]
    assert [(each.theme, each.token, each.used) for each in found.moved] == [("light", "fedge", "#a88c00"), ("light", "btext", "#856e00")]
    assert all(each.found < each.needed for each in found.moved)


def test_a_colour_that_can_be_read_is_left_as_it_is() -> None:
    assert [each for each in palette("#0f5f63").moved if each.theme == "light"] == []
    assert palette("#0f5f63", "#9be0e4").dark["fill"] == "#9be0e4"
    assert palette("#0f5f63", "#9be0e4").moved == ()


def test_contrast_is_measured_as_wcag_does() -> None:
    assert ratio(colours.BLACK, colours.WHITE) == 21
    assert round(ratio(rgb("#777777"), colours.WHITE), 2) == 4.48
