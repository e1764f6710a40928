"""The story comes out as told, and can fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
            await runner.cleanup()

    return detour


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


def test_the_command_ends_with_zero_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Run as a newcomer runs it, from another folder, with a foreign locale and the usual port taken."""
    command = [sys.executable, "-m", "mailprefs", "demo", "--once"]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "xx_YY", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The story came out as told." in done.stdout
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
