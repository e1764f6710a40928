"""``provider`` and ``hook``: setting an account up at its provider, and seeing that it is heard."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from textwrap import indent
from typing import Any

import click
from aiohttp import ClientError, ClientSession

from mailprefs import db, inbox, mailroom, reception, shipped
from mailprefs.catalogue import Account
from mailprefs.cli.opening import Opening, contents, now
from mailprefs.cli.saying import NO_ACCOUNT, Whole, show, tell
from mailprefs.cli.signals import run
from mailprefs.cli.tryout import test
from mailprefs.errors import Forged, Unavailable, Unreadable
from mailprefs.inbox import Inbox
from mailprefs.providers import CHANNELS, PROVIDERS, engaged, listen, sns
from mailprefs.providers.base import Credential, Delivery, Ear, Heard
from mailprefs.providers.calling import session
from mailprefs.reception import Reception


@click.command("provider")
@click.argument("name")
def provider_(name: str) -> None:
    """The exact settings to make at a provider. NAME is a provider, or an account of yours."""
    account = None if name in PROVIDERS else Opening().catalogue.account_named(name)
    kind = account.provider if account else name
    if kind not in PROVIDERS:
        raise click.BadParameter(f"no such provider or account: {name}; the providers are: {', '.join(PROVIDERS)}")
    text = "\n".join(_section(kind, "What to set at the provider"))
    click.echo(_plain(_own(text, account) if account else text))


def _own(text: str, account: Account) -> str:
    """Return a provider's page as it reads for one account of it: with its name, and with its address as far as that is known."""
    host = next(brand.link_host for brand in Opening().catalogue.brand if brand.name == account.brand)
    shown = f"https://YOUR-HOST/hooks/{account.provider}-main"
    text = text.replace(shown, account.public_url or shown).replace("YOUR-HOST", host)
    return re.sub(rf"\b(?:{account.provider}-main|ACCOUNT)\b", account.name, text)


def _plain(text: str) -> str:
    """Return Markdown as a person reads it in a terminal: what is bold or to be ticked there is marked as little as can be."""
    text = re.sub(r"\*\*([^*]+)\*\*", r"\1", text)
    text = re.sub(r"(?<![\w*])\*([^*]+)\*(?![\w*])", r'"\1"', text)
    return re.sub(r"(?ms)^```\w*\n(.*?)^```$", lambda block: indent(block[1], "    ").rstrip(), text)


