"""Logs without addresses, metrics, alarms. Every value that is said here is a code, a count, the name of an account, or a network."""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import structlog
from prometheus_client import Counter, Gauge

QUIET = 60.0  # seconds after an alarm in which the same is not said anew

log: structlog.stdlib.BoundLogger = structlog.get_logger("mailprefs")


def start(*, json: bool, level: int = logging.INFO) -> None:
    """Send our log to stderr, as JSON lines or for a person to read. An exception shows its kind and place, never its text or locals."""
    last: Any = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True), _nameless, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    for library in ("asyncio", "asyncpg", "aiohttp"):
        logging.getLogger(library).handlers = [_Library()]
        logging.getLogger(library).propagate = False
    atexit.register(_tell_the_rest)
    # they tell of every request that is no HTTP, and of every try to reach a database that is away
    for noisy in ("asyncio", "aiohttp.access", "aiohttp.server", "asyncpg.pool"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Add to a counter, such as ``count("opt_outs", door="link")``."""
    counter = _counter(name, tuple(sorted(labels)))
    (counter.labels(*_values(labels)) if labels else counter).inc(amount)


def gauge(name: str, value: float, **labels: str) -> None:
    """Set a gauge, such as ``gauge("waiting", 3, account="sendgrid-main")``."""
    shown = _gauge(name, tuple(sorted(labels)))
    (shown.labels(*_values(labels)) if labels else shown).set(value)


def alarm(name: str, times: int = 1, **labels: str) -> None:
    """Say that a person should look: a counter that an alert watches, and a line in the log, with how many ``times`` it came.

    What comes again within a minute is one line at its end, with how many ``times`` it came: a mapping that is wrong raises one for
    each event, and its flood would hide every other.
    """
    count("alarms", times, alarm=name, account=labels.get("account", ""))
    loop = _running()
    about: _About = (name, *sorted(labels.items()))
    known = _repeats.get(about)
    if known is not None and known.loop is loop:
        known.times += times
        return
    _say(name, times, labels)
    if loop is not None:
        _repeats[about] = repeats = _Repeats(loop, name, labels)
        loop.call_later(QUIET, _again, about, repeats)


@dataclass(slots=True, eq=False)
class _Repeats:
    """How often an alarm came since it was last said."""

    loop: asyncio.AbstractEventLoop  # that will say it
    name: str
    labels: Mapping[str, str]
    times: int = 0


_About = tuple[str | tuple[str, str], ...]  # an alarm and its labels: codes and names of accounts, and networks, of which few are at it
_repeats: dict[_About, _Repeats] = {}


def _again(about: _About, repeats: _Repeats) -> None:
    """Say what came meanwhile, and wait on; if nothing did, the next is said at once."""
    if repeats.times:
        _say(repeats.name, repeats.times, repeats.labels)
        repeats.times = 0
        repeats.loop.call_later(QUIET, _again, about, repeats)
    elif _repeats.get(about) is repeats:
        del _repeats[about]


def _tell_the_rest() -> None:
    while _repeats:
        _, repeats = _repeats.popitem()
        if repeats.times:
            _say(repeats.name, repeats.times, repeats.labels)


def _say(name: str, times: int, labels: Mapping[str, str]) -> None:
    log.warning(name, alarm=True, times=times, **labels)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None  # a command: it is over before a minute is


def _values(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in sorted(labels)]


@cache
def _counter(name: str, labels: tuple[str, ...]) -> Counter:
    return Counter(f"mailprefs_{name}", name.replace("_", " "), labels)


@cache
def _gauge(name: str, labels: tuple[str, ...]) -> Gauge:
    return Gauge(f"mailprefs_{name}", name.replace("_", " "), labels)


class _Library(logging.Handler):
    """Says where a library complains, and of what kind of error: its words may quote a request line, which holds a token, or a row."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        log.warning("library", name=record.name, line=record.lineno, exc_info=error)


def _nameless(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say only the kind of an exception: its text may repeat an address, a row or a signature."""
    error = entry.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        entry["error"] = type(error).__name__
        entry["sqlstate"] = getattr(error, "sqlstate", None)
        entry["at"] = _place(error)
    return entry


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
