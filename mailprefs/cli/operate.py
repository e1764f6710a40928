"""``sync``, ``ledger`` and ``sandbox``: is everyone told, is the state sound, and something to try it on."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from mailprefs import ledger, outbox
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.saying import NO_ACCOUNT, Whole, counting, many, no_account, show, tell
from mailprefs.cli.signals import run
from mailprefs.outbox import Figures
from mailprefs.words import BUCKETS


@click.command("sync")
@click.argument("account", required=False)
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def sync_(account: str | None, as_json: bool) -> int:
    """What each account (or ACCOUNT) still has to hear, and since when. Exit 1 while anything waits."""
    known = run(_figures())
    figures = [each for each in known if account in (None, each.account)]
    if account and not figures:
        raise no_account(account, [each.account for each in known])
    if as_json:
        click.echo(json.dumps({"accounts": [each.shown for each in figures]}))
    for each in () if as_json else figures:
        oldest = f", the oldest since {each.oldest_at:%Y-%m-%d %H:%M:%S}Z" if each.oldest_at else ""
        due = f", due by {each.next_deadline_at:%Y-%m-%d %H:%M}Z" if each.next_deadline_at else ""
        late = f", {each.late:,} LATE" if each.late else ""
        rest = f"{each.dead:,} refused, {each.no_address:,} known by key only"
        show(f"{each.account:<24} {each.waiting:,} waiting{oldest}{due}{late}, {rest}")
    if not known and not as_json:
        tell(NO_ACCOUNT)
    return 1 if any(each.waiting for each in figures) else 0


async def _figures() -> list[Figures]:
    async with Opening().connected() as connection:
        return await outbox.sync(connection, now=now())


@click.group("ledger", cls=Whole)
def ledger_() -> None:
    """Prove that every summary is what its ledger says."""


@ledger_.command("verify")
def verify() -> int:
    """Fold every ledger anew and compare. Exit 1 if one summary differs."""
    count = run(_differing())
    differing = f"{many(count, 'summary differs from its', 'summaries differ from their')} ledger"
    tell(differing if count else "every summary is what its ledger says")
    return 1 if count else 0


async def _differing() -> int:
    async with Opening().connected() as connection:
        with counting("of at most 1,024 buckets", total=BUCKETS) as bar:
            return await ledger.differing(connection, bar)


class _Faulty(click.Command):
    """A command whose help ends with the faults that there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from mailprefs.sandbox import faults  # brings in what a web server needs

        with formatter.section("Faults, each spent on one request that comes"):
            formatter.write_dl(list(faults.described().items()))
        formatter.write_paragraph()
        formatter.write_text("The command says how to ask for them when it runs; docs/sandbox.md says what comes of each.")


@click.command("sandbox", cls=_Faulty)
@click.argument("providers", nargs=-1)
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="0: a free one, printed.")
def sandbox_(providers: tuple[str, ...], port: int) -> None:
    """Simulated endpoints of PROVIDERS (all of them if none is named) on loopback, with faults on request.

    They speak the providers' own wire formats over HTTP, hold what they are told until the command ends, and take any key. An account is
    asked there with api_base = "http://127.0.0.1:PORT/PROVIDER" in mailprefs.toml.
    """
    from mailprefs.sandbox import app as sandbox  # brings in what a web server needs

    if strange := set(providers) - set(sandbox.SIMULATIONS):
        raise click.BadParameter(f"no sandbox for {', '.join(sorted(strange))}; there are: {', '.join(sandbox.SIMULATIONS)}")
    names = providers or tuple(sandbox.SIMULATIONS)
    run(sandbox.serve(port, providers, begun=lambda root: tell(_greeting(root, names))))


def _greeting(root: str, names: Sequence[str]) -> str:
    from mailprefs.sandbox import faults

    accounts = (f'  {name:<12} api_base = "{root}/{name}"' for name in names)
    wrong = (f"  {name:<22} {what}" for name, what in faults.described().items())
    return "\n".join(
        [
            f"the sandbox listens on {root}; Ctrl-C ends it, and it forgets everything",
            "",
            "in an [[account]] of mailprefs.toml:",
            *accounts,
            "",
            "what they believe, and what came in:",
            f"  curl {root}/_sandbox/state",
            f"  curl {root}/_sandbox/requests",
            "",
            "what goes wrong with the requests that come next, one each:",
            f'  curl -d \'{{"queue": ["500", {{"fault": "slow", "seconds": 2}}]}}\' {root}/_sandbox/faults',
            *wrong,
        ]
    )
