"""What is said of a service: counts, codes and names of accounts, never a text that a person or a library wrote."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog
from prometheus_client import REGISTRY

import mailprefs
from mailprefs import telemetry

CANARY = "canary-person@example.org"
LIBRARIES = ("asyncio", "asyncpg", "aiohttp")


@pytest.fixture(autouse=True)
def _as_new() -> Iterator[None]:
    """Begin and end as if nobody had set anything: other tests run services in this process."""
    _forgotten()
    yield
    _forgotten()


def _forgotten() -> None:
    structlog.reset_defaults()
    for name in (*LIBRARIES, "aiohttp.access", "aiohttp.server", "asyncpg.pool"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)


def said(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capfd.readouterr()
    assert out == "", "data goes to stdout, words to stderr"
    return [json.loads(line) for line in err.splitlines()]


def failing(canary: str) -> None:
    secret = canary
    raise RuntimeError(secret)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_line_says_what_when_and_how_bad(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry.start(json=True)
    telemetry.log.info("ready", port=8080)
    telemetry.log.debug("not shown")
    (line,) = said(capfd)
    assert (line["event"], line["level"], line["port"]) == ("ready", "info", 8080)
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("as_json", [True, False])
def test_an_exception_tells_its_kind_and_place_and_never_its_text(capfd: pytest.CaptureFixture[str], as_json: bool) -> None:
    telemetry.start(json=as_json)
    try:
        failing(CANARY)
    except RuntimeError as error:
        telemetry.log.error("one", exc_info=error)
        telemetry.log.error("two", exc_info=True)
        telemetry.log.exception("three")
    err = capfd.readouterr().err
    assert err.count("RuntimeError") == 3
    assert err.count("test_telemetry.py:") == 3
    assert CANARY not in err
    assert "Traceback" not in err


async def test_an_error_of_the_database_tells_its_code_and_never_its_row(
    conn: asyncpg.Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    telemetry.start(json=True)
    with pytest.raises(asyncpg.PostgresError, match=CANARY) as failed:  # the control: the text of the error repeats it
        await conn.execute("do $$ begin raise unique_violation using message = 'x', detail = 'canary-person@example.org'; end $$")
    telemetry.log.error("failed", exc_info=failed.value)
    (line,) = said(capfd)
    assert (line["error"], line["sqlstate"]) == ("UniqueViolationError", "23505")


def test_what_a_library_says_is_said_without_its_words(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry.start(json=True)
    try:
        failing(CANARY)
    except RuntimeError:
        for name in ("asyncpg", "aiohttp.client", "aiohttp.web", "aiohttp.websocket"):
            logging.getLogger(name).warning("it failed for %s", CANARY, exc_info=True)
        for name in ("aiohttp.access", "aiohttp.server", "asyncio", "asyncpg.pool"):
            logging.getLogger(name).exception("it failed for %s", CANARY)
    lines = said(capfd)
    assert [(line["event"], line["name"], line["error"]) for line in lines] == [
        ("library", name, "RuntimeError") for name in ("asyncpg", "aiohttp.client", "aiohttp.web", "aiohttp.websocket")
    ]
    assert CANARY not in json.dumps(lines)


def test_the_control_a_library_left_alone_repeats_it(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("asyncpg.pool")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    try:
        failing(CANARY)
    except RuntimeError:
        logger.warning("it failed for %s", CANARY, exc_info=True)
    finally:
        logger.removeHandler(handler)
    assert CANARY in capfd.readouterr().err


async def test_a_task_that_nobody_waits_for_says_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry.start(json=True)
    asyncio.get_running_loop().call_exception_handler({"message": CANARY, "exception": RuntimeError(CANARY)})
    assert capfd.readouterr() == ("", "")


def test_counters_add_and_gauges_stand() -> None:
    before = value("mailprefs_test_things_total", door="link", new="true")
    telemetry.count("test_things", new="true", door="link")
    telemetry.count("test_things", 3, door="link", new="true")
    telemetry.count("test_plain")
    telemetry.count("test_plain", 2)
    assert value("mailprefs_test_things_total", door="link", new="true") == before + 4
    assert value("mailprefs_test_plain_total") >= 3
    telemetry.gauge("test_level", 5, account="a")
    telemetry.gauge("test_level", 2, account="a")
    telemetry.gauge("test_height", 7)
    assert (value("mailprefs_test_level", account="a"), value("mailprefs_test_height")) == (2, 7)


def test_an_alarm_is_a_line_and_a_count(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry.start(json=True)
    before = (
        value("mailprefs_alarms_total", alarm="test_alarm", account="sendgrid-main"),
        value("mailprefs_alarms_total", alarm="test_alarm", account=""),
    )
    telemetry.alarm("test_alarm", account="sendgrid-main", reason="code")
    telemetry.alarm("test_alarm")
    first, second = said(capfd)
    assert (first["event"], first["level"], first["alarm"], first["account"], first["reason"]) == (
        "test_alarm",
        "warning",
        True,
        "sendgrid-main",
        "code",
    )
    assert "account" not in second
    after = (
        value("mailprefs_alarms_total", alarm="test_alarm", account="sendgrid-main"),
        value("mailprefs_alarms_total", alarm="test_alarm", account=""),
    )
    assert after == (before[0] + 1, before[1] + 1)


class Hurried(asyncio.SelectorEventLoop):
    """A loop whose time can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def passing(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Hurried)
    loop.ahead += seconds
    await asyncio.sleep(0.001)


