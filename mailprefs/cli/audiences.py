"""``audience``: everyone who may be sent a topic, as a file."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from mailprefs import audience, files, shapes
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.saying import counting, many, tell
from mailprefs.cli.signals import run
from mailprefs.packing import Packing, Sink
from mailprefs.shapes import Shape
from mailprefs.spelling import COLUMNS, MINTED
from mailprefs.words import Channel

_FORMATS = click.Choice(shapes.FORMATS)
_PACKINGS = click.Choice([each.value for each in Packing])
_COLUMNS = f"Some of {', '.join(COLUMNS)}, with commas; then some of {', '.join(MINTED)}."
LOSSY = "for a spreadsheet alone: what it would take for a formula has a ' before it that is no part of the value"


@click.command("audience")
@click.argument("topic")
@click.option("--channel", type=click.Choice([each.value for each in Channel]), default="email", show_default=True)
@click.option("--format", "format_", type=_FORMATS, help="[by the name of FILE, else csv]")
@click.option("--columns", default="address", show_default=True, help=_COLUMNS)
@click.option("--links", is_flag=True, help="The link and the three headers of each row as well.")
@click.option("--compress", type=_PACKINGS, help="[by the name of FILE: .gz, .zst; else none]")
@click.option("--spreadsheet", is_flag=True, help="CSV that no spreadsheet computes. Lossy: not for a program to read.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file.  [stdout]")
def audience_(
    topic: str, channel: str, format_: str | None, columns: str, links: bool, compress: str | None, spreadsheet: bool, output: Path | None
) -> None:
    """Everyone who may be sent TOPIC now, streamed from one snapshot."""
    named, packing = shapes.named(output)
    shape = shapes.read(columns, format_ or named or "csv", compress or packing, links=links, spreadsheet=spreadsheet)
    with files.whole(output) if output else nullcontext(sys.stdout.buffer) as out:
        count = run(_streamed(topic, Channel(channel), shape, out))
    tell(f"{many(count, 'address', 'addresses')}{f', {LOSSY}' if spreadsheet else ''}")


async def _streamed(topic: str, channel: Channel, shape: Shape, out: BinaryIO) -> int:
    opening = Opening()
    scope = opening.catalogue.topic(topic)
    audience.sound(scope, shape.columns)

    async def write(chunk: bytes) -> None:
        out.write(chunk)

    from mailprefs import replicas

    standby = opening.settings.read_database_url
    async with (
        opening.connected() as primary,
        replicas.reading(primary, standby, opening.catalogue, now=now()) as connection,
    ):
        total = await audience.about(connection)
        with counting(f"of at most about {total:,} addresses" if total else "addresses", total=total, out=out) as counted:
            async with _counting(shape, write, counted) as rows:
                return await audience.stream(
                    connection, scope, channel, rows, now=now(), columns=shape.columns, format=shape.rows,
                    links=opening.links(scope), spreadsheet=shape.spreadsheet,
                )  # fmt: skip


@asynccontextmanager
async def _counting(shape: Shape, write: Sink, counted: Callable[[int], None]) -> AsyncIterator[Sink]:
    async with shapes.delivered(shape, write) as rows:

        async def sink(chunk: bytes) -> None:
            await rows(chunk)
            counted(chunk.count(b"\n"))

        yield sink
