"""``mail-in``: one message from a mail server's pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from mailprefs import telemetry
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.signals import run
from mailprefs.letters import Letter
from mailprefs.mailroom import Mailroom

LATER = 75  # EX_TEMPFAIL of sysexits.h: the mail server keeps the message and tries again
LARGEST = 16 * 1024 * 1024  # octets that are read


@click.command("mail-in", context_settings={"ignore_unknown_options": True})
@click.argument("recipients", nargs=-1, metavar="[RECIPIENT]...", envvar="ORIGINAL_RECIPIENT")
@click.option("--sender", envvar="SENDER", help="The envelope's sender, where your mail server tells it.  [the Return-Path field]")
def mail_in_(recipients: Sequence[str], sender: str | None) -> int:
    """Take the message on stdin, sent to RECIPIENT (or to $ORIGINAL_RECIPIENT, else to whom its fields name): an unsubscribe, a bounce,
    a complaint. Exit 0 when it is kept, 75 when the mail server should try again: no other."""
    try:
        telemetry.start(json=True)
        run(_kept(recipients or [""], sender))
    except Exception as error:
        telemetry.log.error("letter_not_kept", exc_info=error)
        click.echo(f"mailprefs: not kept: {type(error).__name__}. Try again.", err=True)
        return LATER
    return 0


async def _kept(recipients: Sequence[str], sender: str | None) -> None:
    raw = sys.stdin.buffer.read(LARGEST)
    while sys.stdin.buffer.read(1 << 16):
        pass  # a mail server whose pipe breaks takes that for a failure
    opening = Opening()
    room = Mailroom(opening.catalogue, opening.addresses, opening.ring, opening.settings.authserv)
    read = room.opened(Letter(raw, sender=_path(sender)), now=now())  # once for all of them: it may take a second
    async with opening.connected() as connection:
        for recipient in recipients:
            await room.record(connection, room.said(read, recipient), now=read.now)


def _path(sender: str | None) -> str | None:
    """Return the envelope's sender, "" for the null path: Postfix calls that one MAILER-DAEMON."""
    return "" if sender and sender.lower() == "mailer-daemon" else sender and sender.strip("<>")
