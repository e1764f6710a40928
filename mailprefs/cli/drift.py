"""``reconcile`` and ``check-report``: where a provider's list and ours differ, healing it, and proving what was found."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mailprefs import outbox, reconcile, seals, telemetry
from mailprefs.cli.opening import Opening, contents, now
from mailprefs.cli.saying import show, tell
from mailprefs.cli.signals import run
from mailprefs.errors import Unavailable, Unreadable
from mailprefs.providers import engaged
from mailprefs.providers.calling import session
from mailprefs.reconcile import Report

_WORDS = {  # kind → what it means, and what healing does about it
    "theirs": ("stopped there alone", "stopped here now"),
    "stranger": ("stopped there, and unknown here", "stopped here now"),
    "ours": ("stopped here, and not listed there any more", "told again"),
    "stale": ("still listed there after we said go", "left alone"),
    "unsettled": ("still being told, or spoken for while the list was read", "left alone"),
}


@click.command("reconcile")
@click.argument("account")
@click.option("--fix", is_flag=True, help="Heal: what they hold stops here, what they lost is told again. Nobody is ever let go.")
@click.option("--shrunk", is_flag=True, help="Believe a list that is much shorter than the last one.")
@click.option("--json", "as_json", is_flag=True, help="For a program to read, with a signed copy as proof: `check-report` checks it.")
def reconcile_(account: str, fix: bool, shrunk: bool, as_json: bool) -> int:
    """Compare what ACCOUNT's provider lists as stopped with what we hold. Exit 1 if they differ."""
    telemetry.start(json=not sys.stderr.isatty())
    opening = Opening()
    reports = run(_compared(opening, account, fix, shrunk))
    if as_json:
        click.echo(json.dumps(reconcile.signed(opening.ring, reports)))
    for report in () if as_json else reports:
        _show(asdict(report))
    return 1 if any(report.drifted for report in reports) else 0


@click.command("check-report")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
def check_report_(file: Path) -> int:
    """Prove a report. FILE is what `reconcile --json` wrote, or `POST /v1/reconcile/ACCOUNT` answered; `-` is stdin.

    Its words are shown only if the key ring here signed them. Exit 1 if it did not.
    """
    try:
        told = seals.read(contents(file))
    except (ValueError, RecursionError):
        raise Unreadable("that is no report of a comparison: no JSON") from None
    reports, at = reconcile.proven(Opening().ring, told)
    for report in reports:
        show(f"{report['account']}, {report['began_at'][:19]}Z to {report['ended_at'][:19]}Z")
        _show(report)
    tell(f"signed {at:%Y-%m-%d %H:%M:%S}Z with a key of this ring")
    return 0


def _show(report: Mapping[str, Any]) -> None:
    twice = f", {report['twice']:,} of them twice" if report["twice"] else ""
    show(f"{report['scope']}: {report['listed']:,} listed{twice}")
    for kind, people in report["found"].items():
        if people:
            what, cure = _WORDS[kind]
            show(f"  {people:>9,} {what}{f': {cure}' if report['healed'] else ''}")
    if not any(report["found"].values()):
        show("  both hold the same")
    elif not any(people for kind, people in report["found"].items() if kind != "unsettled"):
        show("  of everybody else both hold the same")


async def _compared(opening: Opening, name: str, fix: bool, shrunk: bool) -> Sequence[Report]:
    account = opening.account(name)
    provider, credential = engaged(account, opening.settings)
    async with opening.connected() as connection, session(1) as http:
        number = (await outbox.accounts(connection))[name]
        books = reconcile.books(opening.catalogue, account, provider, credential, number, connection, http, opening.addresses, now)
        try:
            return await books.compare(heal=fix, shrunk=shrunk)
        except reconcile.TROUBLE as error:
            raise Unavailable(reconcile.why(error)) from None
