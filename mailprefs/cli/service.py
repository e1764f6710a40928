"""``init``, ``migrate``, ``serve`` and ``work``: the service itself."""

from __future__ import annotations

import asyncio
import gc
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mailprefs import colours, db, post, telemetry, webhooks, worker
from mailprefs.catalogue import Brand
from mailprefs.cli.mint import warn_if_long
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.saying import tell
from mailprefs.cli.secrets import write_ring
from mailprefs.errors import Misconfigured
from mailprefs.links import KeyRing, by_brand
from mailprefs.settings import Settings
from mailprefs.web import admin, wire
from mailprefs.web import app as service

_PLACES = {"fedge": "edges", "btext": "links"}  # what a shade is for
CONNECTIONS = 10  # of the worker, one of them for the comparing of lists, one for exports
LISTS = 3600.0  # seconds that a statement of a comparison or an export may take


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=".")
def init_(directory: Path) -> None:
    """Write a commented mailprefs.toml and a key ring into DIRECTORY. Overwrites nothing."""
    settings, ring = directory / "mailprefs.toml", directory / "mailprefs.keys.json"
    if taken := [path for path in (settings, ring) if path.exists()]:
        raise Misconfigured(f"{taken[0]} is there already")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with settings.open("x", encoding="utf-8") as file:
            file.write(_TEMPLATE)
    except OSError as error:
        raise Misconfigured(f"{directory} cannot be written: {error.strerror}") from None
    write_ring(ring, KeyRing.new(now().date()), fresh=True)
    there = "" if directory.resolve() == Path.cwd() else f"cd {shlex.quote(str(directory))} && "
    tell(f"wrote {settings} and {ring}\nnext: put your brand and topics into {settings.name}; then: {there}mailprefs serve")


@click.command("migrate")
def migrate_() -> None:
    """Bring the database up to date, and tell it the catalogue's numbers. The release step."""
    _run(_migrated())


async def _migrated() -> None:
    opening = Opening()
    async with opening.database(make=True) as url:
        connection = await db.connect(url)
        try:
            applied = await opening.migrated(connection)
        finally:
            await connection.close()
    tell(f"applied {', '.join(applied)}" if applied else "the database is up to date")


@click.command("serve")
@click.option("--only", help=f"Some of {','.join(service.DOORS)}: run parts apart.")
@click.option("--json-log/--text-log", default=None, help="How the log on stderr is written.  [text on a terminal, else JSON]")
def serve_(only: str | None, json_log: bool | None) -> None:
    """Serve on HOST and PORT until told to stop. Without DATABASE_URL, an own PostgreSQL and the worker run too."""
    _log(json_log)
    _run(_serve(tuple(service.DOORS) if only is None else tuple(only.split(","))))


async def _serve(only: Sequence[str]) -> None:
    if unknown := set(only) - set(service.DOORS):
        raise click.BadParameter(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(service.DOORS)}")
    opening, stop = Opening(), _stopping()
    if opening.settings.database_url is None:  # then the worker runs here too, and says before the doors open what would keep it
        for webhook in opening.catalogue.webhook:
            webhooks.secret(webhook, opening.settings)
    async with opening.database(make=True) as url:
        app = service.create_app(opening.settings, opening.catalogue, opening.ring, database_url=url, only=only)
        _spare_the_collector()
        async with listening(app, opening.settings.host, opening.settings.port) as port:
            _greet(opening, port)
            if opening.settings.database_url is None:
                await _work(opening, url, stop)
            else:
                await stop.wait()


