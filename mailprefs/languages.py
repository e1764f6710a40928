"""Our words in the reader's language. A language is one file, ``locale/CODE.po``; English is what stands in the code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

SOURCE = "en"
_FIRST = (SOURCE, "es", "fr", "de", "pt", "ar", "zh-Hans")  # the order on the pages; what is added comes after, by its code
_LONGEST = 200  # characters of a header that are read


@dataclass(frozen=True, slots=True)
class Language:
    """One language of ours. ``gettext`` and ``ngettext`` take the values of a message by name, as ``%(brand)s``."""

    code: str  # as in HTML: "en", "zh-Hans"
    name: str  # in itself
    direction: str  # "ltr" or "rtl"
    locale: Locale = field(repr=False)
    words: NullTranslations = field(repr=False, default_factory=NullTranslations)

    def gettext(self, text: str, **values: object) -> str:
        found = self.words.gettext(text)
        return found % values if values else found

    def ngettext(self, one: str, many: str, num: int, **values: object) -> str:
        return self.words.ngettext(one, many, num) % {"num": num, **values}

    @property
    def gap(self) -> str:
        """What stands between two sentences: nothing where the full stop is as wide as a letter."""
        return "" if self.locale.language in ("zh", "ja") else " "

    def date(self, day: date) -> str:
        """Return a day with its month as a word."""
        return str(format_date(day, "long", locale=self.locale))

    def of(self, texts: Mapping[str, str]) -> str:
        """Return a sender's own text in this language; else in English, else in the first that it has."""
        for code in (self.code, self.code.partition("-")[0], SOURCE):
            if code in texts:
                return texts[code]
        return next(iter(texts.values()))


@cache
def known() -> Mapping[str, Language]:
    """Return every language by its code, in the order in which pages offer them."""
    folder = files("mailprefs").joinpath("locale")
    found = {entry.name.removesuffix(".po"): entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".po")}
    codes = [code for code in _FIRST if code in found or code == SOURCE] + sorted(set(found) - set(_FIRST))
    return {code: _language(code, found.get(code)) for code in codes}


def _language(code: str, catalogue: bytes | None) -> Language:
    locale = Locale.parse(code, sep="-")
    name = locale.languages.get(code.replace("-", "_")) or code
    return Language(code, _capital(name), locale.text_direction, locale, _compiled(catalogue) if catalogue else NullTranslations())


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _compiled(catalogue: bytes) -> GNUTranslations:
    """Return a catalogue as gettext reads it. Done once, at start, so that nothing has to be built for an installation."""
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(catalogue)))
    compiled.seek(0)
    return GNUTranslations(compiled)


def chosen(*, asked: str = "", stored: str | None = None, accepted: str = "", usual: str = SOURCE) -> Language:
    """Return the language of a page: what was pressed, else the recipient's own, else the browser's, else the brand's."""
    wishes = [asked, stored or "", *_accepted(accepted), usual]
    return next((language for language in map(_closest, wishes) if language), known()[SOURCE])


def _accepted(header: str) -> list[str]:
    """Return the codes of an Accept-Language header, the most wanted first (RFC 9110 §12.5.4)."""
    wanted: list[tuple[float, str]] = []
    for part in header[:_LONGEST].split(","):
        code, _, quality = part.partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=") or 1)
        except ValueError:
            weight = 0.0
        if 0 < weight <= 1:
            wanted.append((-weight, code.strip()))
    return [code for _, code in sorted(wanted, key=lambda each: each[0])]


def _closest(wish: str) -> Language | None:
    """Return the language that a code means: "pt_BR" is ours in "pt", "zh-CN" in "zh-Hans", "zh-TW" in none."""
    if not wish or len(wish) > 35:
        return None
    try:
        locale = Locale.parse(wish.replace("_", "-"), sep="-")
    except (ValueError, UnknownLocaleError, TypeError):
        return None
    likely: tuple[str, ...] = (f"{locale.language}-{locale.script}", locale.language) if locale.script else (locale.language,)
    if locale.language == "zh":
        traditional = locale.script == "Hant" or (not locale.script and locale.territory in ("TW", "HK", "MO"))
        likely = () if traditional else ("zh-Hans",)
    return next((known()[code] for code in likely if code in known()), None)
