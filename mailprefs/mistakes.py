"""What is wrong in a file of settings, said to the one who wrote it: at its line and key, in words of ours."""

from __future__ import annotations

import re

from pydantic_core import ErrorDetails, PydanticCustomError

_SAID = {  # pydantic's kinds of error, where it does not say them to the writer of a file
    "extra_forbidden": "there is no such key",
    "missing": "is missing",
    "tuple_type": "wants a table of its own, in double brackets",
}
_FORMS = {  # what a key that has a pattern must look like
    "name": "wants lower-case letters, digits and hyphens",
    "link_host": "wants a host alone, such as go.example.com",
    "mailto": "wants an address such as u@go.example.com",
    "colour": "wants a colour such as #0f5f63",
    "provider": "wants the name of a provider",
    "brand": "wants the name of a brand",
}
_VARIABLE = "wants the NAME of an environment variable, in capitals; the secret itself never stands in this file"


def wrong(what: str, *at: str | int) -> PydanticCustomError:
    """Return the error for what is wrong at a key below the one that is being validated."""
    return PydanticCustomError("wrong", "{what}", {"what": what, "at": at})


def misspelt(name: str, text: str, error: str) -> str:
    """Say what is wrong with the TOML itself, at its line and key where tomllib gives a line."""
    what, _, place = error.rpartition(" (at ")
    line = int(found[1]) if (found := re.match(r"line (\d+)", place)) else len(text.splitlines())
    key = _KEY.match(text.splitlines()[line - 1]) if text.strip() else None
    return f"{name} line {line}: {f'{key[1]}: ' if key else ''}{what}"


def complaint(name: str, text: str, error: ErrorDetails) -> str:
    where = (*error["loc"], *error.get("ctx", {}).get("at", ()))
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
    line = _line(text, where)
    return f"{name}{f' line {line}' if line else ''}: {f'{key}: ' if key else ''}{_said(error)}"


def _said(error: ErrorDetails) -> str:
    if error["type"] == "string_pattern_mismatch":
        return _FORMS.get(str(error["loc"][-1]), _VARIABLE)
    return _SAID.get(error["type"], error["msg"])


_HEADER = re.compile(r"\s*(\[\[?)([\w.\- ]+)\]")
_KEY = re.compile(r'\s*"?([\w-]+)"?\s*=')


def _line(text: str, where: tuple[int | str, ...]) -> int | None:
    """Return the line that a key stands on, or that its table begins on. tomllib keeps no positions, so the headers are counted."""
    seen: dict[tuple[str, ...], int] = {}
    table: tuple[int | str, ...] = ()
    best = None
    for n, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            names = tuple(part.strip() for part in header[2].split("."))
            if header[1] == "[[":
                seen = {k: v for k, v in seen.items() if len(k) <= len(names) or k[: len(names)] != names}
                seen[names] = seen.get(names, -1) + 1
            table = tuple(x for i, part in enumerate(names, 1) for x in ((part, seen[names[:i]]) if names[:i] in seen else (part,)))
            best = n if table == where[: len(table)] else best
        elif (key := _KEY.match(line)) and (*table, key[1]) == where[: len(table) + 1]:
            return n
    return best
