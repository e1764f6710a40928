"""``mailprefs mail-in``: kept and 0, or 75 and the mail server tries again. No other end."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import asyncpg
import pytest

from mailprefs.cli.post import _kept
from mailprefs.letters import Letter
from mailprefs.links import KeyRing
from mailprefs.mailroom import Mailroom, Read

from .postbox import ENTRIES, MARKETING, NEWSLETTER, Postbox, aside, rows

TESTS = Path(__file__).parent.parent
AWAY = "postgresql://nobody@127.0.0.1:1/nowhere"


@pytest.fixture
def environment(database: str, ring: KeyRing) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database,
        "MAILPREFS_CONFIG": str(TESTS / "catalogue.toml"),
        "MAILPREFS_KEYS": ring.dumped(),
        "MAIL_AUTHSERV_ID": "mx.example.com",
    }


def mail_in(environment: dict[str, str], raw: bytes, *words: str) -> int:
    run = subprocess.run(
        [sys.executable, "-m", "mailprefs", "mail-in", *words], input=raw, env=environment, capture_output=True, timeout=60, check=False
    )
    assert run.stdout == b""
    assert b"Traceback" not in run.stderr
    assert b"example.org" not in run.stderr
    return run.returncode


async def test_a_message_is_kept_for_the_recipient_that_is_named(
    environment: dict[str, str], conn: asyncpg.Connection, box: Postbox
) -> None:
    key = box.addresses.read("jane@example.org").key
    assert mail_in(environment, b"From: x@example.org\n\n", "--sender", "x@example.org", f"u+{box.token}@go.example.com") == 0
    assert await rows(conn) == {(key, NEWSLETTER, "choice", "stop")}


async def test_the_recipient_may_be_told_by_the_environment_or_by_the_fields(
    environment: dict[str, str], conn: asyncpg.Connection, box: Postbox
) -> None:
    raw = b"From: x@example.org\n\n"
    assert mail_in({**environment, "ORIGINAL_RECIPIENT": f"u+{box.token}@go.example.com", "SENDER": "x@example.org"}, raw) == 0
    assert {row[1] for row in await rows(conn)} == {NEWSLETTER}
    proven = next(entry for entry in ENTRIES if entry["file"] == "wish-proven-sender.eml")
    assert mail_in(environment, box.letter(proven).raw) == 0
    assert {row[1] for row in await rows(conn)} == {NEWSLETTER, MARKETING}


async def test_the_null_path_is_known_by_the_name_that_postfix_gives_it(
    environment: dict[str, str], conn: asyncpg.Connection, box: Postbox
) -> None:
    raw = b"From: x@example.org\nSubject: no report at all\n\nhello\n"
    assert mail_in(environment, raw, "--sender", "MAILER-DAEMON", "bounces@go.example.com") == 0
    assert await aside(conn) == ["unreadable_return"]


async def test_what_is_for_nobody_of_ours_is_kept_aside_all_the_same(environment: dict[str, str], conn: asyncpg.Connection) -> None:
    assert mail_in(environment, b"\0\xff" * 100, "-odd", "--", "--sender", "nobody@example.com") == 0
    assert set(await aside(conn)) == {"sender_not_proven"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"DATABASE_URL": AWAY},
        {"DATABASE_URL": "nonsense"},
        {"MAILPREFS_CONFIG": "/nowhere.toml"},
        {"MAILPREFS_KEYS": "{}"},
        {"LMTP_PORT": "nonsense"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_whatever_is_wrong_here_the_mail_server_tries_again(
    environment: dict[str, str], conn: asyncpg.Connection, box: Postbox, wrong: dict[str, str]
) -> None:
    assert mail_in({**environment, **wrong}, b"\n", f"u+{box.token}@go.example.com") == 75
    assert await rows(conn) == set()


async def test_a_message_is_read_once_for_all_its_recipients_and_kept_for_each(
    environment: dict[str, str], conn: asyncpg.Connection, box: Postbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading may take a second; a mail server hands over a hundred recipients at once."""
    counted = []

    def opened(room: Mailroom, letter: Letter, *, now: datetime) -> Read:
        counted.append(letter)
        return reading(room, letter, now=now)

    reading = Mailroom.opened
    monkeypatch.setattr(Mailroom, "opened", opened)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"From: x@example.org\n\n")))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    kim = box.links.token(box.addresses.read("kim@example.org").key, box.catalogue.topic("offers"))
    await _kept([f"u+{box.token}@go.example.com", f"u+{kim}@go.example.com"], "x@example.org")
    assert len(counted) == 1
    assert {(row[0], row[1]) for row in await rows(conn)} == {
        (box.addresses.read("jane@example.org").key, NEWSLETTER),
        (box.addresses.read("kim@example.org").key, 273),
    }
