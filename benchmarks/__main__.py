"""``make bench``: every path beside its limit, as a table, and as JSON in BENCH_JSON. ``make bench ONLY=webhooks,tokens`` runs some."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks import crowds, filtering, machine, oneclick, tokens, webhooks
from benchmarks.figures import Figure
from benchmarks.options import Options
from benchmarks.stage import Stage, connected, staged
from mailprefs import telemetry

PATHS = {"tokens": tokens, "oneclick": oneclick, "webhooks": webhooks, "crowds": crowds, "filtering": filtering}
_ROW = "{:<42} {:>12} {:>12} {:>7} {:>7}  {:<5}  {}"


async def main(only: Sequence[str]) -> None:
    """Print the table, a line as soon as it is known. Exit 0 whatever it says: a figure that misses its target is a result."""
    telemetry.start(json=True, level=40)
    if unknown := set(only) - set(PATHS):
        raise SystemExit(f"no such path: {', '.join(sorted(unknown))}; there are: {', '.join(PATHS)}")
    options, found = Options.read(), list[Figure]()
    async with staged() as stage:
        print(await _described(stage))
        print(options)
        print(_ROW.format("path", "figure", "limit", "ratio", "target", "holds", "in what, and beside what"))
        for name in only or PATHS:
            async for figure in PATHS[name].figures(stage, options):
                found.append(figure)
                print(_line(figure), flush=True)
    if file := os.environ.get("BENCH_JSON"):
        _write(Path(file), found)


def _write(file: Path, found: Sequence[Figure]) -> None:
    file.write_text(json.dumps([figure.spelled() for figure in found], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


async def _described(stage: Stage) -> str:
    async with connected(stage.server) as connection:
        version = await connection.fetchval("show server_version")
    return machine.described(f"PostgreSQL {version.split()[0]}")


def _line(figure: Figure) -> str:
    size = ",.2f" if figure.limit < 10 else ",.1f" if figure.limit < 1_000 else ",.0f"
    numbers = [format(figure.figure, size), format(figure.limit, size), format(figure.ratio, ".3f")]
    target = f"{'≤' if figure.most else '≥'} {figure.target:g}"
    return _ROW.format(figure.path, *numbers, target, "yes" if figure.holds else "no", f"{figure.unit}, beside {figure.beside}")


if __name__ == "__main__":
    uvloop.run(main([name for name in os.environ.get("ONLY", "").split(",") if name]))
    sys.exit(0)
