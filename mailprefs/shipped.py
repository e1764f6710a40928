"""Where the files lie that come with the code: inside an installed package, else at the repository's root (an editable install)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mailprefs.errors import Misconfigured


@cache
def folder(name: str) -> Path:
    """Return one of our folders: ``sql``, ``examples``, ``docs``. Raises Misconfigured if it did not come with this installation."""
    package = Path(__file__).parent
    for place in (package / name, package.parent / name):
        if place.is_dir():
            return place
    raise Misconfigured(f"the folder '{name}' did not come with this installation")
