"""The commands as a whole: quick to help, clear about mistakes, quiet when nobody listens."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys

import click
import pytest

from mailprefs import cli

from .shell import MAILPREFS, Shell

HEAVY = {
    "asyncio",
    "asyncpg",
    "aiohttp",
    "aiosql",
    "pydantic",
    "email_validator",
    "phonenumbers",
    "ssl",
    "structlog",
    "jinja2",
    "mailprefs.catalogue",
}
LOADED = """
import sys
from mailprefs.cli import main
sys.argv = ["mailprefs", "--help"]
try:
    main()
except SystemExit as ended:
    print(*sys.modules, file=sys.stderr)
    raise
"""


async def test_help_loads_nothing_heavy(alone: Shell) -> None:
    done = await alone("-c", LOADED, command=(sys.executable,))
    loaded = set(done.said(0).err.split())
    assert loaded >= {"click", "mailprefs.cli"}
    assert loaded & HEAVY == set()
    assert all(f"  {name} " in done.out for name in cli._COMMANDS)


async def test_help_takes_little_longer_than_python_itself(alone: Shell) -> None:
    async def quickest(*command: str) -> float:
        times = []
        for _ in range(4):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            (await alone(command=command)).said(0)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(times)

    own, bare = await quickest(sys.executable, "-m", "mailprefs", "--help"), await quickest(sys.executable, "-c", "import click")
    assert bare > 0
    sys.stdout.write(f"mailprefs --help: {own:.3f} s of the processor; python and click alone: {bare:.3f} s\n")
    assert own < 4 * bare


@pytest.mark.parametrize("name", list(cli._COMMANDS))
def test_every_command_is_there_and_says_what_it_does(name: str) -> None:
    context = click.Context(cli.commands, info_name="mailprefs")
    command = cli.commands.get_command(context, name)
    assert command
    assert command.name == name
    assert len(command.get_help(click.Context(command, info_name=name, parent=context)).splitlines()) > 3
    short = cli._COMMANDS[name][1]
    assert short.endswith(".")
    assert len(short) < 90


@pytest.mark.parametrize("name", ["keys", "api-keys", "export", "webhook", "ledger", "hook"])
def test_a_group_of_commands_says_of_each_a_whole_sentence_on_a_narrow_terminal(name: str) -> None:
    context = click.Context(cli.commands, info_name="mailprefs", terminal_width=80)
    group = cli.commands.get_command(context, name)
    assert isinstance(group, click.Group)
    shown = " ".join(group.get_help(click.Context(group, info_name=name, parent=context, terminal_width=80)).split())
    for command in group.commands.values():
        assert command.help
        assert f" {command.name} {' '.join(command.help.split()).split('. ')[0].rstrip('.')}" in shown


async def test_a_mistake_in_a_command_is_said_with_the_way_out(alone: Shell) -> None:
    cases = {
        ("lnik",): "No such command 'lnik'",
        ("--versoin",): "No such option",
        ("link", "jane@example.org"): "Missing argument 'TOPIC'",
        ("stop", "jane@example.org", "newsletter", "--cause", "choice"): "Missing option '--evidence'",
        ("stop", "jane@example.org", "newsletter", "--cause", "whim", "--evidence", "1"): "'whim' is not one of",
        ("import", "people", "x.csv"): "'people' is not one of",
        ("import", "addresses", "gone.csv"): "'gone.csv' does not exist",
        ("import", "addresses", "."): "is a directory",
        ("check", "gone.eml"): "'gone.eml' does not exist",
        ("keys", "retire", "one"): "'one' is not a valid integer",
        ("api-keys", "new"): "Missing argument",
        ("api-keys", "new", "everything"): "'everything' is not one of",
        ("serve", "--only", "public,attic"): "no such part: attic; there are: public",
        ("serve", "--only", ""): "no such part",
        ("sandbox", "pigeon"): "no sandbox for pigeon",
        ("hook", "test", "pigeon"): "no such account: pigeon; there are: sendgrid-main, sendgrid-second",
        ("reconcile", "pigeon"): "no such account: pigeon; there are: sendgrid-main, sendgrid-second",
        ("provider", "pigeon"): "no such provider or account: pigeon",
        (): "Usage: mailprefs",
    }
    for words, said in cases.items():
        assert (await alone(*words)).said(2, said).out == ""


async def test_what_is_missing_is_said_with_what_to_do(alone: Shell) -> None:
    link = ("link", "jane@example.org", "newsletter")
    gone, refused, unset = {"MAILPREFS_KEYS": "gone.json"}, {"MAILPREFS_CONFIG": "gone.toml"}, {"DATABASE_URL": "canary-password"}
    cases: list[tuple[tuple[str, ...], dict[str, str], int, str]] = [
        (link, gone, 2, r"ring gone\.json does not exist\. It lies beside mailprefs\.toml: go there.*`mailprefs keys new` makes one"),
        (("keys", "list"), gone, 2, "`mailprefs keys new` makes one"),
        (link, refused, 2, r"gone\.toml does not exist\. `mailprefs init` writes one"),
        (link, {"MAILPREFS_KEYS": '{"digest": "canary-password"}'}, 2, "the key ring is not in its form"),
        (link, {"PORT": "eighty"}, 2, "PORT"),
        (("why", "jane@example.org"), unset, 2, "DATABASE_URL is not a PostgreSQL URL"),
        (("why", "jane@example.org"), {}, 1, r"the database cannot be reached \(ConnectionRefusedError\)"),
        (("migrate",), {}, 1, "the database cannot be reached"),
        (("export", "suppressions"), {}, 1, "the database cannot be reached"),  # a header alone would say that nobody is stopped
        (("serve",), {}, 2, "account 'sendgrid-main' wants its webhook_key in the variable SENDGRID_WEBHOOK_KEY, which is not set"),
        (("work",), {}, 1, "the database cannot be reached"),
        (("link", "jane@example.org", "orders"), {}, 2, "Unsubscribe links exist for marketing alone"),
        (("link", "jane@example.org", "gossip"), {}, 2, "no such topic; there are: connective/newsletter"),
        (("link", "jane@example.org", "connective/marketing"), {}, 2, "that is no topic; there are: connective/newsletter"),
        (("link", "not an address", "newsletter"), {}, 1, "neither an e-mail address nor a phone number"),
    ]
    for words, env, status, said in cases:
        assert (await alone(*words, env=env)).said(status, said).out == "", words


async def test_a_catalogue_that_is_wrong_is_told_by_line_and_key(alone: Shell) -> None:
    catalogue = alone.home / "mailprefs.toml"
    catalogue.write_text(catalogue.read_text().replace("number = 17", "number = 7"))
    (await alone("link", "jane@example.org", "newsletter")).said(2, r"mailprefs\.toml line \d+: brand\[0\]\.topic\[1\]\.number")


PLAIN = {"LC_ALL": "C"}  # bash says when it has no such locale


async def test_a_reader_that_has_enough_is_no_error(alone: Shell) -> None:
    many = b"address\n" + b"".join(b"p%d@example.org\n" % n for n in range(20_000))
    piped = '"$0" -m mailprefs links newsletter | head -1; exit "${PIPESTATUS[0]}"'
    done = await alone("-c", piped, sys.executable, stdin=many, command=("bash",), env=PLAIN)
    assert done.said(0).out.startswith("address,url,")
    assert done.err == ""


async def test_what_cannot_be_written_is_said_once(alone: Shell) -> None:
    for rows in (1, 20_000):  # what is written while it runs, and what only its end would write
        many = b"address\n" + b"p@example.org\n" * rows
        done = await alone("-c", '"$0" -m mailprefs links newsletter > /dev/full', sys.executable, stdin=many, command=("bash",), env=PLAIN)
        assert done.said(1, "No space left on device").err.count("\n") == 1


async def test_whatever_the_locale_is_called_the_answer_is_the_same(alone: Shell) -> None:
    address, topic = "jérôme@bücher.example.com", "newsletter"
    rows = f"address,name\n{address},Jérôme\n".encode()
    foreign: list[dict[str, str | None]] = [
        {"LC_ALL": "C"},
        {"LC_ALL": "tr_TR.UTF-8"},
        {"LC_ALL": "xx_XX.ISO-8859-1"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    ]
    links = [await alone("link", address, topic, env=each, command=MAILPREFS) for each in foreign]
    assert len({done.said(0).out for done in links}) == 1
    streams = [await alone("links", topic, stdin=rows, env=each, command=MAILPREFS) for each in foreign]
    assert len({done.said(0).out for done in streams}) == 1
    assert "Jérôme" in streams[0].out


IMPATIENT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

signal.pthread_sigmask(signal.SIG_UNBLOCK, {{signal.SIGINT}})  # as at a terminal, whatever the tests were started by
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
sys.meta_path.insert(0, Interrupting())
sys.argv = ["mailprefs", "--help"]
from mailprefs.{room} import main
main()
"""


@pytest.mark.parametrize(("room", "shown"), [("__main__", False), ("cli", True)])
def test_ctrl_c_while_a_command_is_loaded_shows_no_traceback(room: str, shown: bool) -> None:
    """The control is the command as it is without its entrance."""
    done = subprocess.run([sys.executable, "-c", IMPATIENT.format(room=room)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGINT or shown
    assert ("Traceback" in done.stderr) is shown


async def test_a_file_that_cannot_be_had_is_named(alone: Shell) -> None:
    opening = "from mailprefs import cli; cli.commands.main = lambda **_: open('/nowhere/at all'); cli.main()"
    (await alone("-c", opening, command=(sys.executable,))).said(1, "mailprefs: /nowhere/at all: No such file or directory")
