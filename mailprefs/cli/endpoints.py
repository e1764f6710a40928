"""``webhook``: what the sender's own systems have heard of our changes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from urllib.parse import urlsplit

import click

from mailprefs import webhooks
from mailprefs.catalogue import Webhook
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.saying import Whole, show, tell
from mailprefs.cli.signals import run
from mailprefs.webhooks import COUNTED, Progress


@click.group("webhook", cls=Whole)
def webhook_() -> None:
    """What your own systems have heard of our changes: where each stands; one tried out, or told once more."""


@webhook_.command("list")
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def list_(as_json: bool) -> int:
    """How far each endpoint has come, and what keeps it. Exit 1 while one fails.

    Its place is the number of a transaction, which `replay --since` takes.
    """
    opening = Opening()
    known = {each.name: each for each in run(_progress(opening))}
    if as_json:
        told = [_told(each, known.get(each.name)) for each in opening.catalogue.webhook]
        click.echo(json.dumps({"webhooks": told}, default=lambda at: at.isoformat()))
    for each in () if as_json else opening.catalogue.webhook:
        show(f"{each.name:<24} {_host(each):<28} {_said(known.get(each.name))}")
    if not opening.catalogue.webhook and not as_json:
        tell("there is no endpoint: write [[webhook]] with name, url and secret into the catalogue")
    return 1 if any(each.failing_since or each.beyond for each in known.values()) else 0


async def _progress(opening: Opening) -> Sequence[Progress]:
    async with opening.connected() as connection:
        return await webhooks.progress(connection, [each.name for each in opening.catalogue.webhook])


def _host(webhook: Webhook) -> str:
    """Return where an endpoint is, without its path, which may be its secret."""
    return urlsplit(webhook.url).hostname or ""


def _said(each: Progress | None) -> str:
    if each is None:
        return "nothing yet: it begins when a worker starts (mailprefs work)"
    behind = f"{each.behind:,}{'+' if each.behind == COUNTED else ''} behind, the oldest since {_at(each.oldest_at)}"
    parts = [f"at {each.position}", behind if each.behind else "all heard"]
    parts.append(f"last heard {_at(each.delivered_at)}" if each.delivered_at else "")
    parts.append(f"last failure {_at(each.failed_at)}: {each.failure}" if each.failed_at else "")
    parts.append(f"FAILING since {_at(each.failing_since)}, tried again at {_at(each.due_at)}" if each.failing_since else "")
    parts.append("ITS PLACE IS ANOTHER SERVER'S: the worker begins anew from the time" if each.beyond else "")
    return "; ".join(filter(None, parts))


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z" if moment else ""


def _told(webhook: Webhook, each: Progress | None) -> dict[str, object]:
    return {"host": _host(webhook), **(asdict(each) if each else {"name": webhook.name, "position": None})}


@webhook_.command("replay")
@click.argument("name")
@click.option("--since", required=True, help="A moment, such as 2026-11-22T12:00:00Z, or a place as `list` shows it.")
def replay(name: str, since: str) -> int:
    """Let NAME hear everything once more that was recorded since then. What it had heard comes under the same ids.

    Exit 1 if there is nothing.
    """
    opening = Opening()
    _endpoint(opening, name)
    moved = run(_replayed(opening, name, since))
    what = "from the worker's next look on, it hears everything since then" if moved else "nothing: nothing was recorded since then"
    tell(what if moved or not since.isdecimal() else "nothing: this server has not come to that place, or no worker has begun to tell it")
    return 0 if moved else 1


async def _replayed(opening: Opening, name: str, since: str) -> bool:
    at = None if since.isdecimal() else _moment(since)
    async with opening.connected() as connection:
        if at is None:
            return await webhooks.replay_from(connection, name, int(since))
        return await webhooks.replay(connection, name, since=at)


def _moment(text: str) -> datetime:
    """Return a moment that says its zone: which hour is meant must not hang on the machine."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise click.BadParameter("--since wants a moment with its zone, such as 2026-11-22T12:00:00Z, or the number of a place")
    return at


@webhook_.command("test")
@click.argument("name")
def test(name: str) -> int:
    """Send NAME one signed message, of the type preference.test and about nobody, and show what it answers. Exit 1 unless that is 2xx."""
    opening = Opening()
    webhook = _endpoint(opening, name)
    key = webhooks.secret(webhook, opening.settings)
    id, body = webhooks.sample(webhook, now())
    show(f"sent        preference.test, as {id}, to {_host(webhook)}")
    answer = run(_sent(webhook, key, id, body))
    show(f"answered    {answer}: {_meant(answer, webhook)}")
    return 0 if webhooks.taken(answer) else 1


async def _sent(webhook: Webhook, key: bytes, id: str, body: bytes) -> str:
    async with webhooks.session(webhook) as http:
        return await webhooks.post(http, webhook, key, id, body, at=now())


def _meant(answer: str, webhook: Webhook) -> str:
    if webhooks.taken(answer):
        return "taken"
    if re.fullmatch("3..", answer):
        return "a redirect, which is not followed: set the last address in the catalogue"
    if answer in ("401", "403"):
        return f"refused: is the secret there the one in {webhook.secret}?"
    inside = "" if webhook.private else "; a name that leads inside is not called without private = true"
    return {
        "timeout": f"nothing within {webhooks.ANSWER.total} seconds",
        "tls": "its certificate does not hold, or it speaks no TLS",
        "unreachable": f"nobody is there{inside}",
    }.get(answer, "not taken: whatever is no 2xx is told again")


def _endpoint(opening: Opening, name: str) -> Webhook:
    found = next((each for each in opening.catalogue.webhook if each.name == name), None)
    if found is None:
        there = ", ".join(each.name for each in opening.catalogue.webhook) or "none"
        raise click.BadParameter(f"no such webhook: {name}; there are: {there}")
    return found
