"""An address as its owner knows it again and nobody else learns it: ``j•••@e•••.com``, a number by its last two digits."""

from __future__ import annotations

from dataclasses import dataclass

HIDDEN = "•••"


@dataclass(frozen=True, slots=True)
class Mask:
    """What is shown, and the letters that are read out instead of bullets."""

    shown: str
    first: str  # of the mailbox, or the last two digits of a number
    domain: str = ""  # the first letter of the domain; none of a number
    ending: str = ""  # "com"


def mask(text: str) -> Mask:
    """Return a canonical address, masked. A domain without a dot shows no ending."""
    local, at, domain = text.rpartition("@")
    if not at:
        return Mask(f"{HIDDEN} {text[-2:]}", text[-2:])
    name, dot, ending = domain.rpartition(".")
    shown = f"{local[:1]}{HIDDEN}@{(name or ending)[:1]}{HIDDEN}{dot}{ending if name else ''}"
    return Mask(shown, local[:1], (name or ending)[:1], ending if name else "")
