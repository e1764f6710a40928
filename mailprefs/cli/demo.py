"""``demo``: the whole story, end to end."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress

import click

from mailprefs import telemetry, worker
from mailprefs.cli.signals import INTERRUPTED
from mailprefs.demo import staged, tell
from mailprefs.demo.stage import Stage
from mailprefs.errors import MailprefsError
from mailprefs.settings import load


@click.command("demo")
@click.option("--once", is_flag=True, help="End after the story; exit 0 only if each step came out as it says.")
def demo_(once: bool) -> int:
    """Tell the whole story on an own PostgreSQL with fresh data, then keep serving and print the links to open."""
    telemetry.start(json=False, level=logging.ERROR)  # the story says what goes wrong in it, on purpose
    try:
        return asyncio.run(_told(once))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _told(once: bool) -> int:
    """Tell, and serve unless ``once``. Told to stop, at any time and however often, it leaves nothing behind."""
    stop = asyncio.Event()
    worker.heed_signals(stop)
    try:
        async with staged(load(), lambda words: click.echo(words, err=True)) as stage:
            return await _played(stage, once, stop)
    except MailprefsError:
        if stop.is_set():  # whoever was told with us may have ended first
            return INTERRUPTED
        raise
    finally:
        _deaf()


def _deaf() -> None:
    """Heed nobody any more: all is put away, and who tells it once more, as make does, must not change how it ended."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


async def _played(stage: Stage, once: bool, stop: asyncio.Event) -> int:
    telling = asyncio.create_task(tell(stage, click.echo))
    if not await _came_to_its_end(telling, stop):
        return INTERRUPTED
    right = telling.result()
    click.echo("\nThe story came out as told." if right else "\nThe story did NOT come out as told: see the ✗ above.")
    if not once:
        _links(stage)
        await worker.work(stage.pool, stage.catalogue, stage.ring, stage.settings, stop=stop)
    return 0 if right else 1


async def _came_to_its_end(telling: asyncio.Task[bool], stop: asyncio.Event) -> bool:
    """True if it did; False, and it is broken off, if ``stop`` was set before."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((telling, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not telling.done():
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
    return not telling.cancelled()


def _links(stage: Stage) -> None:
    click.echo("\nStill serving, and the worker works. Open one of these; Ctrl-C ends it and throws the data away.")
    for address in stage.emails()[-3:]:
        click.echo(f"  {stage.base}{stage.path(address)}   ({address})")
    click.echo(f"  {stage.base}/readyz")
    click.echo(f"  {stage.sandbox}/_sandbox/state   (what SendGrid believes: press a link, and look again)")
