"""The web process as it is run in earnest, and its recorder beside it: both processes of their own, which a test may kill."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
CATALOGUE = REPOSITORY / "tests" / "catalogue.toml"
PATIENCE = 30.0  # seconds until it serves, or has ended
PAUSE = 0.02  # seconds between two looks at a log
LOOK = 0.1  # seconds between two looks at a journal, which grows
SERVES = "mailprefs serves on "


class Serving:
    """``mailprefs serve`` on a database, at one port that it keeps over its lives."""

    def __init__(self, home: Path, database_url: str, secrets: Mapping[str, str]) -> None:
        self.log = home / "serve.log"
        self.base = ""
        self.child: subprocess.Popen[bytes] | None = None
        lent = {name: os.environ[name] for name in ("PATH", "PYTHONUTF8", "LD_LIBRARY_PATH") if name in os.environ}
        places = {"MAILPREFS_CONFIG": str(CATALOGUE), "MAILPREFS_KEYS": str(home / "keys.json"), "HOST": "127.0.0.1", "PORT": "0"}
        self.environment = {**lent, **places, "DATABASE_URL": database_url, **secrets}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command of ours to its end, in the same environment."""
        words = [sys.executable, "-m", "mailprefs", *command]
        return subprocess.run(words, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, check=False, timeout=PATIENCE)

    async def start(self) -> None:
        """Run it, and return when it serves."""
        said = self.log.stat().st_size if self.log.exists() else 0
        words = [sys.executable, "-m", "mailprefs", "serve", "--json-log"]
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                words, cwd=REPOSITORY, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(int(PATIENCE / PAUSE)):
            new = self.log.read_text()[said:]
            if SERVES in new:
                self.base = new.split(SERVES)[1].split()[0]
                self.environment["PORT"] = self.base.rpartition(":")[2]
                return
            assert self.child.poll() is None, new
            await asyncio.sleep(PAUSE)
        raise AssertionError("it does not serve")

    @property
    def lives(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def end(self, how: signal.Signals) -> None:
        """End it this way, and return when it has ended."""
        if self.child:
            self.child.send_signal(how)
            self.child.wait(PATIENCE)
            self.child = None


@dataclass(frozen=True, slots=True)
class Pressed:
    """One press as the journal tells it: ``ok``, ``fail``, ``unknown`` or, still out, ``invoke``; when it was sent and answered."""

    told: str
    sent_at: float  # monotonic seconds
    answered_at: float
    code: str = ""

    @property
    def seconds(self) -> float:
        return self.answered_at - self.sent_at


@dataclass
class Recorder:
    """The outside recorder at work."""

    journal: Path
    child: subprocess.Popen[bytes]
    _read: int = 0  # bytes of the journal
    _found: dict[str, Pressed] = field(default_factory=dict)

    def pressed(self) -> Mapping[str, Pressed]:
        """Return every press so far, by its id. A line that is being written now is none yet."""
        for line in self._news().decode().splitlines():
            told, id, at, *code = line.split()
            sent = self._found[id].sent_at if id in self._found else float(at)
            self._found[id] = Pressed(told, sent, float(at), "".join(code))
        return self._found

    def _news(self) -> bytes:
        if not self.journal.exists():
            return b""
        with self.journal.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole

    def acknowledged(self) -> list[str]:
        return [id for id, press in self.pressed().items() if press.told == "ok"]

    def count(self) -> Counter[str]:
        return Counter(press.told for press in self.pressed().values())

    async def until(self, wanted: int) -> None:
        """Return when so many presses in all were acknowledged."""
        for _ in range(int(PATIENCE / LOOK)):
            if self.count()["ok"] >= wanted:
                return
            assert self.child.poll() is None, "nothing is left to press"
            await asyncio.sleep(LOOK)
        raise AssertionError(f"too few presses are acknowledged: {self.count()}")

    def end(self) -> None:
        """Let it wait for the answers that are still out, and end."""
        assert self.child.stdin
        self.child.stdin.close()
        assert self.child.wait(PATIENCE) == 0


@contextmanager
def recording(home: Path, base: str, presses: Iterable[tuple[str, str]], at_once: int) -> Iterator[Recorder]:
    """Lend a recorder that presses these (id, path) from now on; end it at the latest at the end."""
    plan, journal = home / "presses", home / "journal"
    plan.write_text("".join(f"{id} {path}\n" for id, path in presses))
    words = [sys.executable, str(Path(__file__).with_name("recorder.py")), base, str(plan), str(journal), str(at_once)]
    recorder = Recorder(journal, subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True))
    try:
        yield recorder
    finally:
        if recorder.child.poll() is None:
            recorder.end()
