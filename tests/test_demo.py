"""The story comes out as told, and can fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import ClientSession, DummyCookieJar, web

from mailprefs.demo import Detour, staged, tell
from mailprefs.settings import Settings

pytestmark = pytest.mark.slow


def losing(nth: int) -> Detour:
    """A way to the service on which the nth one-click is acknowledged and lost, as a careless proxy or queue would."""

    @asynccontextmanager
    async def detour(base: str) -> AsyncIterator[str]:
        seen = 0

        async def carry(request: web.Request) -> web.Response:
            nonlocal seen
            seen += request.method == "POST"
            if request.method == "POST" and seen == nth:
                return web.Response(status=200)
            async with http.request(request.method, base + request.raw_path, data=await request.read(), allow_redirects=False) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", carry)
        runner = web.AppRunner(app, access_log=None)
        async with ClientSession(cookie_jar=DummyCookieJar()) as http:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                yield f"http://127.0.0.1:{runner.addresses[0][1]}"
            finally:
                await runner.cleanup()

    return detour


@pytest.fixture(autouse=True)
def soon(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demos of this process, too, keep their PostgreSQL where no commit waits for a disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(quick))


async def told(detour: Detour | None) -> tuple[bool, str]:
    lines: list[str] = []
    async with staged(Settings(PORT=0), lambda _: None, detour) as stage:
        right = await tell(stage, lines.append)
    return right, "\n".join(lines)


async def test_a_story_that_loses_one_stop_does_not_come_out() -> None:
    right, text = await told(losing(30))  # somebody who pressed once
    assert not right
    assert "✗ exactly 50 people have left the newsletter" in text


async def test_the_same_detour_without_a_loss_comes_out() -> None:
    right, text = await told(losing(0))
    assert right, text


def test_the_command_ends_with_zero_and_leaves_nothing_behind(quick: Path) -> None:
    """Run as a newcomer runs it, from another folder, with a foreign locale and the usual port taken."""
    command = [sys.executable, "-m", "mailprefs", "demo", "--once"]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "xx_YY", "HOME": str(quick), "TMPDIR": str(quick)}
    done = subprocess.run(command, cwd=quick, env=environment, capture_output=True, timeout=120, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The story came out as told." in done.stdout
    assert "Traceback" not in done.stderr
    assert "Ctrl-C" not in done.stderr, "how to use the sandbox stands in no story"
    assert list(quick.iterdir()) == []


def processes(home: Path) -> list[int]:
    """Return whatever runs because of a demo whose temporary files are in ``home``: itself, its sandbox, its PostgreSQL."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile
            if str(home).encode() in (each / "environ").read_bytes() + (each / "cmdline").read_bytes():
                found.append(int(each.name))
    return found


@contextmanager
def demo(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that goes on serving, as the leader of a group, and nothing of it afterwards."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home), "PORT": "0"}
    with subprocess.Popen(
        [sys.executable, "-m", "mailprefs", "demo"],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    ) as running:
        try:
            yield running
        finally:
            for pid in processes(home):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def come_to(running: subprocess.Popen[str], words: str) -> None:
    assert running.stdout is not None
    assert any(words in line for line in running.stdout), f"it never said {words!r}"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at the processes of Linux")
@pytest.mark.parametrize(
    ("words", "send", "number", "status"),
    [
        ("starting an own PostgreSQL", os.killpg, signal.SIGTERM, 130),
        ("starting a simulated SendGrid", os.killpg, signal.SIGTERM, 130),
        ("A scanner opens", os.kill, signal.SIGTERM, 130),
        ("The worker tells", os.killpg, signal.SIGINT, 130),
        ("Still serving", os.killpg, signal.SIGTERM, 0),
    ],
    ids=["as it begins", "as it starts", "in the story, it alone", "in the story, Ctrl-C", "while it serves"],
)
def test_told_to_stop_it_leaves_no_process_and_no_file(
    quick: Path, words: str, send: Callable[[int, int], None], number: int, status: int
) -> None:
    """Told twice, as those are who run under make: the group is told, and make tells its own."""
    with demo(quick) as running:
        come_to(running, words)
        assert processes(quick)  # the control: there is something to leave behind
        send(running.pid, number)
        time.sleep(0.05)
        with suppress(ProcessLookupError):
            send(running.pid, number)
        said, _ = running.communicate(timeout=60)
        assert (running.returncode, "Traceback" in said) == (status, False), said
        assert processes(quick) == []
        assert list(quick.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at the processes of Linux")
def test_killed_it_leaves_no_process(quick: Path) -> None:
    with demo(quick) as running:
        come_to(running, "A scanner opens")
        assert len(processes(quick)) > 1
        running.kill()
        until = time.monotonic() + 30
        while processes(quick) and time.monotonic() < until:
            time.sleep(0.1)
        assert processes(quick) == []
