"""A process that has loaded the commands and forks for each that is asked for: real processes, without the half second of imports.

Asked on stdin, a line of JSON each: words, environment, home, and the files to be stdin, stdout and stderr. Answers with the status.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from importlib import import_module
from typing import Any

from mailprefs import cli

ASIDE = ("demo", "post")  # what no test here runs


def main() -> None:
    for room in {room for room, _ in cli._COMMANDS.values()} - set(ASIDE):
        import_module(f"mailprefs.cli.{room}")
    gc.disable()
    gc.freeze()  # the children share what is loaded
    while line := _line():
        child = os.fork()
        if not child:
            return _be(json.loads(line))
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return None


def _line() -> bytes:
    """Read a line, byte by byte: what stands behind it is not the child's."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _be(asked: dict[str, Any]) -> None:
    """Become the command: from here on it is as if it had been started."""
    for number, path in enumerate(asked["files"]):
        os.dup2(os.open(path, os.O_RDWR), number)
    if os.isatty(2):
        sys.stderr = os.fdopen(2, "w", 1)  # ours was made for a file, and would seek
    os.chdir(asked["home"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["mailprefs", *asked["words"]]
    status: object = None
    try:
        cli.main()
    except SystemExit as ended:
        status = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 70)  # the interpreter's own end would take most of the time


if __name__ == "__main__":
    main()
