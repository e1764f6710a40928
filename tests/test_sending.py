"""The examples of docs/sending are run: what stands in for a framework is as small as it can be, and everything of ours is real."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import runpy
import shutil
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from email.message import EmailMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import asyncpg
import pytest

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


class EmailMultiAlternatives:
    """What Django's class of that name does for one message: text, alternatives, headers."""

    sent: ClassVar[list[EmailMultiAlternatives]] = []

    def __init__(self, subject: str, body: str, from_email: str, to: list[str], headers: dict[str, str]) -> None:
        self._head = {"Subject": subject, "From": from_email, "To": ", ".join(to), **headers}
        self._parts = [MIMEText(body)]

    def attach_alternative(self, content: str, mimetype: str) -> None:
        self._parts.append(MIMEText(content, mimetype.partition("/")[2]))

    def message(self) -> MIMEMultipart:
        whole = MIMEMultipart("alternative", _subparts=self._parts)
        for name, value in self._head.items():
            whole[name] = value
        return whole

    def send(self) -> None:
        self.sent.append(self)


async def test_the_letter_of_django_keeps_the_rules_and_the_guard_is_asked(
    at_home: None, monkeypatch: pytest.MonkeyPatch, ring: KeyRing
) -> None:
    mail = ModuleType("django.core.mail")
    vars(mail)["EmailMultiAlternatives"] = EmailMultiAlternatives
    for name, module in {"django": ModuleType("django"), "django.core": ModuleType("django.core"), "django.core.mail": mail}.items():
        monkeypatch.setitem(sys.modules, name, module)
    space = run("sending/django.md")
    message = space["newsletter"]("jane@example.com", "Hello", "<p>Hello</p>")
    assert links.read(ring, message.metadata["mailprefs"]).scope == 272
    guarded = run("sending/django.md", 1, newsletter=space["newsletter"])
    assert await asyncio.to_thread(guarded["send_newsletter"], "jane@example.com")
    assert not await asyncio.to_thread(guarded["send_newsletter"], "joe@example.com")
    assert [each.message()["To"] for each in EmailMultiAlternatives.sent] == ["jane@example.com"]
    guarded["guarded"].client.close()


class FastAPI:
    """What FastAPI's class of that name is to the example: a lifespan, a state, and a route that is its function."""

    def __init__(self, lifespan: Any) -> None:
        self.lifespan, self.state = lifespan, SimpleNamespace()

    def post(self, path: str) -> Any:
        assert path.startswith("/")
        return lambda function: function


async def test_the_route_of_fastapi_sends_to_whom_it_may(at_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("fastapi")
    vars(module).update(FastAPI=FastAPI, BackgroundTasks=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "fastapi", module)
    space = run("sending/fastapi.md")
    tasks: list[tuple[Any, ...]] = []
    later = SimpleNamespace(add_task=lambda *task: tasks.append(task))
    async with space["app"].lifespan(space["app"]):
        assert await space["newsletter"]("jane@example.com", later) == {"sent": True}
        assert await space["newsletter"]("joe@example.com", later) == {"sent": False}
    ((deliver, to, url, headers),) = tasks
    deliver(to, url, headers)
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