def _section(provider: str, title: str) -> Iterator[str]:
    """Yield the lines of one section of a provider's page: people read the same words there."""
    text = (shipped.folder("docs") / "providers" / f"{provider}.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n+(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    yield from (found[1].rstrip() if found else "").splitlines()


@click.group("hook", cls=Whole)
def hook_() -> None:
    """How each account is heard, and deliveries once more: tried, replayed, kept aside, confirmed."""


hook_.add_command(test)


@hook_.command("accounts")
@click.argument("account", required=False)
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def accounts(account: str | None, as_json: bool) -> int:
    """How each account (or ACCOUNT) is heard. What it said, when last, and what was refused or kept aside.

    Exit 1 if one has been silent for longer than usual.
    """
    opening, at = Opening(), now()
    receptions = run(_receptions(opening, account))
    if as_json:
        click.echo(json.dumps({"accounts": [_told(each, at) for each in receptions]}, default=lambda moment: moment.isoformat()))
    for each in () if as_json else receptions:
        show(_said(each, at))
    if not receptions and not as_json:
        tell(NO_ACCOUNT)
    return 1 if any(each.unusual(at) for each in receptions) else 0


async def _receptions(opening: Opening, account: str | None) -> list[Reception]:
    """Return how one account is received, or each, and plain mail too if there was any."""
    if account and account != mailroom.NAME:
        opening.account(account)
    names = [account] if account else [*(each.name for each in opening.catalogue.account), mailroom.NAME]
    async with opening.connected() as connection:
        found = await reception.figures(connection, names)
    return [each for each in found if each.account != mailroom.NAME or each.last_at or each.kept]


def _said(each: Reception, at: datetime) -> str:
    """Return the line of one account."""
    silent = each.silent_for(at)
    last = f"last heard {each.last_at:%Y-%m-%d %H:%M:%S}Z, {_span(silent)} ago" if silent is not None else "never heard"
    since = f" since {each.silence.since:%Y-%m-%d}" if each.silence else ""
    events = ", ".join(f"{kind} {count:,}" for kind, count in each.events.items())
    kept, unknown = sum(each.kept.values()), each.kept.get(reception.UNKNOWN, 0)
    aside = f"{kept:,} kept aside" + (f" ({unknown:,} of an unknown kind)" if unknown else "")
    parts = [last, f"{events}{since}" if events else "", f"{each.forged:,} forged", aside]
    parts.append("SILENT FOR LONGER THAN USUAL" if each.unusual(at) else "")
    return f"{each.account:<24} {'; '.join(filter(None, parts))}"


def _span(silent: timedelta) -> str:
    """Return a time in its largest unit."""
    seconds = int(silent.total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _told(each: Reception, at: datetime) -> dict[str, object]:
    silent = each.silent_for(at)
    return {
        "account": each.account,
        "last_at": each.last_at,
        "silent_seconds": silent.total_seconds() if silent is not None else None,
        "unusual": each.unusual(at),
        "since": each.silence.since if each.silence else None,
        "events": dict(each.events),
        "forged": each.forged,
        "forged_at": each.forged_at,
        "kept": dict(each.kept),
        "unknown_kinds": each.kept.get(reception.UNKNOWN, 0),
    }


@hook_.command("replay")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--account", help="Whose it is.  [as its request line says: POST /hooks/ACCOUNT]")
@click.option("--dry-run", is_flag=True, help="Only say what it would come to.")
def replay(file: Path, account: str | None, dry_run: bool) -> int:
    """Hear a captured delivery once more. FILE holds its request line, headers, an empty line, and its raw body.

    Its signature must hold; its age does not matter.
    """
    delivery = _captured(contents(file))
    heard, added = run(_replayed(account or delivery.url.partition("?")[0].rpartition("/")[2], delivery, dry_run))
    for event in heard.events:
        click.echo(f"{event.kind:<18} {event.happened_at:%Y-%m-%d %H:%M:%S}Z {event.group or '-':<16} {event.detail}".rstrip())
    for kind, count in sorted(heard.counted.items()):
        click.echo(f"{kind:<18} {count}, changes nothing")
    for kept in heard.kept:
        click.echo(f"kept aside: {kept.reason}")
    click.echo(f"{added} new rows{' (dry run: nothing was kept)' if dry_run else ''}", err=True)
    return 0


@hook_.command("kept")
@click.argument("account", required=False)
@click.option("--raw", "id", help="Write the bytes of the one whose id begins so to stdout.")
def kept(account: str | None, id: str | None) -> int:
    """What was set aside, of ACCOUNT or of all. It could not be read or placed, and is kept for 30 days."""
    if id is not None:
        raw = run(_raw(account, id))
        sys.stdout.buffer.write(raw or b"")
        return 0 if raw is not None else 1
    rows = run(_kept(account))
    for row in rows:
        when = f"{row['received_at']:%Y-%m-%d %H:%M:%S}Z"
        click.echo(f"{when}  {row['account']:<20} {row['reason']:<26} {row['bytes']:>8} bytes  {row['id'][:16]}")
    if not rows:
        tell("nothing is kept aside")
    return 0


async def _kept(account: str | None) -> list[dict[str, Any]]:
    async with Opening().connected() as connection:
        return await inbox.kept(connection, account)


async def _raw(account: str | None, id: str) -> bytes | None:
    if not account or not re.fullmatch(r"[0-9a-f]{8,64}", id):
        raise click.BadParameter("--raw wants an ACCOUNT, and eight letters or more of the id")
    async with Opening().connected() as connection:
        return await inbox.kept_raw(connection, account, id)


@hook_.command("confirm")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--account", required=True, help="The SES account whose topic asks.")
def confirm(file: Path, account: str) -> int:
    """Confirm that an SNS topic may tell us. FILE is what `hook kept ACCOUNT --raw ID` wrote. The service never does it itself."""
    run(_confirmed(account, contents(file)))
    click.echo("confirmed: the topic delivers from now on", err=True)
    return 0


async def _confirmed(name: str, body: bytes) -> None:
    opening = Opening()
    provider, credential = engaged(opening.account(name), opening.settings)
    async with session(1) as http:
        await subscribe(http, provider, credential, body)


async def subscribe(http: ClientSession, provider: Ear, credential: Credential, body: bytes) -> None:
    """Follow the address that confirms a subscription, once Amazon's signature proves it. Raises Forged, and Unavailable."""
    url = sns.subscribe_url(credential, body)
    # SNS's own signature proves it; the password of the hook was asked for when it came in
    await listen(provider, replace(credential, secrets={}), Delivery([], body, now()), http)
    try:
        async with http.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise Unavailable(f"SNS answered {answer.status}; ask it to send the confirmation again")
    except (ClientError, TimeoutError):
        raise Unavailable("SNS did not answer. Try again.") from None


async def _replayed(name: str, delivery: Delivery, dry_run: bool) -> tuple[Heard, int]:
    opening = Opening()
    account = opening.account(name)
    provider, credential = engaged(account, opening.settings)
    async with session(1) as http:
        heard = await listen(provider, credential, delivery, http)
    place = Inbox(account, opening.catalogue, opening.addresses, opening.ring, CHANNELS[account.provider])
    async with opening.connected() as connection, db.sure(connection):
        transaction = connection.transaction()
        await transaction.start()
        try:
            added = await place.keep(connection, heard, now=delivery.received_at)
        except Forged:
            await transaction.rollback()
            raise
        await (transaction.rollback() if dry_run else transaction.commit())
    return heard, added


def _captured(raw: bytes) -> Delivery:
    """Read a delivery as it was captured: an optional request line, headers, an empty line, the body. Raises Unreadable."""
    head, gap, body = raw.partition(b"\r\n\r\n") if b"\r\n\r\n" in raw else raw.partition(b"\n\n")
    if not gap:
        raise Unreadable("no empty line between headers and body")
    lines = head.decode("latin-1").splitlines()
    request = lines.pop(0).split() if lines and re.match(r"[A-Z]+ \S+ HTTP/", lines[0]) else ["POST", ""]
    headers = [(name.strip(), value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]
    return Delivery(headers, body, now(), request[0], request[1])
