"""What is said to a person at a terminal: whatever stands in it, it moves no cursor and paints nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import click


def plain(text: str) -> str:
    r"""Return a text with all that is no letter, sign or space spelt out, as ``\x1b``: a terminal obeys what it is sent."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def lines(text: str) -> str:
    """Return a text of several lines, each of them plain."""
    return "\n".join(map(plain, text.split("\n")))


def show(line: str) -> None:
    """Write a line to stdout."""
    click.echo(plain(line))


def tell(words: str) -> None:
    """Write words for a person to stderr, one line or several."""
    click.echo(lines(words), err=True)


class Bar:
    """A line on stderr that counts, and is gone at the end."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._count = 0

    def __call__(self, more: int) -> None:
        self._count += more
        click.echo(f"\r{self._count:,} {self._what}", nl=False, err=True)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        click.echo("\r\033[K", nl=False, err=True)


def counting(what: str) -> AbstractContextManager[Callable[[int], None]]:
    """Lend what counts, such as "rows", where somebody is looking."""
    return Bar(what) if sys.stderr.isatty() else nullcontext(lambda _more: None)
