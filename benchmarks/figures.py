"""A figure is never alone: it stands beside a limit that was measured in the same run, turn by turn, five times."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

TIMES = 5
Run = Callable[[], Awaitable[float]]


@dataclass
class Span:
    """How long something took."""

    seconds: float = 0.0


@contextmanager
def timed() -> Iterator[Span]:
    """Lend a span that is known at the end."""
    span, began = Span(), perf_counter()
    yield span
    span.seconds = perf_counter() - began


@dataclass(frozen=True)
class Figure:
    """One line of the table. The ratio is of figure to limit; the target is the least that it may be, or the ``most``."""

    path: str
    unit: str
    figure: float
    limit: float
    ratio: float
    target: float
    beside: str  # what the limit is
    most: bool = False  # the target is the most that the ratio may be

    @property
    def holds(self) -> bool:
        return self.ratio <= self.target if self.most else self.ratio >= self.target

    def spelled(self) -> dict[str, object]:
        """Return the figure as BENCH_JSON has it."""
        said = {"path": self.path, "figure": round(self.figure, 3), "limit": round(self.limit, 3), "ratio": round(self.ratio, 3)}
        return {**said, "target": self.target, "holds": self.holds}


@dataclass(frozen=True)
class Beside:
    """Several things measured turn by turn, so that what else the machine does falls on all alike: a number of each for each turn."""

    turns: Mapping[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        return median(self.turns[name])

    def ratio(self, name: str, limit: str) -> float:
        """Return the median of what the turns came to, each beside its own limit."""
        return median(one / other for one, other in zip(self.turns[name], self.turns[limit], strict=True))

    def figure(self, path: str, name: str, limit: str, target: float, *, unit: str, beside: str, most: bool = False) -> Figure:
        """Return the line of the table in which ``name`` stands beside ``limit``."""
        return Figure(path, unit, self.median(name), self.median(limit), self.ratio(name, limit), target, beside, most)


async def turn_by_turn(times: int = TIMES, **runs: Run) -> Beside:
    """Return what each run came to in each of the turns, after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(times + 1):
        for name, run in runs.items():
            number = await run()
            if turn:
                found[name].append(number)
    return Beside(found)
