"""``reconcile``: where a provider's list and ours differ, and healing it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from mailprefs import outbox, telemetry
from mailprefs.cli.opening import Opening, now, run
from mailprefs.cli.saying import show
from mailprefs.errors import Misconfigured, Unavailable
from mailprefs.providers import engaged
from mailprefs.providers.base import Barred, Provider, Slow, Unclear, Unsafe
from mailprefs.providers.calling import session
from mailprefs.reconcile import Books, Report

_WORDS = {  # kind → what it means, and what healing does about it
    "theirs": ("stopped there alone", "stopped here now"),
    "stranger": ("stopped there, and unknown here", "stopped here now"),
    "ours": ("stopped here, and not listed there any more", "told again"),
    "stale": ("still listed there after we said go", "left alone"),
    "unsettled": ("told while the list was read", "left alone"),
}


@click.command("reconcile")
@click.argument("account")
@click.option("--fix", is_flag=True, help="Heal: what they hold stops here, what they lost is told again. Nobody is ever let go.")
@click.option("--shrunk", is_flag=True, help="Believe a list that is much shorter than the last one.")
@click.option("--json", "as_json", is_flag=True, help="For a program to read, with a signed copy of it as proof.")
def reconcile_(account: str, fix: bool, shrunk: bool, as_json: bool) -> int:
    """Compare what ACCOUNT's provider lists as stopped with what we hold. Exit 1 if they differ."""
    telemetry.start(json=not sys.stderr.isatty())
    opening = Opening()
    reports = run(_compared(opening, account, fix, shrunk))
    if as_json:
        told = [asdict(report) for report in reports]
        text = json.dumps(told, default=lambda at: at.isoformat())
        click.echo(json.dumps({"reports": json.loads(text), "proof": opening.ring.timed("reconciliation").dumps(json.loads(text))}))
    for report in () if as_json else reports:
        _show(report)
    return 1 if any(report.drifted for report in reports) else 0


def _show(report: Report) -> None:
    twice = f", {report.twice:,} of them twice" if report.twice else ""
    show(f"{report.scope}: {report.listed:,} listed{twice}")
    for kind, people in report.found.items():
        if people:
            what, cure = _WORDS[kind]
            show(f"  {people:>9,} {what}{f': {cure}' if report.healed else ''}")
    if not report.drifted:
        show("  both hold the same")


async def _compared(opening: Opening, name: str, fix: bool, shrunk: bool) -> Sequence[Report]:
    account = opening.catalogue.account_named(name)
    if account is None:
        raise click.BadParameter(f"no such account; there are: {', '.join(each.name for each in opening.catalogue.account)}")
    provider, credential = engaged(account, opening.settings)
    groups = opening.catalogue.mapped(account)
    if not isinstance(provider, Provider) or not groups:
        raise Misconfigured(
            f"account '{name}' is told nothing, so there is no list of its to compare: map scopes to what the provider calls them"
        )
    names = {number: opening.catalogue.by_number[number].name for number in groups}
    async with opening.connected() as connection, session(1) as http:
        number = (await outbox.accounts(connection))[name]
        books = Books(name, number, provider, credential, groups, names, connection, http, opening.addresses, now)
        try:
            return await books.compare(heal=fix, shrunk=shrunk)
        except (Slow, Barred, Unsafe, Unclear) as error:
            raise Unavailable(f"the list did not come whole ({_why(error)}). Nothing was concluded from it; try again.") from None


def _why(error: Exception) -> str:
    match error:
        case Slow():
            return f"the provider asks us to wait for {error.wait.total_seconds():.0f} s"
        case Barred():
            return "the provider does not accept the account's key"
        case Unclear():
            return error.detail
    return str(error) or "what the account maps is not there"
