"""The examples of docs/sending are run, against the frameworks that they are for and a service of ours."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import runpy
import shutil
from collections.abc import AsyncIterator, MutableMapping
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from django import setup
from django.conf import settings
from django.core import mail
from fastapi import FastAPI

from mailprefs import ledger, links
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.errors import Unguarded
from mailprefs.links import KeyRing
from mailprefs.words import Cause, Change, Door, Effect, Stream
from tests.flows.doors import opened

DOCS = Path(__file__).parent.parent / "docs"


def run(page: str, n: int = 0, **beside: Any) -> dict[str, Any]:
    """Run one Python block of a page, and return what it defines."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    example = Path("example.py")
    example.write_text(blocks[n], encoding="utf-8")
    return runpy.run_path(str(example), init_globals=beside)


@pytest.fixture
async def at_home(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    shared_catalogue: Catalogue,
    ring: KeyRing,
    conn: asyncpg.Connection,
    addresses: Addresses,
    now: datetime,
) -> AsyncIterator[None]:
    """A directory as `mailprefs init` leaves it, a service that runs, and somebody who left."""
    shutil.copy(Path(__file__).parent / "catalogue.toml", tmp_path / "mailprefs.toml")
    (tmp_path / "mailprefs.keys.json").write_text(ring.dumped())
    (tmp_path / "mailprefs.keys.json").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    stop = Change(addresses.read("joe@example.com"), 257, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(conn, [stop], now=now)
    async with opened(database, shared_catalogue, ring) as doors:
        monkeypatch.setenv("MAILPREFS_URL", doors.base)
        monkeypatch.setenv("MAILPREFS_API_KEY", doors.api_key)
        yield


async def test_the_client_of_the_overview_says_yes_and_no(at_home: None, capsys: pytest.CaptureFixture[str]) -> None:
    space = await asyncio.to_thread(run, "sending.md")
    assert capsys.readouterr().out == "send it\nconnective/newsletter True []\nconnective/orders True []\n"
    assert not await asyncio.to_thread(space["guard"].may_send, "joe@example.com", "connective/newsletter")
    space["client"].close()


async def test_a_letter_of_email_message_keeps_the_rules(at_home: None, ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    space = run("sending/email-message.md")
    message = space["letter"]("jane@example.com")
    assert links.read(ring, links.token_in(message["List-Unsubscribe"].split(">")[0][1:])).scope == 272
    sent: list[EmailMessage] = []
    host = SimpleNamespace(send_message=sent.append)
    monkeypatch.setattr("smtplib.SMTP", lambda name: _Lent(host))
    run("sending/email-message.md", 1, letter=space["letter"])["send"]("jane@example.com")
    assert sent[0]["To"] == "jane@example.com"
    message.set_payload([])
    with pytest.raises(Unguarded):  # the control: without its parts it is refused
        links.guard(message, stream=Stream.MARKETING, ring=ring)


class _Lent:
    def __init__(self, inside: object) -> None:
        self._inside = inside

    def __enter__(self) -> object:
        return self._inside

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def django() -> None:
    """Django as an application sets it up, with the backend of anymail that keeps what would be posted to a provider."""
    settings.configure(EMAIL_BACKEND="anymail.backends.test.EmailBackend", INSTALLED_APPS=["anymail"], USE_TZ=True)
    setup()


async def test_the_letter_of_django_keeps_the_rules_and_the_guard_is_asked(at_home: None, django: None, ring: KeyRing) -> None:
    space = run("sending/django.md")
    guarded = run("sending/django.md", 1, newsletter=space["newsletter"])
    assert await asyncio.to_thread(guarded["send_newsletter"], "jane@example.com")
    assert not await asyncio.to_thread(guarded["send_newsletter"], "joe@example.com")
    guarded["guarded"].client.close()
    (sent,) = mail.outbox
    posted = sent.anymail_test_params  # what anymail would hand to the provider
    assert [to.addr_spec for to in posted["to"]] == ["jane@example.com"]
    assert links.read(ring, posted["metadata"]["mailprefs"]).scope == 272
    assert posted["extra_headers"]["List-Unsubscribe-Post"] == links.ONE_CLICK
    assert links.token_in(posted["extra_headers"]["List-Unsubscribe"].split(">")[0][1:]) in posted["html_body"]


async def post(app: FastAPI, path: str, query: str) -> Any:
    """Return the JSON that an application answers, its background tasks done: one request by ASGI, without a server between."""
    scope = {"type": "http", "method": "POST", "path": path, "query_string": query.encode(), "headers": [], "http_version": "1.1"}
    said: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    await app(scope, receive, send)
    return json.loads(b"".join(message.get("body", b"") for message in said))


async def test_the_route_of_fastapi_sends_to_whom_it_may(at_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    app: FastAPI = (space := run("sending/fastapi.md"))["app"]
    delivered: list[tuple[str, str, dict[str, str]]] = []
    monkeypatch.setitem(space["deliver"].__globals__, "deliver", lambda *said: delivered.append(said))
    async with app.router.lifespan_context(app):
        assert await post(app, "/newsletter", "to=jane@example.com") == {"sent": True}
        assert await post(app, "/newsletter", "to=joe@example.com") == {"sent": False}
    ((to, url, headers),) = delivered
    assert to == "jane@example.com"
    assert headers["List-Unsubscribe"].startswith(f"<{url}>")


async def test_each_recipient_of_a_template_has_a_link_of_their_own(at_home: None, ring: KeyRing, addresses: Addresses) -> None:
    known = run("sending/email-message.md")
    with Path("filled.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["address", "url", "list_unsubscribe", "list_unsubscribe_post", "list_id"])
        for n in range(5):
            minted = known["links"].mint(addresses.read(f"p{n}@example.com").key, known["topic"])
            out.writerow([f"p{n}@example.com", minted.url, *minted.headers.values()])
    bodies = [json.loads(body) for body in run("sending/merge-tags.md")["requests"]("filled.csv", "d-1", most=3)]
    people = [person for body in bodies for person in body["personalizations"]]
    assert [len(body["personalizations"]) for body in bodies] == [3, 2]
    for person in people:
        token = links.read(ring, links.token_in(person["dynamic_template_data"]["url"]))
        assert token.address == addresses.read(person["to"][0]["email"]).key
        assert person["headers"]["List-Unsubscribe"].startswith(f"<{person['dynamic_template_data']['url']}>")
