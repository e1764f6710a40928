"""Each reader is spoken to in a language of theirs, if we have it."""

from __future__ import annotations

from datetime import date

import pytest

from mailprefs import languages


@pytest.mark.parametrize(
    ("wishes", "code"),
    [
        ({}, "en"),
        ({"accepted": "de-CH,de;q=0.9,en;q=0.8"}, "de"),
        ({"accepted": "xx, fr;q=0.2, es;q=0.7"}, "es"),
        ({"accepted": "en;q=0, fr"}, "fr"),
        ({"accepted": "zh-TW,zh-CN;q=0.5"}, "zh-Hans"),
        ({"accepted": "zh-Hant"}, "en"),
        ({"stored": "pt_BR", "accepted": "de"}, "pt"),
        ({"asked": "ar", "stored": "pt", "accepted": "de"}, "ar"),
        ({"asked": "xx", "usual": "fr"}, "fr"),
        ({"accepted": "\x00;q=x,,;;=," + "a" * 5000}, "en"),
        ({"stored": "../../etc/passwd", "asked": "de" * 100}, "en"),
    ],
)
def test_a_page_is_in_the_language_that_was_asked_for(wishes: dict[str, str], code: str) -> None:
    assert languages.chosen(**wishes).code == code


def test_each_language_is_called_what_its_readers_call_it() -> None:
    found = languages.known()
    assert list(found) == ["en", "es", "fr", "de", "pt", "ar", "zh-Hans"]
    assert [each.name for each in found.values()][:5] == ["English", "Español", "Français", "Deutsch", "Português"]
    assert {each.code for each in found.values() if each.direction == "rtl"} == {"ar"}


def test_a_senders_own_text_is_in_the_readers_language_where_it_has_one() -> None:
    texts = {"en": "News", "es": "Noticias", "zh-Hans": "新闻"}
    assert [languages.known()[code].of(texts) for code in ("es", "de", "zh-Hans")] == ["Noticias", "News", "新闻"]
    assert languages.known()["en"].of({"fr": "Nouvelles"}) == "Nouvelles"


def test_a_day_has_its_month_as_a_word() -> None:
    assert [languages.known()[code].date(date(2026, 11, 22)) for code in ("en", "de")] == ["November 22, 2026", "22. November 2026"]
