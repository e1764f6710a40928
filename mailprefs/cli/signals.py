"""How a command is told to end, by Ctrl-C or SIGTERM, wherever its work just is: nothing is left half, and no traceback is shown."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

if TYPE_CHECKING:  # `--help` waits for no loop
    from asyncio import AbstractEventLoop, Task

Answer = TypeVar("Answer")

INTERRUPTED = 128 + signal.SIGINT  # exit statuses, as a shell has them
TERMINATED = 128 + signal.SIGTERM


def heed() -> None:
    """Let SIGTERM end the process as Ctrl-C does, unless whoever started us said what it shall do."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def run(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a command's work to its end. Told to end before, it raises KeyboardInterrupt or SystemExit once the work has put all away."""
    import asyncio

    told: list[int] = []

    async def work() -> Answer:
        loop, at_it = asyncio.get_running_loop(), asyncio.current_task
        with _heeded(partial(_tell, loop, cast("Task[Answer]", at_it()), partial(at_it, loop), told)):
            return await coroutine

    try:
        return asyncio.run(work())
    except asyncio.CancelledError:
        if not told:
            raise
        _end(told[0])


@contextmanager
def _heeded(heard: Callable[[int, object], None]) -> Iterator[None]:
    """Hear both signals so within, but those that are ignored or left to the system. Only the main thread may."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(
    loop: AbstractEventLoop, work: Task[Any], at_it: Callable[[], Task[Any] | None], told: list[int], number: int, _frame: object
) -> None:
    """Break the work off where it is, which may be a file that has nothing to read. While somebody else has the loop, cancel it.

    What is raised within a task that serves somebody, or in a callback, ends the loop there, and that task is shown with its traceback.
    """
    told.append(number)
    if at_it() is work or len(told) > 1:
        _end(number)
    work.cancel()
    loop.call_soon_threadsafe(bool)  # it may be asleep, and a signal by itself does not wake it


def _end(number: int, _frame: object = None) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
