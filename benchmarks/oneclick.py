"""One-click over HTTP, committed: the whole write path, beside the same service without a database, one commit a press, and pgbench."""

from __future__ import annotations

import asyncio
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from benchmarks import machine
from benchmarks.client import asked, request
from benchmarks.figures import Beside, Figure, turn_by_turn
from benchmarks.options import Options
from benchmarks.stage import HERE, Served, Stage, connected

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
_SECONDS = 3
SETTLING = 100  # of all people, one in so many
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BARE = "the same service without a database"


@dataclass
class Pressing:
    """Presses links of people whom nobody has heard of, and counts what it costs."""

    stage: Stage
    options: Options
    served: Served
    server: int | None  # the postmaster, where it is on this machine and does the work
    spent: list[float] | None = None  # seconds of processor time a press, turn by turn

    async def __call__(self) -> float:
        people = [uuid4() for _ in range(self.options.presses)]
        tokens = self.stage.links.stream(people, self.stage.catalogue.topic("newsletter"))
        presses = [request(f"/u/{token}", b"List-Unsubscribe=One-Click", _FORM) for token in tokens]
        before = self._cpu()
        seconds = await asked(self.served, presses, connections=self.options.connections)
        self.cost = (self._cpu() - before) / len(presses)
        return len(presses) / seconds

    async def costs(self) -> float:
        """Return the microseconds of processor time that each press of the last turn took."""
        return self.cost * 1e6

    def _cpu(self) -> float:
        return machine.spent(self.served.pid) + (machine.family(self.server) if self.server else 0.0)


async def figures(stage: Stage, options: Options) -> AsyncIterator[Figure]:
    """Yield the lines of throughput, processor time, and beside one commit a press and pgbench."""
    async with stage.database() as url, AsyncExitStack() as stack:
        async with connected(url) as connection:
            server = await machine.postmaster(connection)
        real = Pressing(stage, options, await stack.enter_async_context(stage.service(url)), server)
        bare = Pressing(stage, options, await stack.enter_async_context(stage.service(url, "benchmarks.standin", "unrecorded")), None)
        alone = Pressing(stage, options, await stack.enter_async_context(stage.service(url, "benchmarks.standin", "alone")), server)
        runs: dict[str, Callable[[], Awaitable[float]]] = {"bare": bare, "bare_cost": bare.costs, "real": real, "real_cost": real.costs}
        measured = await turn_by_turn(options.turns, **runs, alone=alone, **({"pgbench": _pgbench(url)} if _program() else {}))
    unit = "requests/s"
    yield measured.figure(f"one-click, committed, {options.connections} connections", "real", "bare", 0.6, unit=unit, beside=BARE)
    if server:
        yield measured.figure("one-click, processor time", "real_cost", "bare_cost", 2.5, unit="µs/request", beside=BARE, most=True)
    yield measured.figure("one-click, group commit", "real", "alone", 2.0, unit=unit, beside="one transaction a request")
    if _program():
        yield measured.figure("one-click, beside pgbench", "real", "pgbench", 0.75, unit=unit, beside="pgbench, 32 clients")


async def at(stage: Stage, options: Options, url: str, rows: int) -> Beside:
    """Return how many presses a second are committed on a database that is full.

    After a checkpoint, each page that is changed first goes to the log whole. Presses of a hundredth of all people come first, uncounted:
    then one in five pages has that before it, which is the mean over five minutes of such presses.
    """
    async with stage.service(url) as served:
        await Pressing(stage, replace(options, presses=rows // SETTLING), served, None)()
        return await turn_by_turn(options.turns, presses=Pressing(stage, options, served, None))


def _program() -> str | None:
    return shutil.which("pgbench") or (str(_PROGRAMS[-1]) if _PROGRAMS else None)


def _pgbench(url: str) -> Callable[[], Awaitable[float]]:
    words = ["-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", str(_SECONDS), "-f", str(HERE / "oneclick.pgbench.sql"), url]

    async def run() -> float:
        process = await asyncio.create_subprocess_exec(str(_program()), *words, stdout=PIPE, stderr=DEVNULL)
        said, _ = await process.communicate()
        found = re.search(rb"tps = ([0-9.]+)", said)
        if found is None:
            raise SystemExit("pgbench did not run")
        return float(found[1])

    return run