def _spare_the_collector() -> None:
    """Let the garbage collector never look again at what is made once, and less often at what is new.

    A delivery makes objects by the thousand, hardly any in a circle; looking through them all took a tenth of its time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _greet(opening: Opening, port: int) -> None:
    minters = by_brand(opening.catalogue.brand, opening.ring)
    for brand in opening.catalogue.brand:
        warn_if_long(minters[brand.number])
        warn_if_pale(brand)
    able = post.mailing(opening.settings, opening.catalogue)
    for brand in opening.catalogue.brand:
        if brand.number not in able:
            tell(
                f"no link to somebody's choices can be mailed for {brand.name}, and no page promises one: "
                "that wants SMTP_URL in the environment, and the brand's `from` in mailprefs.toml"
            )
    own = "" if opening.settings.database_url else ", with its own PostgreSQL and the worker (set DATABASE_URL for yours)"
    tell(f"mailprefs serves on http://{opening.settings.host}:{port}{own}")


def warn_if_pale(brand: Brand) -> None:
    """Say once which shades its pages use in place of a colour that was chosen and cannot be read there."""
    if not brand.model_fields_set & {"colour", "colour_dark"}:
        return
    for theme, moved in groupby(colours.palette(brand.colour, brand.colour_dark).moved, key=lambda each: each.theme):
        shades = " and ".join(f"{each.used} for {_PLACES[each.token]} (it has {each.found:.1f} of {each.needed:g})" for each in moved)
        tell(f"note: the colour of {brand.name} has too little contrast in the {theme} theme: its pages use {shades} there")


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int, variable: str = "PORT") -> AsyncIterator[int]:
    """Run an application and lend the port it listens on; requests under way end before it does. Raises Misconfigured."""
    runner = wire.runner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            raise Misconfigured(f"port {port} on {host} cannot be had ({error.strerror}). {variable} names another.") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@click.command("work")
@click.option("--json-log/--text-log", default=None, help="How the log on stderr is written.  [text on a terminal, else JSON]")
def work_(json_log: bool | None) -> None:
    """Tell the providers what they have not heard, until told to stop."""
    _log(json_log)
    _run(_worked())


async def _worked() -> None:
    opening, stop = Opening(), _stopping()
    async with opening.database(make=True) as url:
        async with opening.session(url):  # what would keep it from working is said before it says that it works
            pass
        async with _shown(opening.settings) as where:
            await _work(opening, url, stop, lambda: tell(f"mailprefs works{where}"))


@asynccontextmanager
async def _shown(settings: Settings) -> AsyncIterator[str]:
    """Show the worker's numbers on METRICS_PORT, where that is set, and lend the words that say so."""
    if settings.metrics_port is None:
        yield ""
        return
    app = web.Application()
    app.add_routes([web.get("/healthz", admin.alive), web.get("/metrics", _numbers)])
    async with listening(app, settings.host, settings.metrics_port, "METRICS_PORT") as port:
        yield f", its numbers on http://{settings.host}:{port}/metrics"


async def _numbers(_request: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _work(opening: Opening, url: str, stop: asyncio.Event, begun: Callable[[], None] = lambda: None) -> None:
    pool = await db.pool(url, size=CONNECTIONS - 2, command_timeout=10, purpose="worker")
    try:
        unhurried = await db.pool(url, size=2, command_timeout=LISTS, purpose="lists")
        try:
            await worker.work(pool, opening.catalogue, opening.ring, opening.settings, stop=stop, unhurried=unhurried, begun=begun)
        finally:
            unhurried.terminate()
    finally:
        pool.terminate()


def _stopping() -> asyncio.Event:
    """Return what is set when the process is told to stop."""
    stop = asyncio.Event()
    worker.heed_signals(stop)
    return stop


def _log(json: bool | None) -> None:
    import sys

    telemetry.start(json=not sys.stderr.isatty() if json is None else json)


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    import uvloop

    uvloop.run(coroutine)


_TEMPLATE = """\
# The catalogue: brands, topics and accounts. Secrets are never in it, only the names of environment variables.
# Names and numbers are for ever from the first start on: links in people's inboxes say them. Put your own here before.

[[brand]]
name = "example"
title = "Example"
number = 1                          # permanent, 1 to 255
link_host = "go.example.com"        # https://go.example.com/u/…   18 characters or fewer keep the headers safe
mailto = "u@go.example.com"         # written as u+TOKEN@go.example.com
postal_address = "1 Main Street, Springfield"
# from = "Example <hello@example.com>"  # with SMTP_URL set: who asks for a link to their choices is mailed one

[[brand.topic]]
name = "newsletter"
title = { en = "Monthly newsletter", es = "Boletín mensual" }
number = 16                         # permanent within the brand, 16 to 255; write retired = true, never remove it
consent = "opt-out"                 # or "opt-in", "double-opt-in"; marketing by SMS always wants consent

[[brand.topic]]
name = "receipts"
title = "Orders and receipts"
number = 32
stream = "transactional"            # unset is marketing; no unsubscribe link can ever stop this one

# [[account]]
# name = "sendgrid-main"            # SendGrid posts its events to /hooks/sendgrid-main
# provider = "sendgrid"
# brand = "example"
# secrets = { webhook_key = "SENDGRID_WEBHOOK_KEY", api_key = "SENDGRID_API_KEY" }
# scopes = { newsletter = "12345" } # our topic: SendGrid's unsubscribe group
"""
