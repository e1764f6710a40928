"""No address, token, key or topic's title is in any log, metric or error: grepped over a run of everything that could put it there."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import structlog
from aiohttp import ClientSession, DummyCookieJar, web

from mailprefs import apikeys, catalogue, telemetry
from mailprefs.addresses import Addresses
from mailprefs.apikeys import Power
from mailprefs.catalogue import Catalogue
from mailprefs.cli.service import listening
from mailprefs.links import KeyRing, Links
from mailprefs.sandbox import sendgrid
from mailprefs.settings import Settings
from mailprefs.web import app as service

from .postgres import Postgres, owned
from .serving import CATALOGUE, Serving
from .wire import spoken

CANARY = "canary" + uuid4().hex[:12]  # in every address, name and text that we send
PHONE = "+14155550142"
PROVIDER_KEY = "SG." + uuid4().hex * 2
METRICS_TOKEN = uuid4().hex

pytestmark = pytest.mark.xdist_group("kill")


def address(name: str) -> str:
    return f"{CANARY}.{name}@example.org"


@dataclass
class Mine:
    """The canaries, by what they are; what came out of the service where none may be; and every code it answered with."""

    canaries: dict[str, str] = field(default_factory=dict)
    outcome: dict[str, str] = field(default_factory=dict)
    codes: set[int] = field(default_factory=set)

    def hide(self, **canaries: str) -> None:
        self.canaries |= canaries

    def leaks(self) -> list[str]:
        return [f"{canary} in {place}" for place, text in self.outcome.items() for canary in found(text, self.canaries)]


def found(text: str, canaries: Mapping[str, str]) -> list[str]:
    """Return the names of the canaries that a text holds, whatever the case."""
    return [name for name, canary in canaries.items() if canary.lower() in text.lower()]


def titles(shared: Catalogue) -> dict[str, str]:
    return {f"title {topic.name} {code}": title for brand in shared.brand for topic in brand.topic for code, title in topic.title.items()}


@dataclass
class Visitor:
    """Knocks at every door, rightly and wrongly, and keeps what comes back where it is an error."""

    serving: Serving
    http: ClientSession
    mine: Mine
    links: Links
    addresses: Addresses
    shared: Catalogue
    signing: str
    api_key: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    async def ask(self, method: str, path: str, **more: object) -> str:
        async with self.http.request(method, self.serving.base + path, **more) as answer:  # type: ignore[arg-type]
            text = await answer.text()
            self.mine.codes.add(answer.status)
            if answer.status >= 400:
                self.mine.outcome[f"{answer.status} to {method} {path[:12]} #{len(self.mine.outcome)}"] = f"{answer.headers}\n{text}"
            return text

    def link(self, name: str, topic: str = "newsletter") -> str:
        """Return the path of somebody's link, whose token is a canary from now on."""
        token = self.links.token(self.addresses.read(address(name)).key, self.shared.topic(topic))
        self.mine.hide(**{f"token {name} {topic}": token, f"tag {name} {topic}": token[27:], f"head {name} {topic}": token[:26]})
        return f"/u/{token}"

    async def walk(self, round: str) -> None:
        await self.recipients(round)
        await self.providers(round)
        await self.applications(round)
        await self.broken(round)

    async def recipients(self, round: str) -> None:
        for topic in ("newsletter", "recovery"):
            path = self.link(f"{round}.page", topic)
            page = await self.ask("GET", path)
            form = self.held(f"form {round} {topic}", page)
            page = await self.ask("POST", path, data={"form": form, "stop": "this"})
            await self.ask("POST", path, data={"undo": self.held(f"undo {round} {topic}", page, "undo")})
            await self.ask("POST", path, data={"undo": address("undo"), "form": address("form"), CANARY: CANARY})
            await self.ask("POST", path, data=b"List-Unsubscribe=One-Click", headers={"Cookie": address("cookie"), "User-Agent": CANARY})
            await self.ask("POST", f"{path}?email={address('query')}", headers={"Referer": f"https://example.org{path}"})
        path = self.link(f"{round}.forged")
        for wrong in (path[:-1], path[:-1] + "B", path + "A", path.lower(), f"/u/{address('path')}", f"/{CANARY}", f"/p{path[2:]}"):
            for method in ("GET", "HEAD", "POST", "DELETE", "TRACE"):
                await self.ask(method, wrong, headers={"X-Forwarded-For": CANARY})

    def held(self, name: str, page: str, of: str = "form") -> str:
        """Return a hidden value of a page, a canary from now on; one of no worth where there is none."""
        value = re.search(rf'name="{of}" value="([^"]+)"', page)
        if value:
            self.mine.hide(**{name: value[1]})
        return value[1] if value else CANARY

    async def providers(self, round: str) -> None:
        fact = {"timestamp": 1_790_000_000, "reason": address("reason"), "useragent": CANARY, "url": self.link(f"{round}.url")}
        kinds = ("bounce", "spamreport", "unsubscribe", "group_unsubscribe", "group_resubscribe", "delivered", "dropped", CANARY)
        events = [{**fact, "event": kind, "email": address(f"{round}.{kind}"), "sg_event_id": f"{round}{kind}"} for kind in kinds]
        events += [
            {**fact, "event": "spamreport", "email": None},
            {**fact, "event": "spamreport", "email": "\ud800" + CANARY, "sg_event_id": "x"},
        ]
        events += [{**fact, "event": "group_unsubscribe", "email": address("group"), "asm_group_id": CANARY}]
        for body in (json.dumps(events).encode(), CANARY.encode(), b'[{"email":"%s"},{"a":1,"a":2},NaN]' % CANARY.encode()):
            signed = sendgrid.sign(self.signing, str(int(time.time())), body)
            await self.ask("POST", "/hooks/sendgrid-main", data=body, headers=signed)
            await self.ask("POST", "/hooks/sendgrid-main", data=body, headers={**signed, next(iter(signed)): CANARY})
            await self.ask("POST", "/hooks/sendgrid-main", data=body)
            await self.ask("POST", f"/hooks/{CANARY}", data=body, headers=signed)
        await self.ask("GET", "/hooks/sendgrid-main")

    async def applications(self, round: str) -> None:
        person = address(f"{round}.person")
        pairs = [{"address": text, "topic": "newsletter"} for text in (person, PHONE, CANARY, f"\0{CANARY}", "")]
        bodies: tuple[object, ...] = (
            {"pairs": pairs[:3]},
            {"pairs": pairs},
            {"pairs": [{"address": person, "topic": CANARY}]},
            {"pairs": [{"address": {CANARY: CANARY}, "topic": person}]},
            {"pairs": [], CANARY: person},
            {"topic": CANARY, "addresses": [person]},
            {"topic": "orders", "addresses": [person]},
            {"topic": "newsletter", "addresses": [person, CANARY]},
            {"topic": "newsletter", "addresses": [CANARY * 40]},
            {"address": person},
            {"address": CANARY},
            {"address": 5, "topic": person},
        )
        for path in ("/v1/decisions", "/v1/links", "/v1/addresses/lookup"):
            for body in bodies:
                await self.ask("POST", path, json=body, headers=self.bearer)
            await self.ask("POST", path, data=f'{{"pairs": "{person}'.encode(), headers=self.bearer)
            for wrong in (self.api_key[:-1] + "!", f"mp_00000000_{CANARY}", CANARY, f"{self.api_key}é"):
                await self.ask("POST", path, json=bodies[0], headers={"Authorization": f"Bearer {wrong}"})
        key = self.addresses.read(person).key
        odd = (f"columns={CANARY}", f"format={CANARY}", f"channel={person}")
        for path in (
            "connective/newsletter",
            f"connective/{CANARY}",
            f"{person}/{person}",
            *(f"connective/newsletter?{each}" for each in odd),
        ):
            await self.ask("GET", f"/v1/audiences/{path}", headers=self.bearer)
        asked = {"topic": "newsletter", "purpose": "test"}
        for body in ({**asked, "topic": CANARY}, {**asked, "columns": [person]}, {**asked, "format": CANARY}, {**asked, CANARY: person}):
            await self.ask("POST", "/v1/exports", json=body, headers=self.bearer)
        for path in (CANARY, person, f"{key}", f"{key}/file", f"{key}/revoked?after={CANARY}&wait={CANARY}"):
            await self.ask("GET", f"/v1/exports/{path}", headers=self.bearer)
        for path in (str(key), person, f"{key}?channel={CANARY}", f"{key}?channel=email"):
            await self.ask("GET", f"/v1/addresses/{path}", headers=self.bearer)

    async def broken(self, round: str) -> None:
        """What is no request, and what breaks off."""
        path = self.link(f"{round}.broken")
        port = int(self.serving.base.rpartition(":")[2])
        rests = (
            f" HTTP/1.1\r\nX: {address('x') * 200}",
            f" HTTP/1.1\r\nHost {CANARY}",
            f" HTTP/1.1\r\nContent-Length: {CANARY}",
            f" HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}",
            f" HTTP/1.1\r\nConnection: close\r\nExpect: {CANARY}",
            f" HTTP/7.7\r\nX: {CANARY}",
            f"{CANARY} {CANARY}",
            f"?{CANARY * 300} HTTP/1.1\r\n",
        )
        for rest in rests:
            answer = (await spoken(port, f"POST {path}{rest}\r\n\r\n".encode())).decode()
            self.mine.outcome[f"refusal of what is no request #{len(self.mine.outcome)}"] = answer
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{CANARY}".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@dataclass(frozen=True)
class Scene:
    postgres: Postgres
    visitor: Visitor


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    ring, shared = KeyRing.new(date(2026, 11, 22)), catalogue.load(CATALOGUE)
    (tmp_path / "keys.json").touch(0o600)
    (tmp_path / "keys.json").write_text(ring.dumped())
    private, public = sendgrid.key_pair()
    secrets = {v: public if name == "webhook_key" else PROVIDER_KEY for a in shared.account for name, v in a.secrets.items()}
    mine = Mine({"ours": CANARY, "phone": PHONE.lstrip("+"), "provider's key": PROVIDER_KEY, "webhook key": public, **titles(shared)})
    mine.hide(metrics_token=METRICS_TOKEN)
    mine.hide(**{f"secret {n}": text for n, text in enumerate(re.findall(r'"([A-Za-z0-9+/]{43}=)"', ring.dumped()))})
    with owned() as postgres:
        serving = Serving(tmp_path, postgres.url, {**secrets, "METRICS_TOKEN": METRICS_TOKEN})
        await postgres.start()
        assert serving.run("migrate").returncode == 0
        connection = await asyncpg.connect(postgres.url)
        number, api_key = await apikeys.issue(connection, list(Power), CANARY, now=datetime.now(UTC))
        await connection.close()
        mine.hide(api_key=api_key, api_secret=api_key.removeprefix(f"mp_{number}_"))
        await serving.start()
        async with ClientSession(cookie_jar=DummyCookieJar()) as http:
            links = Links(ring, "go.example.com", "u@go.example.com")
            yield Scene(postgres, Visitor(serving, http, mine, links, Addresses(ring.digest), shared, private, api_key))
        serving.end(signal.SIGKILL)


