"""The sender's own systems hear every change: signed, in order, until they say 2xx; and nobody inside is called by mistake."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import socket
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiohttp import ClientConnectorError, ClientSession, web
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver
from prometheus_client import REGISTRY
from standardwebhooks import Webhook as Official

from mailprefs import catalogue, db, ledger, webhooks
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue, Webhook
from mailprefs.errors import Misconfigured
from mailprefs.settings import Settings
from mailprefs.webhooks import Herald, Public
from mailprefs.words import Address, Cause, Change, Door, Effect

ROOT = Path(__file__).parent.parent
NEWSLETTER, RECOVERY = 272, 276
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Answer = Callable[[dict[str, Any]], int]


async def nothing() -> None:
    """Nothing happens before an answer."""


@dataclass
class Crm:
    """A system of the sender's own, that answers as a test says."""

    answer: Answer = lambda _told: 200
    meanwhile: Callable[[], Awaitable[None]] = nothing  # before the next answer
    heard: list[tuple[str, dict[str, object]]] = field(default_factory=list)  # id and message, of what was answered with 200
    asked: Counter[str] = field(default_factory=Counter)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        self.body, self.headers = await request.read(), {name.lower(): value for name, value in request.headers.items()}
        told = json.loads(self.body)
        self.asked[self.headers["webhook-id"]] += 1
        await self.meanwhile()
        status = self.answer(told)
        if status == 200:
            self.heard.append((self.headers["webhook-id"], told["data"]))
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})