def alarmed(capfd: pytest.CaptureFixture[str]) -> list[tuple[Any, ...]]:
    return [(line["event"], line.get("account"), line["times"], line.get("reason")) for line in said(capfd)]


def test_a_flood_of_one_alarm_is_a_line_a_minute_with_its_count(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry.start(json=True)
    before = value("mailprefs_alarms_total", alarm="test_flood", account="a")

    async def flood() -> None:
        for n in range(1_000):
            telemetry.alarm("test_flood", account="a", reason="r" if n < 999 else "other")
        telemetry.alarm("test_flood", account="b")
        telemetry.alarm("test_other", account="a")
        assert alarmed(capfd) == [
            ("test_flood", "a", 1, "r"),
            ("test_flood", "a", 1, "other"),
            ("test_flood", "b", 1, None),
            ("test_other", "a", 1, None),
        ], "a flood hides no other"
        await passing(59)
        assert alarmed(capfd) == []
        await passing(2)
        assert alarmed(capfd) == [("test_flood", "a", 998, "r")]
        telemetry.alarm("test_flood", account="a", reason="r")
        telemetry.alarm("test_flood", account="b")
        assert alarmed(capfd) == [("test_flood", "b", 1, None)], "an account that was silent for a minute is said at once"
        await passing(61)
        assert alarmed(capfd) == [("test_flood", "a", 1, "r")]
        await passing(61)
        assert alarmed(capfd) == []
        telemetry.alarm("test_flood", account="a", reason="r")
        assert alarmed(capfd) == [("test_flood", "a", 1, "r")]

    with asyncio.Runner(loop_factory=Hurried) as runner:
        runner.run(flood())
    assert value("mailprefs_alarms_total", alarm="test_flood", account="a") == before + 1_002, "the counter misses none"


def test_what_came_last_is_told_when_a_service_ends() -> None:
    program = """
import asyncio
from mailprefs import telemetry
async def main():
    for n in range(5):
        telemetry.alarm("test_end", account="a")
telemetry.start(json=True)
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [(line["times"], line["account"]) for line in lines] == [(1, "a"), (4, "a")]


def labelled(package: Path) -> dict[str, set[tuple[str, ...]]]:
    """Every counter and gauge of the package, with the sets of labels that it is called with."""
    found: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("telemetry.count", "telemetry.gauge"):
                name = node.args[0]
                assert isinstance(name, ast.Constant), f"{path.name}: a metric's name is a word, not a value"
                found[str(name.value)].add(tuple(sorted(str(keyword.arg) for keyword in node.keywords)))
    return found


def test_a_metric_has_the_same_labels_wherever_it_is_counted() -> None:
    found = labelled(Path(mailprefs.__file__).parent)
    assert len(found) > 5
    assert {name: labels for name, labels in found.items() if len(labels) > 1} == {}, "the second would raise where it is counted"


def test_the_control_other_labels_under_one_name_raise() -> None:
    telemetry.count("test_labels", door="link")
    with pytest.raises(ValueError, match="Duplicated"):
        telemetry.count("test_labels", account="a")
