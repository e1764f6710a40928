"""The commands as a person has them: processes of their own, in a directory of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mailprefs.links import KeyRing

PATIENCE = 60.0  # seconds
Environment = Mapping[str, str | None]  # a variable that is None is not set
HERE = Path(__file__).parent
MAILPREFS = (sys.executable, "-m", "mailprefs")


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    status: int
    out: str
    err: str

    def said(self, status: int, *words: str) -> Done:
        """Return itself, if it ended with that status and its words for people hold these."""
        assert self.status == status, f"{self.status}: {self.out}{self.err}"
        for each in words:
            assert re.search(each, self.err), f"{each!r} is not in: {self.err}"
        return self


class Forker:
    """Runs commands one after another, each in a process that is forked from one that has loaded them."""

    def __init__(self, home: Path) -> None:
        self._files = [home / name for name in ("stdin", "stdout", "stderr")]
        self._process = subprocess.Popen((sys.executable, HERE / "forker.py"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(
        self, words: Sequence[str], env: Mapping[str, str], home: Path, stdin: bytes, terminal: str | None = None
    ) -> tuple[int, bytes, bytes]:
        """Run a command to its end; ``terminal`` is what its stderr is then, in place of a file."""
        for file, content in zip(self._files, (stdin, b"", b""), strict=True):
            file.write_bytes(content)
        asked = {"words": words, "env": env, "home": str(home), "files": [*map(str, self._files[:2]), terminal or str(self._files[2])]}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return status, self._files[1].read_bytes(), self._files[2].read_bytes()

    def close(self) -> None:
        self._process.communicate()


@dataclass
class Shell:
    """Runs commands in ``home``, which holds the shared catalogue and the tests' key ring. Whatever they say is searched for secrets."""

    home: Path
    ring: KeyRing
    forker: Forker
    environment: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    async def __call__(self, *words: str, stdin: bytes = b"", env: Environment | None = None, command: Sequence[str] | None = None) -> Done:
        """Run a command to its end: forked, or started where ``command`` says of what."""
        if command is None:
            return self._judged(*await asyncio.to_thread(self.forker.run, words, self._given(env or {}), self.home, stdin))
        process = await self._started(words, command, env or {})
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), PATIENCE)
        finally:
            if process.returncode is None:
                process.kill()
        return self._judged(process.returncode, out, err)

    @asynccontextmanager
    async def running(self, *words: str, env: Environment | None = None, status: int = 0) -> AsyncIterator[Running]:
        """Run a command until told to stop, and see that it then ends well, or as ``status`` says."""
        running = Running(await self._started(words, MAILPREFS, env or {}))
        try:
            yield running
            running.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(running.process.wait(), PATIENCE)
        finally:
            if running.process.returncode is None:
                running.process.kill()
            out, err = await running.process.communicate()
            running.heard += err
        self._judged(running.process.returncode, out, running.heard).said(status)

    async def _started(self, words: Sequence[str], command: Sequence[str], env: Environment) -> Process:
        given = self._given(env)
        return await asyncio.create_subprocess_exec(*command, *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=self.home, env=given)

    def _given(self, env: Environment) -> dict[str, str]:
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL") if name in os.environ}
        wanted = {**base, **self.environment, **env}
        return {name: value for name, value in wanted.items() if value is not None}

    def _judged(self, status: int | None, out: bytes, err: bytes) -> Done:
        assert status is not None
        done = Done(status, out.decode(errors="surrogateescape"), err.decode(errors="surrogateescape"))
        assert "Traceback" not in done.err, done.err
        for secret in self.secrets:
            assert secret not in done.out + done.err, "a secret is shown"
        return done


@dataclass
class Running:
    """A command that runs until it is told to stop."""

    process: Process
    heard: bytes = b""

    async def says(self, pattern: str) -> re.Match[str]:
        """Return what a line on stderr says, once it says it."""
        assert self.process.stderr
        while True:
            line = await asyncio.wait_for(self.process.stderr.readline(), PATIENCE)
            self.heard += line
            if found := re.search(pattern, line.decode()):
                return found
            assert line, f"it ended, and said: {self.heard.decode()}"
