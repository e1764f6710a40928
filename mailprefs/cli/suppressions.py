"""``export suppressions``: everything held, for another tool, a successor, or an affiliate."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from mailprefs import files, suppressions
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.saying import counting, many, tell
from mailprefs.cli.signals import run
from mailprefs.suppressions import COLUMNS, HASHED, Handover, Spelling


@click.command("suppressions")
@click.option("--hashed", is_flag=True, help="Hashed, for an affiliate: nobody who lacks the address learns it.")
@click.option("--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A file with the taker's own key, for --hashed.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file.  [stdout]")
def suppressions_(hashed: bool, key: Path | None, output: Path | None) -> None:
    """Everything that is on hold for good, as CSV that `import suppressions` takes."""
    if hashed != (key is not None):
        raise click.UsageError("--hashed and --key FILE go together: the key is the taker's own")
    spell = suppressions.hashed(key.read_bytes().rstrip(b"\r\n")) if key else suppressions.spelled
    with files.whole(output) if output else nullcontext(sys.stdout.buffer) as out:
        done = run(_streamed(spell, HASHED if hashed else COLUMNS, out))
    tell(many(done.rows, "row", "rows"))
    if done.nameless:
        more = many(done.nameless, "address more is", "addresses more are")
        tell(f"{more} on hold and not in it: known by the key alone, or erased")
    if done.ending:
        tell(f"{done.ending:,} holds more end by themselves and are not in it")


async def _streamed(spell: Spelling, columns: tuple[str, ...], out: BinaryIO) -> Handover:
    opening, done = Opening(), Handover()
    async with opening.connected() as connection:
        out.write((",".join(columns) + "\n").encode())
        with counting("rows", out=out) as bar:
            async for chunk in suppressions.stream(connection, opening.catalogue, spell, done, now=now(), progress=bar):
                out.write(chunk)
    return done
