"""An owner knows an address again; nobody learns it."""

from __future__ import annotations

import pytest

from mailprefs.masks import mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("jane@example.com", "j•••@e•••.com"),
        ("j@mail.example.org", "j•••@m•••.org"),
        ("josé@例え.jp", "j•••@例•••.jp"),
        ('"a@b"@example.net', '"•••@e•••.net'),
        ("jane@localhost", "j•••@l•••"),
        ("+15005550123", "••• 23"),
    ],
)
def test_an_address_is_shown_by_its_first_letters(text: str, shown: str) -> None:
    assert mask(text).shown == shown


def test_one_letter_is_masked_as_many_are() -> None:
    assert mask("j@e.com") == mask("jane.roe.the.third@example.com")


def test_what_is_read_out_says_no_more_than_what_is_shown() -> None:
    found = mask("jane@example.com")
    assert (found.first, found.domain, found.ending) == ("j", "e", "com")
    assert (mask("+15005550123").first, mask("+15005550123").domain) == ("23", "")
