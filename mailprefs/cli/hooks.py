"""``provider`` and ``hook``: setting an account up at its provider, and seeing that it is heard."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from aiohttp import ClientError

from mailprefs import db, inbox, shipped
from mailprefs.catalogue import Account
from mailprefs.cli.opening import Opening, now, run
from mailprefs.errors import Forged, Unavailable, Unreadable
from mailprefs.inbox import Inbox
from mailprefs.providers import CHANNELS, PROVIDERS, engaged, listen, sns
from mailprefs.providers.base import Delivery, Heard
from mailprefs.providers.calling import session


@click.command("provider")
@click.argument("name")
def provider_(name: str) -> None:
    """The exact settings to make at a provider. NAME is a provider, or an account of yours."""
    account = None if name in PROVIDERS else Opening().catalogue.account_named(name)
    kind = account.provider if account else name
    if kind not in PROVIDERS:
        raise click.BadParameter(f"no such provider or account: {name}; the providers are: {', '.join(PROVIDERS)}")
    for line in _section(kind, "What to set at the provider"):
        click.echo(line.replace(f"hooks/{kind}-main", f"hooks/{account.name}") if account else line)


def _section(provider: str, title: str) -> Iterator[str]:
    """Yield the lines of one section of a provider's page: people read the same words there."""
    text = (shipped.folder("docs") / "providers" / f"{provider}.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n+(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    yield from (found[1].rstrip() if found else "").splitlines()


@click.group("hook")
def hook_() -> None:
    """Feed deliveries that were kept through the path that a provider's take."""


@hook_.command("replay")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--account", help="Whose it is.  [as its request line says: POST /hooks/ACCOUNT]")
@click.option("--dry-run", is_flag=True, help="Only say what it would come to.")
def replay(file: Path, account: str | None, dry_run: bool) -> int:
    """Hear a captured delivery once more: FILE holds its request line, headers, an empty line, and its raw body.

    Its signature must hold; its age does not matter.
    """
    delivery = _captured(sys.stdin.buffer.read() if str(file) == "-" else _bytes(file))
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
    """What was set aside because it could not be read or placed, of ACCOUNT or of all. Kept for 30 days."""
    if id is not None:
        raw = run(_raw(account, id))
        sys.stdout.buffer.write(raw or b"")
        return 0 if raw is not None else 1
    for row in run(_kept(account)):
        when = f"{row['received_at']:%Y-%m-%d %H:%M:%S}Z"
        click.echo(f"{when}  {row['account']:<20} {row['reason']:<26} {row['bytes']:>8} bytes  {row['id'][:16]}")
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
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--account", required=True, help="The SES account whose topic asks.")
def confirm(file: Path, account: str) -> int:
    """Confirm a subscription of an SNS topic of ours: FILE is what `hook kept ACCOUNT --raw ID` wrote. The service never does it itself."""
    run(_confirmed(account, sys.stdin.buffer.read() if str(file) == "-" else _bytes(file)))
    click.echo("confirmed: the topic delivers from now on", err=True)
    return 0


async def _confirmed(name: str, body: bytes) -> None:
    opening = Opening()
    provider, credential = engaged(_account(opening, name), opening.settings)
    url = sns.subscribe_url(credential, body)
    async with session(1) as http:
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
    account = _account(opening, name)
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


def _account(opening: Opening, name: str) -> Account:
    account = opening.catalogue.account_named(name)
    if account is None:
        raise click.BadParameter(f"no such account: {name}")
    return account


def _captured(raw: bytes) -> Delivery:
    """Read a delivery as it was captured: an optional request line, headers, an empty line, the body. Raises Unreadable."""
    head, gap, body = raw.partition(b"\r\n\r\n") if b"\r\n\r\n" in raw else raw.partition(b"\n\n")
    if not gap:
        raise Unreadable("no empty line between headers and body")
    lines = head.decode("latin-1").splitlines()
    request = lines.pop(0).split() if lines and re.match(r"[A-Z]+ \S+ HTTP/", lines[0]) else ["POST", ""]
    headers = [(name.strip(), value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]
    return Delivery(headers, body, now(), request[0], request[1])


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Unreadable(f"{file} cannot be read: {error.strerror}") from None
