"""How much is measured. Every size can be set in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar


@dataclass(frozen=True)
class Options:
    """Sizes, each set by BENCH_ and its name in capitals: about ten minutes as they stand here, one with QUICK=1."""

    turns: int = 5
    links: int = 100_000  # minted in a turn
    presses: int = 10_000  # one-clicks in a turn
    connections: int = 256
    batches: int = 40  # deliveries of 1,000 events in a turn
    rows: int = 10_000_000  # addresses; everything is measured at a tenth of them as well
    questions: int = 100  # batches of 1,000 decisions in a turn

    QUICK: ClassVar[dict[str, int]] = {
        "turns": 3,
        "links": 20_000,
        "presses": 3_000,
        "batches": 10,
        "rows": 500_000,
        "questions": 30,
    }

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Options:
        """Return what the environment says, and the usual for the rest."""
        usual = replace(cls(), **(cls.QUICK if environment.get("QUICK", "0") not in ("", "0") else {}))
        said = {each.name: value for each in fields(cls) if (value := environment.get(f"BENCH_{each.name.upper()}"))}
        return replace(usual, **{name: int(value) for name, value in said.items()})
