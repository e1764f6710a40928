"""The commands. Each room of them is imported only when one of its commands runs, so that ``--help`` is quick.

Data goes to stdout, words and progress to stderr. Exit 0 done, 1 said no, 2 wrong usage or configuration. Never a traceback.
"""

from __future__ import annotations

import io
import os
import select
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from mailprefs import __version__
from mailprefs.cli import signals
from mailprefs.cli.saying import tell
from mailprefs.errors import MailprefsError, Misconfigured, NotMintable, UnknownScope

# command → (room, what it does): what `--help` shows without importing any of it
_COMMANDS = {
    "demo": ("demo", "Tell the whole story on an own PostgreSQL, then keep serving."),
    "init": ("service", "Write a commented mailprefs.toml and a key ring, ready to serve."),
    "migrate": ("service", "Bring the database up to date."),
    "serve": ("service", "Serve links, webhooks and the API."),
    "work": ("service", "Tell the providers what they have not heard."),
    "keys": ("secrets", "Make, show and retire signing keys."),
    "api-keys": ("secrets", "Make, show and revoke keys for the API."),
    "link": ("mint", "Mint the link and the headers for one recipient."),
    "links": ("mint", "Mint them for a file of recipients, streaming, without database or network."),
    "check": ("mint", "Check a message: headers, DKIM, visible link, postal address."),
    "import": ("people", "Import addresses, suppressions or consents. Never lifts a stop."),
    "mail-in": ("post", "Take one message from your mail server: an unsubscribe, a bounce, a complaint."),
    "audience": ("audiences", "Everyone who may be sent a topic."),
    "export": ("exports", "Audiences made once and kept, with a signed manifest; suppressions for another tool."),
    "filter": ("candidates", "Of a file of candidates, those who may be sent a topic."),
    "why": ("people", "Whether an address may be sent what, and everything behind it."),
    "stop": ("people", "Stop a scope for an address, by staff, with evidence."),
    "lift": ("people", "Lift what staff may lift, with a reason."),
    "sync": ("operate", "What each account still has to hear, and the oldest of it."),
    "reconcile": ("drift", "Compare what a provider lists with what we hold, and heal."),
    "check-report": ("drift", "Prove a report of a comparison: that it was signed here, and not altered."),
    "check-receipt": ("receipts", "Prove what a recipient shows: that a page of ours gave it, and nobody altered it."),
    "webhook": ("endpoints", "What your own systems have heard of our changes; try one out, tell one again."),
    "ledger": ("operate", "Prove that every summary is what its ledger says."),
    "provider": ("hooks", "The exact settings to make at a provider."),
    "hook": ("hooks", "How each account is heard; deliveries tried, replayed, kept aside."),
    "sandbox": ("operate", "Simulated provider endpoints on loopback, with faults on request."),
}


class _Lazy(click.Group):
    """A group that knows its commands by name alone until one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        room = import_module(f"mailprefs.cli.{_COMMANDS[name][0]}")
        command: click.Command = getattr(room, name.replace("-", "_") + "_")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command to the last byte of its output. A reader that has enough, such as ``head``, is no error."""
        try:
            result = super().invoke(ctx)
            if sys.stdout:
                sys.stdout.flush()
        except BrokenPipeError:
            if not _reader_is_gone():
                raise
            return 0
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mailprefs")
def commands() -> None:
    """mailprefs: the one place that knows who may be sent what."""


def main(prog_name: str = "mailprefs") -> NoReturn:
    """Run one command and end the process with its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # whatever the locale out there is called
    signals.heed()
    status = _ended(prog_name)
    _let_go()
    sys.exit(status)


def _ended(prog_name: str) -> int:
    try:
        return _status(commands.main(prog_name=prog_name, standalone_mode=False))
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        tell(said.getvalue().rstrip("\n").expandtabs(4))
        return 2
    except click.Abort:
        return signals.INTERRUPTED
    except (Misconfigured, UnknownScope, NotMintable) as error:
        return _said(str(error), 2)
    except MailprefsError as error:
        return _said(str(error), 1)
    except KeyboardInterrupt:
        return signals.INTERRUPTED
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str | os.PathLike) else ""
        return _said(f"{where}{error.strerror or type(error).__name__}{'' if where else f', at {_place(error)}'}", 1)
    except Exception as error:
        return _said(f"something unexpected went wrong: {type(error).__name__} at {_place(error)}. Please report it.", 1)


def _reader_is_gone() -> bool:
    poll = select.poll()
    poll.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _let_go() -> None:
    """Leave nothing for the interpreter's end to write: what could not be written would fail once more, and loudly."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _status(result: Any) -> int:
    return result if isinstance(result, int) else 0


def _said(words: str, status: int) -> int:
    tell(f"mailprefs: {words}")
    return status


def _place(error: BaseException) -> str:
    """Return where it happened, never what it was about: its text may repeat an address."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "an unknown place"
