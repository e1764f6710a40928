"""What docs/sandbox.md tells to type comes out, from `mailprefs init` to a stop that the simulated provider believes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

PAGE = (Path(__file__).parent.parent.parent / "docs" / "sandbox.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Trying a configuration")[2].partition("\nSome ids")[0]
BESIDE = Path(sys.executable).parent  # where the command `mailprefs` lies


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def running(words: Sequence[str], home: Path, env: Mapping[str, str], says: str) -> Iterator[None]:
    """Run a command that goes on until it is ended, once it has said so."""
    with subprocess.Popen(words, cwd=home, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr
            assert next((line for line in process.stderr if says in line), None), "it ended before it said so"
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.mark.timeout(120)
async def test_a_configuration_is_tried_as_the_page_says(tmp_path: Path, database: str, conn: asyncpg.Connection) -> None:
    await conn.execute("drop schema public cascade; create schema public")
    own = str(port())
    sandbox, lines, more = (text.replace("8099", own) for text in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL))
    account = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)[0].replace("8099", own)
    env = {"PATH": f"{BESIDE}{os.pathsep}{os.environ['PATH']}", "DATABASE_URL": database, "HOME": str(tmp_path)}

    def typed(text: str) -> str:
        line = ["bash", "-euo", "pipefail", "-c", text]
        return subprocess.run(line, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout

    typed("mailprefs init")
    with (tmp_path / "mailprefs.toml").open("a", encoding="utf-8") as file:
        file.write(account)
    with running(sandbox.split(), tmp_path, env, f"listens on http://127.0.0.1:{own}"):
        began, last = lines.rstrip().rsplit("\n", 1)
        env |= dict(line.split("=", 1) for line in typed(f"{began}\nenv").splitlines() if line.startswith("SENDGRID_"))
        with running(last.split(), tmp_path, env, "mailprefs works"):
            looked = 0
            while '["jane@example.com"]' not in (state := typed(more.splitlines()[0])) and (looked := looked + 1) < 100:
                time.sleep(0.05)
            assert '["jane@example.com"]' in state
            assert "same" in typed(more)
