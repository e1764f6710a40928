"""Connections: a bounded number, and none that says nothing keeps out one that does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from shlex import quote

import asyncpg
import pytest
from aiohttp import ClientSession, web
from prometheus_client import REGISTRY

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing, Links
from mailprefs.settings import Settings
from mailprefs.web import connections, wire

LATEST = 15  # seconds, less than an idle connection is left open
ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[bytes], Awaitable[Stream]]


@asynccontextmanager
async def served(*, most: int | None = None, idle: float = 20, answers: asyncio.Event | None = None) -> AsyncIterator[Connect]:
    """Lend what connects to a small service and says something there. It answers at once, or when it may."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        if answers:
            await answers.wait()
        return web.Response(text="x" * int(request.query.get("letters", "1")))

    app = web.Application(middlewares=[wire.outermost])
    app.router.add_route("*", "/", answer)
    runner = wire.runner(app, most=most, idle=idle)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    streams: list[Stream] = []

    async def connect(said: bytes) -> Stream:
        streams.append(await asyncio.open_connection("127.0.0.1", runner.addresses[0][1]))
        streams[-1][1].write(said)
        await streams[-1][1].drain()
        await asyncio.sleep(0.01)  # so that they are known in this order
        return streams[-1]

    try:
        yield connect
    finally:
        for _, writer in streams:
            writer.transport.abort()
        await runner.cleanup()


async def status(stream: Stream, seconds: float = 5) -> int:
    return int((await asyncio.wait_for(stream[0].readline(), seconds)).split()[1])


async def closed(stream: Stream, seconds: float) -> bool:
    """True if a connection is closed within these seconds."""
    with suppress(ConnectionError):
        try:
            await asyncio.wait_for(stream[0].read(), seconds)
        except TimeoutError:
            return False
    return True


def alarms() -> float:
    return REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": "connections_full", "account": ""}) or 0


async def test_when_one_more_comes_the_one_that_was_silent_longest_gives_way_and_a_person_is_told() -> None:
    async with served(most=8) as connect:
        silent = [await connect(b"") for _ in range(8)]
        before = alarms()
        assert await status(await connect(ASKED)) == 200
        assert alarms() == before + 1
        assert [await closed(each, 0.2 if n else LATEST) for n, each in enumerate(silent)] == [True] + [False] * 7


async def test_who_asked_last_stays_longest() -> None:
    async with served(most=8) as connect:
        first, *silent = [await connect(b"" if n == 0 else b"GET / HT") for n in range(8)]
        first[1].write(ASKED)
        assert await status(first) == 200
        await connect(b"")
        assert [await closed(each, 0.2 if n else LATEST) for n, each in enumerate(silent)] == [True] + [False] * 6
        first[1].write(ASKED)
        await asyncio.wait_for(first[0].readuntil(b"HTTP/1.1 200"), 5)


async def test_who_sends_no_end_or_takes_no_answer_gives_way_too() -> None:
    withheld = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
    unread = b"GET /?letters=50000000 HTTP/1.1\r\nHost: x\r\n\r\n"
    async with served(most=4) as connect:
        slow = [await connect(withheld), await connect(unread), await connect(withheld), await connect(unread)]
        for n in range(4):
            assert await status(await connect(ASKED)) == 200
            assert await closed(slow[n], LATEST), n


async def test_who_is_being_answered_stays_and_the_newcomer_is_sent_away() -> None:
    answers = asyncio.Event()
    async with served(most=4, answers=answers) as connect:
        asking = [await connect(ASKED) for _ in range(4)]
        assert await closed(await connect(ASKED), LATEST)
        answers.set()
        assert [await status(each) for each in asking] == [200] * 4
        assert await status(await connect(ASKED)) == 200, "and afterwards there is room again"


async def test_who_sends_no_whole_head_in_time_is_cut_off() -> None:
    async def dribbling(stream: Stream) -> None:
        with suppress(ConnectionError):
            for _ in range(40):
                stream[1].write(b"x")
                await stream[1].drain()
                await asyncio.sleep(0.1)

    async with served(idle=1) as connect:
        parts = (b"", b"GET / HT", b"GET / HTTP/1.1\r\nX-Long: ", ASKED, ASKED + b"GET / HT")
        began = time.monotonic()
        streams = [await connect(part) for part in parts]
        dribble = asyncio.create_task(dribbling(streams[2]))
        assert all([await closed(each, LATEST) for each in streams])
        assert time.monotonic() - began > 0.9, "the control: not before that"
        dribble.cancel()


def test_the_process_opens_as_many_files_as_it_may() -> None:
    def with_limits(words: str) -> str:
        script = f"ulimit {words} && exec {quote(sys.executable)} -c 'from mailprefs.web import connections as c; print(c.places())'"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr.splitlines()[-1]

    assert with_limits("-n 1024") == str(1024 - connections.OTHERS)
    assert with_limits("-n 1024 && ulimit -S -n 256") == str(1024 - connections.OTHERS), "the soft limit is raised"
    assert "ulimit -n" in with_limits("-n 150"), "too few are said before anybody is turned away"


@pytest.fixture
def files() -> None:
    """Let this process open the connections of an attacker."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 < hard < 2000:
        pytest.skip(f"this process may open {hard} files, the test wants 2,000: ulimit -n 2000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))


@pytest.fixture
def limited(settings: Settings, ring: KeyRing, tmp_path: Path) -> Iterator[str]:
    """The URL of the service as it is run in earnest, in a process that may open 1,024 files."""
    keys = tmp_path / "keys.json"
    keys.write_text(ring.dumped())
    keys.chmod(0o600)
    catalogue = Path(__file__).parents[1] / "catalogue.toml"
    environment = {**os.environ, "MAILPREFS_CONFIG": str(catalogue), "MAILPREFS_KEYS": str(keys), "HOST": "127.0.0.1", "PORT": "0"}
    words = ["sh", "-c", f"ulimit -n 1024 && exec {quote(sys.executable)} -m mailprefs serve --json-log"]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = next(line for line in process.stderr if "serves on" in line)
        yield said.split("serves on ")[1].split()[0]
        process.terminate()


@pytest.mark.usefixtures("files")
async def test_a_one_click_passes_beside_more_silent_connections_than_there_are_files(
    limited: str, conn: asyncpg.Connection, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    port, topic = int(limited.rpartition(":")[2]), shared_catalogue.topic("newsletter")
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1_100)]
    try:
        async with ClientSession() as http:
            for n in range(5):
                url = f"{limited}/u/{links.token(addresses.read(f'p{n}@example.org').key, topic)}"
                async with asyncio.timeout(5), http.post(url, data=b"List-Unsubscribe=One-Click") as answer:
                    assert answer.status == 200
    finally:
        for _, writer in silent:
            writer.transport.abort()
    assert await conn.fetchval("select count(*) from address where stops = '{272}'") == 5
