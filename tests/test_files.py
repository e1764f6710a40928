"""Files about people: their owner's alone, whole or as they were, never through somebody's link, and what is no file is never replaced."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mailprefs import files
from mailprefs.errors import Misconfigured


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_is_there_when_it_is_whole_and_the_old_one_until_then(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with files.whole(path) as out:
        out.write(b"new")
        out.flush()
        assert path.read_text() == "old"
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    with pytest.raises(ValueError, match="half way"):
        break_off(path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


class Ended(BaseException):
    """What a signal raises, between any two lines."""


def ended_after(lines: int, work: Callable[[], None]) -> bool:
    """Do some work that is ended once so many lines of the room were run; return whether it was."""
    left = iter(range(lines))

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if event == "line" and next(left, None) is None:
            raise Ended
        return trace if frame.f_code.co_filename == files.__file__ else None

    sys.settrace(trace)
    try:
        work()
    except Ended:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # whoever ends closes nothing
def test_wherever_it_is_ended_no_part_is_left_behind(tmp_path: Path) -> None:
    path, contents, lines = tmp_path / "out.csv", set(), 0
    while True:
        path.write_text("old")
        ended = ended_after(lines, partial(write, path))
        assert list(tmp_path.iterdir()) == [path], lines
        contents.add(path.read_text())
        if not ended:
            break
        lines += 1
    assert lines > 20
    assert contents == {"old", "new"}


def write(path: Path) -> None:
    with files.whole(path) as out:
        out.write(b"new")


def break_off(path: Path) -> None:
    with files.whole(path) as out:
        out.write(b"half")
        raise ValueError("half way")


def test_what_may_only_be_new_takes_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    with files.whole(path, new=True) as out:
        out.write(b"mine")
    with pytest.raises(Misconfigured, match="File exists"), files.whole(path, new=True) as out:
        out.write(b"theirs")
    assert (path.read_text(), mode(path)) == ("mine", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_fresh_file_is_another_than_the_one_that_lay_there(tmp_path: Path) -> None:
    path = tmp_path / "rejects.csv"
    path.write_text("planted")
    path.chmod(0o666)
    with path.open() as theirs:
        with files.fresh(path) as out:
            out.write(b"mine")
        assert theirs.read() == "planted", "who opened the old one reads nothing of the new"
    assert (path.read_text(), mode(path)) == ("mine", 0o600)


def test_a_link_to_a_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    for name, target in (("link", "target"), ("chain", "link"), ("nowhere", "gone")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(Misconfigured, match=r"is a link.*name the file"):
            files.fresh(tmp_path / name)
        with pytest.raises(Misconfigured, match="is a link"), files.whole(tmp_path / name):
            pass
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "gone").exists()


def listen(pipe: Path, heard: list[bytes]) -> None:
    heard.append(pipe.read_bytes())


def test_what_is_no_file_is_written_through_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to the pipe").symlink_to("pipe")
    for name in ("pipe", "to the pipe"):
        heard: list[bytes] = []
        reader = threading.Thread(target=partial(listen, tmp_path / "pipe", heard))
        reader.start()
        with files.whole(tmp_path / name) as out:
            out.write(b"through")
        reader.join(10)
        assert heard == [b"through"]
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "to the pipe").is_symlink()
    with files.fresh(Path(os.devnull)) as out:
        out.write(b"gone")
    assert Path(os.devnull).is_char_device()


def test_an_open_descriptor_is_written_on_and_not_begun_anew(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as log:
        log.write(b"before ")
        (tmp_path / "stdout").symlink_to(f"/dev/fd/{log.fileno()}")
        with files.whole(tmp_path / "stdout") as out:
            out.write(b"after")
        log.write(b" and on")
    assert (tmp_path / "log").read_bytes() == b"before after and on"
    assert (tmp_path / "stdout").is_symlink()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "where.csv", tmp_path):
        with pytest.raises(Misconfigured, match="cannot be written: "):
            files.fresh(path)
        with pytest.raises(Misconfigured, match="cannot be written: "), files.whole(path):
            pass