@pytest.fixture
async def crm() -> AsyncIterator[Crm]:
    made = Crm()
    app = web.Application()
    app.router.add_post("/{tail:.*}", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    yield made
    await runner.cleanup()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[db.Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=4) as made:
        yield made


@asynccontextmanager
async def herald(pool: db.Pool, crm: Crm, known: Catalogue) -> AsyncIterator[Herald]:
    webhook = Webhook(name="crm", url=crm.url, secret="CRM_SECRET", private=True)
    async with pool.acquire() as connection:
        await webhooks.introduce(connection, known.model_copy(update={"webhook": (webhook,)}), now=datetime.now(UTC))
    key = webhooks.secret(webhook, Settings().lending({"CRM_SECRET": SECRET}))
    async with webhooks.session(webhook) as http:
        yield Herald(webhook, key, known, pool, http, lambda: datetime.now(UTC))


def change(who: Address, effect: Effect = Effect.STOP, scope: int = NEWSLETTER) -> Change:
    door = Door.PROVIDER if effect is Effect.STOP else Door.MANAGE
    return Change(who, scope, Cause.CHOICE, effect, door, uuid4().hex, datetime.now(UTC))


Record = Callable[..., Awaitable[None]]


@pytest.fixture
def record(conn: asyncpg.Connection, settled: Callable[[], Awaitable[None]]) -> Record:
    """Record Changes, and wait until a reader can see them."""

    async def recorded(*changes: Change) -> None:
        await ledger.record(conn, changes, now=datetime.now(UTC))
        await settled()

    return recorded


async def due(conn: asyncpg.Connection) -> None:
    """A test does not wait out a quarter of an hour."""
    await conn.execute("update webhook set due_at = now()")


async def test_a_change_is_heard_as_a_signed_standard_webhook(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    jane = addresses.read("jane@example.org")
    async with herald(pool, crm, shared_catalogue) as each:
        await conn.execute(
            "insert into address (bucket, key, channel, plaintext) values ($1, $2, 'email', $3)", jane.bucket, jane.key, jane.text
        )
        await record(change(jane))
        await each.round()
        assert await each.round() is False
    told = Official(SECRET).verify(crm.body.decode(), crm.headers)
    assert told["type"] == "preference.stop"
    data = told["data"]
    assert (data["address"], data["scope"], data["effect"], data["stopped"]) == ("jane@example.org", NEWSLETTER, "stop", True)
    assert len(crm.heard) == 1
    assert "Monthly" not in crm.body.decode()  # a title is nobody's business


async def test_whoever_is_new_hears_nothing_of_before(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    await record(change(addresses.read("before@example.org")))
    async with herald(pool, crm, shared_catalogue) as each:
        assert await each.round() is False
        await record(change(addresses.read("since@example.org")))
        await each.round()
    assert len(crm.heard) == 1


@pytest.mark.parametrize("trouble", [500, 302, 404, 410])
async def test_what_was_not_acknowledged_is_told_again_under_the_same_id_and_nothing_is_lost(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record, trouble: int
) -> None:
    dice = cycle([trouble, 200, 200, trouble, trouble])
    crm.answer = lambda _told: next(dice)
    people = [addresses.read(f"p{n}@example.org") for n in range(12)]
    async with herald(pool, crm, shared_catalogue) as each:
        for effect in (Effect.STOP, Effect.GO, Effect.STOP):
            await record(*(change(who, effect) for who in people))
        for _ in range(80):
            await each.round()
            await due(conn)
        assert await each.round() is False
    by_person: dict[object, list[object]] = defaultdict(list)
    for data in dict(crm.heard).values():  # twice is once
        by_person[data["key"]].append(data["effect"])
    assert by_person == {who.key.hex: ["stop", "go", "stop"] for who in people}
    assert max(crm.asked.values()) > 1  # the control: there was trouble


async def test_one_who_is_not_heard_holds_up_no_other_lane(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    people = [addresses.read(f"p{n}@example.org") for n in range(40)]
    poison = people[0].key.hex
    crm.answer = lambda told: 500 if told["data"]["key"] == poison else 200
    async with herald(pool, crm, shared_catalogue) as each:
        await record(*(change(who) for who in people))
        assert await each.round() is False
    lane = people[0].key.int % webhooks.LANES
    elsewhere = {who.key.hex for who in people if who.key.int % webhooks.LANES != lane}
    assert elsewhere <= {str(data["key"]) for _, data in crm.heard}
    row = await conn.fetchrow("select attempts, failing_since, due_at from webhook")
    assert row is not None
    assert (row["attempts"] > 0, row["failing_since"] is not None) == (True, True)


async def test_a_redirect_is_not_followed(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    crm.answer = lambda _told: 302
    async with herald(pool, crm, shared_catalogue) as each:
        await record(change(addresses.read("jane@example.org")))
        await each.round()
    assert sum(crm.asked.values()) == 1


async def test_a_sensitive_topic_is_told_to_nobody(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    assert shared_catalogue.by_number[RECOVERY].sensitive
    async with herald(pool, crm, shared_catalogue) as each:
        await record(change(addresses.read("jane@example.org"), scope=RECOVERY), change(addresses.read("kim@example.org")))
        await each.round()
    assert [data["scope"] for _, data in crm.heard] == [NEWSLETTER]


async def test_a_topic_of_a_newer_release_waits_for_a_worker_that_knows_it(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    brand = shared_catalogue.brand[0]
    fewer = brand.model_copy(update={"topic": tuple(each for each in brand.topic if each.name != "offers")})
    older = Catalogue.model_validate({"brand": [fewer.model_dump(by_alias=True)]})
    async with herald(pool, crm, older) as each:
        await record(change(addresses.read("jane@example.org"), scope=273))
        await each.round()
        assert crm.heard == []
        await due(conn)
        newer = replace(each, catalogue=shared_catalogue, owner=uuid4())
        await newer.round()
    assert [data["scope"] for _, data in crm.heard] == [273]


async def test_what_is_to_be_heard_again_is_not_lost_to_a_round_under_way(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    """And whoever tells it remembers nothing of what it told before."""
    since = datetime.now(UTC)
    async with herald(pool, crm, shared_catalogue) as each:
        people = [addresses.read(f"p{n}@example.org") for n in range(16)]
        await record(*(change(who) for who in people))
        telling = asyncio.create_task(each.round())
        while not crm.heard:
            await asyncio.sleep(0)
        assert await webhooks.replay(conn, "crm", since=since)
        await telling
        crm.heard.clear()
        await each.round()
    assert len(crm.heard) == 16


async def test_two_workers_tell_everything_once(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    async with herald(pool, crm, shared_catalogue) as one:
        two = replace(one, owner=uuid4())
        await record(*(change(addresses.read(f"p{n}@example.org")) for n in range(60)))
        for _ in range(3):
            await asyncio.gather(one.round(), two.round())
    assert len(crm.heard) == 60
    assert max(crm.asked.values()) == 1


async def test_a_worker_that_lost_its_place_to_another_moves_nothing_when_it_is_answered_late(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    jane, kim = [addresses.read(f"{name}@example.org") for name in ("jane", "kim")]
    async with herald(pool, crm, shared_catalogue) as slow:
        quick = replace(slow, owner=uuid4(), ahead=set(), clock=lambda: datetime.now(UTC) + webhooks.OWNED)
        place: asyncpg.Record | None = None

        async def overtaken() -> None:
            crm.meanwhile = nothing
            await record(change(kim))
            assert await quick.round(), "the other one tells both"
            nonlocal place
            place = await conn.fetchrow("select * from webhook")

        await record(change(jane))
        crm.meanwhile = overtaken
        await slow.round()
        assert place is not None
        assert place["owner"] == quick.owner, "the control: it was lost meanwhile"
        assert await conn.fetchrow("select * from webhook") == place
        await slow.round()
    told = Counter(str(data["key"]) for _, data in crm.heard)
    assert told == {jane.key.hex: 2, kim.key.hex: 1}


async def test_everything_since_a_time_can_be_heard_again(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    async with herald(pool, crm, shared_catalogue) as each:
        await record(change(addresses.read("old@example.org")))
        since = datetime.now(UTC)
        await record(change(addresses.read("new@example.org")))
        await each.round()
        assert await webhooks.replay(conn, "crm", since=since) is True
        await each.round()
        assert await webhooks.replay(conn, "crm", since=since + timedelta(days=1)) is False
        assert await webhooks.replay(conn, "nobody", since=since) is False
    assert [UUID(str(data["key"])) for _, data in crm.heard[2:]] == [addresses.read("new@example.org").key]
    assert len({id for id, _ in crm.heard}) == 2


async def test_it_can_be_heard_again_from_a_place_that_was_reached(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    async with herald(pool, crm, shared_catalogue) as each:
        (before,) = await webhooks.progress(conn, ["crm"])
        await record(change(addresses.read("jane@example.org")))
        await each.round()
        assert await webhooks.replay_from(conn, "crm", before.position) is True
        await each.round()
        assert await webhooks.replay_from(conn, "crm", before.position + (1 << 40)) is False
        assert await each.round() is False
    assert [id for id, _ in crm.heard] == [crm.heard[0][0]] * 2


async def restored(conn: asyncpg.Connection) -> None:
    """The database was dumped elsewhere, where transactions had greater numbers, and restored here."""
    await conn.execute("set session_replication_role = replica")
    await conn.execute("update consent set position = (position::text::numeric + 1000000000)::text::xid8")
    await conn.execute("update webhook set position = (position::text::numeric + 1000000000)::text::xid8")
    await conn.execute("set session_replication_role = origin")


@pytest.mark.parametrize("heard_before", [0, 1])
async def test_after_a_restore_into_another_server_what_was_left_and_what_is_new_is_heard_and_nothing_of_before(
    conn: asyncpg.Connection,
    pool: db.Pool,
    crm: Crm,
    shared_catalogue: Catalogue,
    addresses: Addresses,
    record: Record,
    settled: Callable[[], Awaitable[None]],
    heard_before: int,
) -> None:
    old, left, new, newer = (addresses.read(f"{name}@example.org") for name in ("old", "left", "new", "newer"))
    long_ago = datetime.now(UTC) - timedelta(days=2)
    await ledger.record(conn, [replace(change(addresses.read("ancient@example.org")), happened_at=long_ago)], now=long_ago)
    await settled()
    async with herald(pool, crm, shared_catalogue) as each:
        if heard_before:
            await record(change(old))
            await each.round()
        await record(change(left))
        await restored(conn)
        await record(change(new))
        assert [one.beyond for one in await webhooks.progress(conn, ["crm"])] == [True]
        for _ in range(4):
            await each.round()
        await record(change(newer))
        await each.round()
        assert [one.beyond for one in await webhooks.progress(conn, ["crm"])] == [False]
        assert await each.round() is False
        assert (await webhooks.progress(conn, ["crm"]))[0].behind == 0
    keys = [data["key"] for _, data in crm.heard[heard_before:]]
    assert keys == [who.key.hex for who in (left, new, newer)]


async def test_a_place_of_another_server_alarms(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    def alarms() -> float:
        return REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": "webhook_place_beyond", "account": ""}) or 0

    before = alarms()
    async with herald(pool, crm, shared_catalogue) as each:
        await each.round()
        assert alarms() == before, "the control"
        await restored(conn)
        await each.round()
        assert alarms() == before + 1
        await each.round()
        assert alarms() == before + 1


async def test_what_failed_last_and_how_much_waits_is_known(
    conn: asyncpg.Connection, pool: db.Pool, crm: Crm, shared_catalogue: Catalogue, addresses: Addresses, record: Record
) -> None:
    crm.answer = lambda _told: 503
    async with herald(pool, crm, shared_catalogue) as each:
        await record(*(change(addresses.read(f"p{n}@example.org")) for n in range(3)))
        await each.round()
        (one,) = await webhooks.progress(conn, ["crm"])
        assert (one.failure, one.behind, one.attempts, one.failing_since is not None) == ("503", 3, 1, True)
        crm.answer = lambda _told: 200
        await due(conn)
        await each.round()
        (one,) = await webhooks.progress(conn, ["crm"])
        assert (one.failure, one.behind, one.attempts, one.failing_since, one.oldest_at) == ("503", 0, 0, None, None)
        assert one.failed_at is not None


async def test_a_sample_is_signed_and_about_nobody(crm: Crm) -> None:
    webhook = Webhook(name="crm", url=crm.url, secret="CRM_SECRET", private=True)
    key = webhooks.secret(webhook, Settings().lending({"CRM_SECRET": SECRET}))
    id, body = webhooks.sample(webhook, datetime.now(UTC))
    async with webhooks.session(webhook) as http:
        assert await webhooks.post(http, webhook, key, id, body, at=datetime.now(UTC)) == "200"
        crm.answer = lambda _told: 410
        assert not webhooks.taken(await webhooks.post(http, webhook, key, id, body, at=datetime.now(UTC)))
        gone = webhook.model_copy(update={"url": "http://127.0.0.1:1/hooks"})
        assert await webhooks.post(http, gone, key, id, body, at=datetime.now(UTC)) == "unreachable"
    told = Official(SECRET).verify(crm.body.decode(), crm.headers)
    assert (told["type"], told["data"]["address"]) == ("preference.test", "mailprefs-test@example.com")
    assert set(told["data"]) == {
        "address", "key", "channel", "party", "scope", "effect", "cause", "door", "at", "until", "stopped"
    }  # fmt: skip


async def test_the_page_s_own_check_believes_us_and_nobody_else(crm: Crm, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/webhooks.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "page.py").write_text(snippet, encoding="utf-8")
    proven = runpy.run_path(str(tmp_path / "page.py"))["proven"]
    webhook = Webhook(name="crm", url=crm.url, secret="CRM_SECRET", private=True)
    key = webhooks.secret(webhook, Settings().lending({"CRM_SECRET": SECRET}))
    async with webhooks.session(webhook) as http:
        await webhooks.post(http, webhook, key, *webhooks.sample(webhook, datetime.now(UTC)), at=datetime.now(UTC))
    assert proven(SECRET, crm.headers, crm.body)
    assert not proven(SECRET, crm.headers, crm.body + b" ")
    assert not proven("whsec_" + "A" * 32, crm.headers, crm.body)
    assert not proven(SECRET, crm.headers | {"webhook-timestamp": str(int(crm.headers["webhook-timestamp"]) - 600)}, crm.body)


async def test_nobody_inside_is_called_by_a_name_that_leads_there(crm: Crm) -> None:
    port = crm.url.rpartition(":")[2].partition("/")[0]
    public = Webhook(name="crm", url="https://crm.example.com/", secret="CRM_SECRET")
    async with webhooks.session(public) as http:
        with pytest.raises(ClientConnectorError):
            await http.post(f"http://localhost:{port}/")
    async with (
        ClientSession() as http,
        http.post(f"http://localhost:{port}/", json={"data": {}}, headers={"webhook-id": "control"}) as answer,
    ):
        assert answer.status == 200


class Names(ThreadedResolver):
    """What a name leads to is what a test says."""

    def __init__(self, *leads_to: str) -> None:
        self.leads_to = leads_to

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=each, port=port, family=socket.AF_INET6 if ":" in each else socket.AF_INET, proto=0, flags=0)
            for each in self.leads_to
        ]


@pytest.mark.parametrize(
    "inside",
    ["127.0.0.1", "::1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "fd00::1", "fe80::1", "::", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1",
     "64:ff9b:1::7f00:1", "::ffff:0:a00:1", "5f00::1", "3fff::1", "2002:a00:1::1", "224.0.0.1", "ff0e::1"],
)  # fmt: skip
async def test_a_name_that_leads_inside_is_no_endpoint_whichever_inside_it_is(inside: str) -> None:
    public = Public()
    public._all = Names(inside)
    with pytest.raises(OSError, match="no public address"):
        await public.resolve("crm.example.com", 443)
    public._all = Names(inside, "8.8.8.8", "2606:4700:4700::1111")
    found = [each["host"] for each in await public.resolve("crm.example.com", 443)]
    assert found == ["8.8.8.8", "2606:4700:4700::1111"], "the control: what is outside is found"


@pytest.mark.parametrize(
    "url",
    [
        "http://crm.example.com/",
        "https://127.0.0.1/",
        "https://10.1.2.3/hooks",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
        "https://127\u30020\u30020\u30021/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[::127.0.0.1]/",
        "https://[fec0::1]/",
        "https://224.0.0.1/",
        "https://localhost/",
        "https://a.localhost/",
        "https://user:word@crm.example.com/",
        "https:///hooks",
        "ftp://crm.example.com/",
        "https://crm.example.com:99999/",
        "crm.example.com",
    ],
)
def test_an_endpoint_that_is_none_or_leads_inside_is_refused_with_its_line(url: str) -> None:
    brand = '[[brand]]\nname = "a"\ntitle = "A"\nnumber = 1\nlink_host = "go.example.com"\nmailto = "u@go.example.com"\n'
    brand += 'postal_address = "1 Main Street"\n'
    hook = f'[[webhook]]\nname = "crm"\nsecret = "CRM_SECRET"\nurl = "{url}"\n'
    with pytest.raises(Misconfigured, match=r"line 11: webhook\[0\]\.url: "):
        catalogue.parse(brand + hook)


@pytest.mark.parametrize("secret", ["", "whsec_", "short", "whsec_!!!"])
def test_a_missing_or_short_secret_refuses_to_start(secret: str) -> None:
    webhook = Webhook(name="crm", url="https://crm.example.com/", secret="CRM_SECRET")
    with pytest.raises(Misconfigured, match="CRM_SECRET"):
        webhooks.secret(webhook, Settings().lending({"CRM_SECRET": secret}))
