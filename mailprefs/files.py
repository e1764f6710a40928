"""Files that hold what is nobody else's business: open to their owner alone, and never written through somebody's link."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from mailprefs.errors import Misconfigured

LINKS = 40  # that are followed, as by the kernel


@contextmanager
def whole(path: Path, *, new: bool = False) -> Iterator[BinaryIO]:
    """Lend what to write a file with, mode 0600. It takes its place when the block has ended well; until then the old one is there.

    ``new``: it never takes the place of another. What is no file, such as /dev/stdout, is written as it goes. Raises Misconfigured.
    """
    with _named(path):
        special = None if new else _through(path)
    if special is not None:
        with special:
            yield special
        return
    part = path.parent / f".mailprefs-{token_hex(8)}"  # known before it is there: whoever is ended between the two leaves nothing behind
    try:
        with _named(path):
            out = _made(part)
        with out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        with _named(path):
            (os.link if new else os.replace)(part, path)
    finally:
        with suppress(OSError):  # it is in its place, or could not even be made
            part.unlink()


def fresh(path: Path) -> BinaryIO:
    """Return a new empty file, mode 0600, in place of the one that was there; or what is no file, such as /dev/stdout, to write to.

    What lay there is removed and not written into: it may belong to somebody else. Raises Misconfigured.
    """
    with _named(path):
        if (special := _through(path)) is not None:
            return special
        path.unlink(missing_ok=True)
        return _made(path)


@contextmanager
def scratch(folder: Path | None = None) -> Iterator[Path]:
    """Lend a folder for what is on its way, in this one or in TMPDIR, and remove it with all that is in it.

    Raises Misconfigured: what a disk refuses would be taken for trouble of the database.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix=".mailprefs-", dir=folder)
    except OSError as error:
        where = f"in {folder}" if folder else "where TMPDIR says"
        raise Misconfigured(f"a folder for what is on its way cannot be made {where}: {error.strerror}") from None
    with made as path:
        yield Path(path)


def _made(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written: {error.strerror}") from None


def _through(path: Path) -> BinaryIO | None:
    """Return what can only be written through, and must never be replaced: /dev/stdout, a pipe, a terminal. None for a file, or nothing.

    Raises Misconfigured for a link to a file: who made it would choose what is overwritten.
    """
    if (number := _descriptor(path)) is not None:
        return os.fdopen(os.dup(number), "wb")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        return path.open("wb")
    if path.is_symlink():
        raise Misconfigured(f"{path} is a link, and is not written through; name the file that it leads to")
    return None


def _descriptor(path: Path) -> int | None:
    """Return the number behind a name such as /dev/stdout: it is open already, even where it is a file."""
    ours = (Path("/proc/self/fd").resolve(), Path("/dev/fd"))
    for _ in range(LINKS):
        if path.name.isdecimal() and path.parent.resolve() in ours:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None
