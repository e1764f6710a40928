"""``demo``: the whole story, end to end."""

from __future__ import annotations

import asyncio

import click

from mailprefs.demo import staged, tell
from mailprefs.demo.stage import Stage
from mailprefs.settings import load


@click.command("demo")
@click.option("--once", is_flag=True, help="End after the story; exit 0 only if each step came out as it says.")
def demo_(once: bool) -> int:
    """Tell the whole story on an own PostgreSQL with fresh data, then keep serving and print the links to open."""
    try:
        return asyncio.run(_told(once))
    except KeyboardInterrupt:
        return 130


async def _told(once: bool) -> int:
    async with staged(load(), lambda words: click.echo(words, err=True)) as stage:
        right = await tell(stage, click.echo)
        click.echo("\nThe story came out as told." if right else "\nThe story did NOT come out as told: see the ✗ above.")
        if not once:
            _links(stage)
            await asyncio.Event().wait()
        return 0 if right else 1


def _links(stage: Stage) -> None:
    click.echo("\nStill serving. Open one of these; Ctrl-C ends it and throws the data away.")
    for address in stage.emails()[-3:]:
        click.echo(f"  {stage.base}{stage.path(address)}   ({address})")
    click.echo(f"  {stage.base}/readyz\n  {stage.base}/metrics\n  {stage.sandbox}/_sandbox/state")
