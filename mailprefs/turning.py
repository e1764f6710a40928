"""A key ring that is turned while it is in use: a key that was added to its file is known to whoever meets a link of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from itsdangerous import Signer

from mailprefs.errors import Misconfigured
from mailprefs.links import Key, KeyRing

PAUSE = 1.0  # seconds between two looks at the file: forged key ids ask for one with each request


@dataclass
class _Look:
    """What was seen at the last look."""

    ring: KeyRing
    stamp: tuple[int, int]  # when the file was changed, in nanoseconds, and its size
    at: float = float("-inf")


@dataclass(frozen=True)
class Turning(KeyRing):
    """Verifies under its own keys, and under those that its file has gained since. It mints under its own until it is loaded anew."""

    source: Path = field(default=Path(), kw_only=True)
    look: _Look = field(kw_only=True, repr=False, compare=False)

    def key(self, number: int) -> Key | None:
        return super().key(number) or self._now().key(number)

    def signer(self, number: int) -> Signer | None:
        return super().signer(number) or self._now().signer(number)

    def _now(self) -> KeyRing:
        """Return the ring as its file has it, or had it when it could last be read."""
        if monotonic() - self.look.at >= PAUSE:
            self.look.at = monotonic()
            with suppress(Misconfigured, OSError):
                self._read()
        return self.look.ring

    def _read(self) -> None:
        stamp = _stamp(self.source)
        if stamp != self.look.stamp:
            ring = KeyRing.load(str(self.source))
            if ring.digest == self.digest:  # another one would take everybody for a stranger: no key of it counts
                self.look.ring, self.look.stamp = ring, stamp


def load(source: str) -> KeyRing:
    """Read a key ring from a file, which is looked at again when it is turned, or from its JSON. Raises Misconfigured."""
    ring = KeyRing.load(source)
    try:
        path = Path(source).resolve()
        stamp = _stamp(path)
    except (OSError, ValueError):  # it is the JSON itself
        return ring
    return Turning(ring.digest, ring.keys, ring.export, source=path, look=_Look(ring, stamp))


def _stamp(path: Path) -> tuple[int, int]:
    seen = path.stat()
    return seen.st_mtime_ns, seen.st_size
