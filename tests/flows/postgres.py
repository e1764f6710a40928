"""A PostgreSQL of the test's own, which can be frozen and killed, and comes back at the same URL."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg

from mailprefs import embedded, tuning

PATIENCE = 30.0  # seconds until it answers, or is gone
PAUSE = 0.02  # seconds between two looks
BINARIES = os.environ.get("MAILPREFS_TEST_BINARIES")


class Postgres:
    """One cluster on one socket. All that the kernel keeps of it dies in :meth:`kill`; all that is on disk stays."""

    def __init__(self, home: Path) -> None:
        self.url = f"postgresql://mailprefs@/postgres?host={home}&port=5432"
        self.log = home / "log"
        self._cluster = home / "cluster"
        self._socket = home / ".s.PGSQL.5432"
        self._binaries = embedded._programs(Path(BINARIES) if BINARIES else embedded._borrowed(), home)
        self._server: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Leave a new cluster, as durable as PostgreSQL is by itself."""
        embedded._give_away(self._cluster.parent)
        made = ["--auth=trust", "--username=mailprefs", "--no-sync", "--locale=C", "--encoding=UTF8"]
        embedded._run([str(self._binaries / "initdb"), "-D", str(self._cluster), *made])

    async def start(self) -> None:
        """Run it as the embedded one is run, and return when it answers."""
        settings = {**tuning.QUIET, "listen_addresses": "", "unix_socket_directories": str(self._socket.parent)}
        words = [str(self._binaries / "postgres"), "-D", str(self._cluster)]
        words += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                words, cwd="/", env=embedded.ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **embedded._account()
            )
        await self.answering()

    async def answering(self) -> None:
        for _ in range(int(PATIENCE / PAUSE)):
            with suppress(OSError, asyncpg.PostgresError):
                connection = await asyncpg.connect(self.url, timeout=PATIENCE)
                await connection.close()
                return
            await asyncio.sleep(PAUSE)
        raise AssertionError(f"PostgreSQL does not answer:\n{self.log.read_text()}")

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does: connections stay open and nobody answers on them."""
        assert self._server
        os.kill(self._server.pid, signal.SIGSTOP)  # first, so that it begets no child while they are counted
        for pid in children(self._server.pid):
            _send(pid, signal.SIGSTOP)

    def kill(self) -> None:
        """End the postmaster and every child at once with SIGKILL, and clear away what blocks a start."""
        assert self._server
        os.kill(self._server.pid, signal.SIGSTOP)
        family = children(self._server.pid)
        for pid in (*family, self._server.pid):
            _send(pid, signal.SIGKILL)
        self._server.wait(PATIENCE)
        self._server = None
        for _ in range(int(PATIENCE / PAUSE)):
            if not any(is_alive(pid) for pid in family):
                break
            time.sleep(PAUSE)
        else:
            raise AssertionError("a child of PostgreSQL outlives SIGKILL")
        # a number in these files may be somebody else's by now, and PostgreSQL would wait for that one
        for leftover in (self._cluster / "postmaster.pid", Path(f"{self._socket}.lock"), self._socket):
            leftover.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it in good order."""
        if self._server:
            for pid in (self._server.pid, *children(self._server.pid)):
                _send(pid, signal.SIGCONT)
            self._server.send_signal(signal.SIGINT)
            self._server.wait(PATIENCE)
            self._server = None


@contextmanager
def owned() -> Iterator[Postgres]:
    """Lend a new PostgreSQL that is not running yet; stop it and remove it at the end."""
    home = Path(tempfile.mkdtemp(prefix="flows-", dir=embedded._short_directory()))
    postgres = Postgres(home)
    try:
        postgres.make()
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(home)


def children(parent: int) -> list[int]:
    """Every process that this one started and that still lives. They leave their parent's process group, so that is of no use."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, ppid = place.read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state != "Z":
                found.append(int(place.parent.name))
    return found


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
