"""A command that is told to end puts all away, shows no traceback, and says by its status what it was told."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from mailprefs.cli.signals import INTERRUPTED, TERMINATED

PATIENCE = 60  # seconds
COMMAND = """
import asyncio, os, signal, sys, threading
from mailprefs import cli

told = signal.Signals({told})
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
signal.pthread_sigmask(signal.SIG_UNBLOCK, {{told}})

def tell():
    os.kill(os.getpid(), told)

async def serve():
    tell()
    await asyncio.sleep(60)

{work}

async def work():
    try:
        await come()
    finally:
        await asyncio.sleep(0)
        print("all is put away", flush=True)

cli.commands.main = lambda **_: {run}(work())
cli.main()
"""
WORKS = {
    "a task that serves somebody": "async def come():\n    served = asyncio.create_task(serve())\n    await asyncio.sleep(60)",
    "a callback": "async def come():\n    asyncio.get_running_loop().call_soon(tell)\n    await asyncio.sleep(60)",
    "nobody": "async def come():\n    threading.Timer(0.1, tell).start()\n    await asyncio.sleep(60)",
    "the work itself": "async def come():\n    tell()\n    await asyncio.sleep(60)",
    "a read that waits": "async def come():\n    threading.Timer(0.1, tell).start()\n    os.read(os.pipe()[0], 1)",
}
STATUSES = {signal.SIGTERM: TERMINATED, signal.SIGINT: INTERRUPTED}


def ended(told: signal.Signals, work: str, run: str = "cli.signals.run") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND.format(told=int(told), work=work, run=run)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("told", STATUSES)
@pytest.mark.parametrize("at_it", WORKS)
def test_whoever_has_the_loop_when_it_is_told_to_end_all_is_put_away(told: signal.Signals, at_it: str) -> None:
    done = ended(told, WORKS[at_it])
    assert (done.returncode, done.stdout, done.stderr) == (STATUSES[told], "all is put away\n", "")


def test_without_it_a_task_that_serves_somebody_is_shown() -> None:
    assert "Traceback" in ended(signal.SIGTERM, WORKS["a task that serves somebody"], "asyncio.run").stderr


STUBBORN = """
async def come():
    for n in range(1, 4):  # the second leaves the work, the third what asyncio does for its sake
        threading.Timer(n / 4, tell).start()
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""


def test_what_will_not_end_ends_when_it_is_told_again_and_again() -> None:
    assert ended(signal.SIGTERM, STUBBORN).returncode == TERMINATED


@pytest.mark.parametrize("told", STATUSES)
def test_what_is_ignored_stays_so(told: signal.Signals) -> None:
    work = f"signal.signal({int(told)}, signal.SIG_IGN)\nasync def come():\n    tell()"
    done = ended(told, work)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all is put away\n", "")
