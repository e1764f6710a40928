"""The virtual environment in ``.venv`` holds what one lock file names, and the project itself. Quick and offline when it does.

Called by the Makefile as ``python3 tools/prepare.py requirements.lock``. Exit 2, with the one line that brings it, if this Python is
too old or cannot make a virtual environment. It runs on Python 3.7 too, so that it can say so: no newer syntax, standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

OLDEST, NEWEST = (3, 11), (3, 13)
HOME = Path(__file__).resolve().parent.parent
VENV = HOME / ".venv"
PYTHON = VENV / "bin" / "python"
LOCKS = {"requirements.lock": ("requirements.lock",), "requirements-dev.lock": ("requirements-dev.lock", "requirements.lock")}
EVERY = 5.0  # seconds between progress lines where there is no terminal


def main(lock: str) -> None:
    """Leave with 0 once the environment holds ``lock``; with 2 and one line to type if this Python cannot."""
    refuse_other_pythons()
    here = os.open(str(HOME), os.O_RDONLY)
    fcntl.flock(here, fcntl.LOCK_EX)  # two makes at once install once
    if PYTHON.exists() and stamp(lock).is_file() and stamp(lock).read_text() == expected(lock):
        return
    make_venv()
    began = time.monotonic()
    total = (HOME / lock).read_text().count("==")
    pip(f"Installing {total} packages into .venv, once", "--no-deps", "--require-hashes", "-r", lock)
    pip("Installing mailprefs itself", "--no-deps", "--no-build-isolation", "--no-index", "--editable", ".")
    for name in LOCKS[lock]:  # the larger lock holds the smaller
        stamp(name).write_text(expected(name))
    say(f"Ready after {time.monotonic() - began:.0f} s.")


def stamp(lock: str) -> Path:
    """Return where it is written down what was installed."""
    return VENV / (lock + ".stamp")


def expected(lock: str) -> str:
    """Return a digest of all that decides what is installed: the lock, the project's own face, the Python, the place."""
    parts = [(HOME / name).read_bytes() for name in (lock, "pyproject.toml")]
    parts += [repr(sys.version_info[:2]).encode(), os.fsencode(sys.base_prefix), os.fsencode(str(HOME))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def refuse_other_pythons() -> None:
    """Raise SystemExit, with the line that brings what is missing, unless this Python can hold the project."""
    version = "{}.{}".format(*sys.version_info)
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        stop(f"mailprefs runs on Python 3.11 to 3.13; this is {version}.", "python3.13 python3.13-venv", "make PYTHON=python3.13")
    if importlib.util.find_spec("ensurepip") is None:
        package = "python3-venv" if Path(sys.executable).name == "python3" else f"python{version}-venv"
        stop("This Python cannot make virtual environments: Debian keeps that apart.", package)


def stop(why: str, packages: str, then: str = "") -> NoReturn:
    """Raise SystemExit with 2 after saying why, and one line that mends it."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    say(f"{why}\nThis brings it:\n\n    {sudo}apt-get install -y {packages}{then and ' && ' + then}\n")
    raise SystemExit(2)


def make_venv() -> None:
    """Leave a working environment of this very Python in this very place; any other is made anew."""
    probe = "import sys, pip; print(sys.version_info[:2], sys.base_prefix)"
    with contextlib.suppress(OSError):  # none yet, or its Python is gone
        place = (VENV / "pyvenv.cfg").read_text().rstrip()
        found = subprocess.run([str(PYTHON), "-c", probe], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        if os.fsdecode(found.stdout).strip() == f"{sys.version_info[:2]} {sys.base_prefix}" and place.endswith(f" {VENV}"):
            return
    base = getattr(sys, "_base_executable", sys.executable)  # this may be the environment's own
    run("Making the virtual environment .venv", [base, "-m", "venv", "--clear", str(VENV)])


def pip(title: str, *arguments: str) -> None:
    """Run the environment's own pip; nothing but its verdict is shown."""
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-warn-script-location"]
    run(title, [str(PYTHON), "-m", "pip", "install", *quiet, *arguments])


def run(title: str, command: list[str]) -> None:
    """Run a command while a line of progress tells how long it has been; SystemExit 2 with its words if it fails."""
    env = dict(os.environ, PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", PYTHONUTF8="1")
    done = threading.Event()
    watcher = threading.Thread(target=progress, args=(title, done), daemon=True)
    watcher.start()
    try:
        finished = subprocess.run(command, cwd=str(HOME), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    finally:
        done.set()
        watcher.join()
    if finished.returncode:
        say(finished.stdout.decode(errors="replace").rstrip())
        say(f"{title}: failed. Once the cause is mended, run make again: it goes on from here.")
        raise SystemExit(2)


def progress(title: str, done: threading.Event) -> None:
    """Say what is going on, and for how long: one line that changes on a terminal, a line now and then elsewhere."""
    began, terminal = time.monotonic(), sys.stderr.isatty()
    start, end = ("\r", "") if terminal else ("", "\n")
    say(f"{title} ...", end)
    while not done.wait(1.0 if terminal else EVERY):
        say(f"{start}{title} ... {time.monotonic() - began:.0f} s", end)
    if terminal:
        say("")


def say(words: str, end: str = "\n") -> None:
    """Write to the terminal at once; standard output is kept for what programs read."""
    sys.stderr.write(words + end)
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
