"""A crew of processes lives as long as whoever leads it, and hears of Ctrl-C from nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from subprocess import PIPE

LED = """
import asyncio, multiprocessing, sys
from mailprefs.crews import Crew
from mailprefs.sheets import Csv

def blocks():
    for n in range(40):
        if n == 2:  # the crew begins right now
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
            sys.stdin.readline()
        yield [b"jane@example.org"]

async def main():
    print(len([each async for each in Crew(b"k" * 32, Csv(b"address"), large=0).keyed(blocks())]))

if __name__ == "__main__":
    asyncio.run(main())
"""


def led() -> tuple[subprocess.Popen[str], list[int]]:
    """Begin a crew in a process of its own, which waits for a line; return it and the crew's numbers."""
    process = subprocess.Popen([sys.executable, "-c", LED], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
    assert process.stdout
    found = [int(each) for each in process.stdout.readline().split()]
    assert found
    return process, found


def test_a_crew_that_is_just_beginning_leaves_ctrl_c_to_whoever_leads_it() -> None:
    process, crew = led()
    for each in crew:
        os.kill(each, signal.SIGINT)
    assert process.communicate("go on\n", timeout=60) == ("40\n", "")


def test_a_crew_ends_with_whoever_leads_it_however_that_ends() -> None:
    process, _ = led()
    process.kill()
    assert process.communicate(timeout=60)[0] == ""  # read to its end: nobody has it open any more


ALONE = """
import asyncio, os, sys
from pathlib import Path
from mailprefs.crews import Crew
from mailprefs.sheets import Csv

async def main(large):
    print(len([each async for each in Crew(b"k" * 32, Csv(b"address"), large=large).keyed(iter([[b"jane@example.org"]] * 3))]))
    print(Path(f"/proc/self/task/{os.getpid()}/children").read_text())

if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
"""


def test_a_file_that_is_not_large_begins_no_process_at_all() -> None:
    """A pool has one before anything is asked of it, which counts what its processes share."""

    def said(large: int) -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", ALONE, str(large)], capture_output=True, text=True, timeout=60, check=True
        ).stdout.split()

    assert said(4) == ["3"]
    assert len(said(2)) > 1, "the control"