async def test_no_canary_is_in_any_log_metric_or_error(scene: Scene) -> None:
    visitor, postgres, mine = scene.visitor, scene.postgres, scene.visitor.mine
    await visitor.walk("first")
    postgres.kill()
    await visitor.walk("away")
    for path in ("/readyz", "/healthz"):
        await visitor.ask("GET", path)
    await postgres.start()
    await visitor.walk("back")
    mine.outcome["metrics"] = await visitor.ask("GET", "/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
    visitor.serving.end(signal.SIGTERM)
    mine.outcome["log"] = visitor.serving.log.read_text()
    mine.outcome["log of PostgreSQL"] = postgres.log.read_text()
    assert mine.leaks() == []
    assert {200, 400, 401, 404, 405, 422, 503} <= mine.codes
    assert not mine.codes & {500, 502, 504}
    lines = [json.loads(line) for line in mine.outcome["log"].splitlines() if line.startswith("{")]
    assert {"kept_aside"} <= {line["event"] for line in lines}, "something was said"
    assert "mailprefs_presses_not_saved_total" in mine.outcome["metrics"]
    sys.stdout.write(f"{len(mine.canaries)} canaries, {len(mine.outcome)} outputs, {len(lines)} lines of log: 0 found\n")


async def test_the_grep_finds_each_canary_that_is_planted(scene: Scene) -> None:
    """The control, in two parts: each canary is found where it is; and a service run as aiohttp would run it says some of them."""
    visitor, mine = scene.visitor, scene.visitor.mine
    await visitor.recipients("planted")
    for name, canary in mine.canaries.items():
        assert name in found(f'{{"event": "x", "text": "{canary.upper()}"}}', mine.canaries)
    text = visitor.serving.log.read_text()
    mine.outcome = {"log": text}
    assert mine.leaks() == []
    mine.outcome = {"log": text + f"\n{visitor.api_key}\n"}
    assert mine.leaks() == ["api_key in log", "api_secret in log"]


async def test_the_usual_access_log_would_be_caught(
    database: str, shared_catalogue: Catalogue, ring: KeyRing, links: Links, addresses: Addresses, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = {v: sendgrid.key_pair()[1] for a in shared_catalogue.account for v in a.secrets.values()}
    runner = web.AppRunner(service.create_app(Settings().lending(secrets), shared_catalogue, ring, database_url=database))
    token = links.token(addresses.read(address("log")).key, shared_catalogue.topic("newsletter"))
    await runner.setup()
    caplog.set_level(logging.INFO)
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        request = f"POST /u/{token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nReferer: {CANARY}\r\n\r\n"
        await spoken(runner.addresses[0][1], request.encode())
    finally:
        await runner.cleanup()
    assert found(caplog.text, {"token": token, "referer": CANARY}) == ["token", "referer"]


async def test_an_exception_tells_its_kind_and_place_and_never_its_text(
    database: str, shared_catalogue: Catalogue, ring: KeyRing, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(_request: web.Request) -> web.Response:
        raise LookupError(address("exception"))

    secrets = {v: sendgrid.key_pair()[1] for a in shared_catalogue.account for v in a.secrets.values()}
    app = service.create_app(Settings().lending(secrets), shared_catalogue, ring, database_url=database)
    app.router.add_get("/broken", broken)
    telemetry.start(json=True)
    try:
        async with listening(app, "127.0.0.1", 0) as port:
            answer = await spoken(port, b"GET /broken HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr()
    assert not found(f"{answer.decode()} {said.out} {said.err}", {"ours": CANARY})
    assert answer.startswith(b"HTTP/1.1 500 ")
    last = json.loads(said.err.splitlines()[-1])
    assert (last["error"], last["at"].partition(":")[0]) == ("LookupError", "test_canary.py")
