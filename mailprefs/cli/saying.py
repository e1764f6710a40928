"""What is said to a person at a terminal: whatever stands in the words, they move no cursor and paint nothing; and how far work is."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import click

from mailprefs.rows import ADDRESS

NO_ACCOUNT = "there is no account: write [[account]] with name, provider, brand and secrets into the catalogue (docs/providers)"


def plain(text: str) -> str:
    r"""Return a text with all that is no letter, sign or space spelt out, as ``\x1b``: a terminal obeys what it is sent."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def lines(text: str) -> str:
    """Return a text of several lines, each of them plain."""
    return "\n".join(map(plain, text.split("\n")))


class Whole(click.Group):
    """A group whose help says of each command the whole of its first sentence, over as many lines as that takes."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit=400)) for name, command in sorted(self.commands.items())])


def show(line: str) -> None:
    """Write a line to stdout."""
    click.echo(plain(line))


def tell(words: str) -> None:
    """Write words for a person to stderr, one line or several."""
    click.echo(lines(words), err=True)


def tell_column(called: str, asked: str | None = None) -> None:
    """Say which column the addresses are read from, where nobody asked for it and it is not called so."""
    if asked is None and called != ADDRESS:
        tell(f"the addresses are read from the column {called!r}")


def no_account(name: str, known: Sequence[str]) -> click.BadParameter:
    """Return what is said to whoever names an account that is not there."""
    return click.BadParameter(f"no such account: {name}; there are: {', '.join(known) or 'none'}")


def many(count: int, one: str, more: str) -> str:
    """Return how many there are, such as "1 row" and "2,000 rows"."""
    return f"{count:,} {one if count == 1 else more}"


class _File(Protocol):
    def fileno(self) -> int: ...


@contextmanager
def counting(
    what: str, *, total: int | None = None, through: _File | None = None, out: _File | None = None
) -> Iterator[Callable[[int], None]]:
    """Lend what counts, such as "rows", and shows how far it is: out of a ``total``, or by how much of a file has been read.

    Without either, or where what is read is a pipe, the bar says only that something happens. It is gone at the end. None is shown
    where stderr is no terminal, or where ``out`` is one: it would stand between the rows.
    """
    if not sys.stderr.isatty() or (out is not None and os.isatty(out.fileno())):
        yield lambda _more: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    octets = through and _octets(through)
    columns = (TextColumn("{task.fields[count]:,}"), TextColumn(what, markup=False), BarColumn(), TimeElapsedColumn())
    count = 0
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("", total=octets or total or None, count=0)

        def counted(more: int) -> None:
            nonlocal count
            count += more
            bar.update(task, count=count, completed=_place(through) if through and octets else count)

        yield counted


def _octets(file: _File) -> int | None:
    """Return how long a file is, None for a pipe."""
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _place(file: _File) -> int:
    """Return how much of a file has been read, as it lies on disk: of an archive, packed."""
    return os.lseek(file.fileno(), 0, os.SEEK_CUR)
