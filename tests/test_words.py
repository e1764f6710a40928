"""Every language of the pages has every message, with the same values, and short where it must be short."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.extract import extract_python
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract

import mailprefs
from mailprefs import languages

PACKAGE = Path(mailprefs.__file__).parent
SPEAKING = ("post.py", "web/screens.py", "web/board.py")  # rooms with words for recipients
OTHERS = [code for code in languages.known() if code != languages.SOURCE]
BUTTONS = {
    "Stop": 14,
    "Turn on": 14,
    "Undo": 14,
    "You get this": 18,
    "Paused": 18,
    "Stopped": 18,
    "Not reaching you": 18,
    "Not sent to you": 18,
}
WIDE = ("Stop these emails", "Stop all marketing emails", "Email me the link", "Yes, send me these emails", "No, do not send them")
VALUES = re.compile(r"%\((\w+)\)s")


def messages() -> Iterator[str | tuple[str, ...]]:
    """Every message of templates and code; one with a plural as a pair."""
    templates = (PACKAGE / "web" / "templates").glob("*.html")
    options = {"trim_blocks": "true", "lstrip_blocks": "true"}
    found: list[object] = [
        text for path in sorted(templates) for _, _, text, _ in babel_extract(BytesIO(path.read_bytes()), ["_", "ngettext"], [], options)
    ]
    for name in SPEAKING:
        found += [
            text for _, _, text, _ in extract_python(BytesIO((PACKAGE / name).read_bytes()), {"gettext": None, "ngettext": None}, [], {})
        ]
    for text in found:
        words = [text] if isinstance(text, str) else [part for part in text if isinstance(part, str)] if isinstance(text, tuple) else []
        if words:
            yield words[0] if len(words) == 1 else tuple(words)


ALL = sorted(set(messages()), key=str)


def catalogue(code: str) -> dict[str, tuple[str, ...]]:
    """Each message of a language by its English, with its plural forms."""
    read = read_po(BytesIO((PACKAGE / "locale" / f"{code}.po").read_bytes()), abort_invalid=True)
    return {
        (each.id if isinstance(each.id, str) else each.id[0]): (each.string,) if isinstance(each.string, str) else tuple(each.string or ())
        for each in read
        if each.id
    }


def test_there_are_words_to_translate() -> None:
    assert len(ALL) > 100
    assert "Stop these emails?" in ALL


@pytest.mark.parametrize("code", OTHERS)
def test_no_message_is_missing_and_none_is_left_over(code: str) -> None:
    ours = {each if isinstance(each, str) else each[0] for each in ALL}
    theirs = catalogue(code)
    assert set(theirs) == ours
    assert not [text for text, forms in theirs.items() if not all(forms)]


@pytest.mark.parametrize("code", OTHERS)
def test_every_message_takes_the_same_values(code: str) -> None:
    for text, forms in catalogue(code).items():
        wanted = set(VALUES.findall(text))
        for form in forms:
            spare = {"num"} if len(forms) > 1 else set()  # "one day" needs no number
            assert wanted - spare <= set(VALUES.findall(form)) <= wanted, (code, text)


@pytest.mark.parametrize("code", OTHERS)
def test_every_plural_is_said_for_every_number(code: str) -> None:
    language = languages.known()[code]
    for each in ALL:
        if not isinstance(each, str):
            for number in (1, 2, 3, 7, 11, 30, 60, 90, 100):
                said = language.ngettext(each[0], each[1], number, brand="x", date="x")
                assert "%(" not in said
                assert said not in each, (code, said)


@pytest.mark.parametrize("code", OTHERS)
def test_what_stands_on_buttons_is_short(code: str) -> None:
    language = languages.known()[code]
    for text, most in BUTTONS.items():
        assert len(language.gettext(text)) <= most, (code, text)
    for text in WIDE:
        assert len(language.gettext(text)) <= 32, (code, text)


@pytest.mark.parametrize("code", OTHERS)
def test_a_state_is_another_word_than_the_button_that_leads_to_it(code: str) -> None:
    language = languages.known()[code]
    assert language.gettext("Stop") != language.gettext("Stopped")


def test_german_keeps_the_word_for_email_in_one_line_and_french_its_marks() -> None:
    assert not [form for forms in catalogue("de").values() for form in forms if "E-Mail" in form]
    assert not [form for forms in catalogue("fr").values() for form in forms if re.search(r"[^\u202f\d][?:]", form)]
