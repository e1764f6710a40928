"""What stands behind an imported consent: where it was given, and what it said. Words about a form, never about a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from mailprefs.db import Connection, queries


@dataclass(frozen=True)
class Proof:
    """Where a consent was given, and the words that were shown there ("" where the file holds none). Many people share one."""

    source: str
    notice: str = ""

    @cached_property
    def digest(self) -> str:
        """The name of this proof: the same words are the same proof."""
        return sha256(f"{self.source}\0{self.notice}".encode()).hexdigest()[:32]


async def keep(connection: Connection, proofs: Iterable[Proof]) -> None:
    """Keep proofs, each once, in the caller's transaction."""
    found = sorted({proof.digest: proof for proof in proofs}.values(), key=lambda proof: proof.digest)
    await queries("proof").keep(
        connection, digest=[p.digest for p in found], source=[p.source for p in found], notice=[p.notice for p in found]
    )
