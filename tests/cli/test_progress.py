"""How far long work is: shown where somebody is looking at stderr, and nowhere else."""

from __future__ import annotations

import asyncio
import gzip
import os
import pty
import re
import tty
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from .shell import Shell

PEOPLE = b"address\n" + b"".join(b"p%d@example.org\n" % n for n in range(1500))
ERASED = "\x1b[2K"
Look = Callable[..., Awaitable[str]]


@pytest.fixture
async def look(shell: Shell) -> AsyncIterator[Look]:
    """Run a command before a terminal, and return what came there."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    came: list[bytes] = []
    asyncio.get_running_loop().add_reader(ours, lambda: came.append(os.read(ours, 65_536)))

    async def looked(*words: str) -> str:
        came.clear()
        env = {**shell._given({}), "TERM": "xterm", "COLUMNS": "100"}
        status, _, _ = await asyncio.to_thread(shell.forker.run, words, env, shell.home, b"", os.ttyname(theirs))
        await asyncio.sleep(0)
        shown = b"".join(came).decode()
        assert status == 0, shown
        return shown

    yield looked
    asyncio.get_running_loop().remove_reader(ours)
    os.close(ours)
    os.close(theirs)


COMMANDS = [
    (("import", "addresses", "people.csv.gz"), r"1,500 rows ━+ 0:00"),
    (("filter", "newsletter", "people.csv.gz"), r"1,500 candidates ━+ 0:00"),
    (("audience", "newsletter", "-o", "out.csv"), r"addresses ━"),
]


async def test_long_work_shows_a_bar_that_is_gone_at_the_end_and_none_where_nobody_looks(shell: Shell, look: Look) -> None:
    (shell.home / "people.csv.gz").write_bytes(gzip.compress(PEOPLE))
    for words, bar in COMMANDS:
        shown = await look(*words)
        *before, last = shown.split(ERASED)
        assert before
        assert re.search(bar, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)), shown
        assert "\x1b[2K" in shown
        assert "━" not in last, "what is left on the screen is words"
    done = (await shell(*COMMANDS[0][0])).said(0)
    assert "\x1b" not in done.err
    assert "━" not in done.err, "the control: a file, and no terminal"
