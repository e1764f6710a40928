"""Our own changes out: the sender's systems hear each row of the ledger as a signed Standard Webhook, in order, until they say 2xx.

At least once: the id of a message names its row, so that whoever hears it twice can tell. The rows of one address come one after another;
each says how its scope stands at that moment, so that the last one heard is right whatever came before.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

from aiohttp import ClientError, ClientSession, ClientSSLError, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from mailprefs import db, feed, telemetry
from mailprefs.catalogue import Catalogue, Webhook, is_public
from mailprefs.db import Connection, in_one_order, queries
from mailprefs.errors import Misconfigured, Unreadable
from mailprefs.feed import Fact, Place
from mailprefs.providers import attempts
from mailprefs.settings import Settings
from mailprefs.words import Clock

BATCH = 200  # rows that are read at once
LANES = 8  # requests in flight; the rows of one address share one
ANSWER = ClientTimeout(total=15, connect=5)  # seconds
OWNED = timedelta(minutes=2)  # longer than a batch whose every request times out in its lane is given up after
PATIENCE = timedelta(seconds=60)  # with one batch; what is left is told in the next
COUNTED = 10_000  # rows of a backlog that are counted for a person
CAP = timedelta(minutes=15)  # the longest wait between two attempts, which never cease


class Public(AbstractResolver):
    """Finds only addresses of the open internet: a name that leads inside is no endpoint."""

    def __init__(self) -> None:
        self._all = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return the public ones. Raises OSError if there are none."""
        found = [each for each in await self._all.resolve(host, port, family) if is_public(ipaddress.ip_address(each["host"]))]
        if not found:
            raise OSError("no public address")
        return found

    async def close(self) -> None:
        await self._all.close()


def session(webhook: Webhook) -> ClientSession:
    """Return the way to one endpoint: no cookies, no proxy from the environment, and nowhere inside unless the catalogue says so."""
    connector = TCPConnector(limit=LANES, ttl_dns_cache=60, resolver=None if webhook.private else Public())
    return ClientSession(connector=connector, timeout=ANSWER, cookie_jar=DummyCookieJar(), trust_env=False)


def secret(webhook: Webhook, settings: Settings) -> bytes:
    """Return the key that an endpoint's messages are signed with. Raises Misconfigured."""
    value = settings.secret(webhook.secret)
    try:
        return attempts.key(value or "")
    except Unreadable:
        what = "is not set" if value is None else "is not whsec_ and base64 of 16 bytes or more"
        raise Misconfigured(f"webhook '{webhook.name}': the variable {webhook.secret} {what}") from None


async def introduce(connection: Connection, catalogue: Catalogue, *, now: datetime) -> None:
    """Let those who are new in the catalogue hear what is recorded from now on. Raises NotOnACluster if there are any."""
    if catalogue.webhook:
        await in_one_order(connection)
    await queries("webhooks").introduce(connection, names=[each.name for each in catalogue.webhook], now=now)


async def post(http: ClientSession, webhook: Webhook, key: bytes, id: str, body: bytes, *, at: datetime) -> str:
    """Send one message, and return what was answered: a status, or what came instead of one. Only 2xx says that it was heard."""
    timestamp = str(int(at.timestamp()))
    headers = {
        "Content-Type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": timestamp,
        "webhook-signature": attempts.signature(key, id, timestamp, body),
    }
    try:
        async with http.post(webhook.url, data=body, headers=headers, allow_redirects=False) as answer:
            return str(answer.status)
    except TimeoutError:
        return "timeout"
    except ClientSSLError:
        return "tls"
    except (ClientError, OSError):
        return "unreachable"


def taken(answer: str) -> bool:
    """True if an answer to ``post`` says that the message was heard."""
    return answer.startswith("2")


def sample(webhook: Webhook, at: datetime) -> tuple[str, bytes]:
    """Return the id and the body of a message that changes nothing, for a try-out: it is about an address of nobody's."""
    data = dict.fromkeys(("key", "channel", "party", "scope", "cause", "door", "until"))
    about = {"address": "mailprefs-test@example.com", **data, "effect": "test", "at": at.isoformat(), "stopped": False}
    return f"msg_test_{uuid4().hex}", json.dumps({"type": "preference.test", "timestamp": at.isoformat(), "data": about}).encode()


@dataclass(eq=False)
class Herald:
    """Tells one endpoint, as the only one for as long as it owns it."""

    webhook: Webhook
    key: bytes = field(repr=False)
    catalogue: Catalogue
    pool: db.Pool
    http: ClientSession
    clock: Clock
    owner: UUID = field(default_factory=uuid4)
    place: Place | None = None  # where it stood the last time
    ahead: set[Place] = field(default_factory=set)  # rows that were heard although one before them was not
    trouble: str = ""  # what kept the last row that was not heard, as a code

    async def round(self) -> bool:
        """Tell what is next, and return whether there is more to tell at once."""
        facts, tried = await self._next()
        if not facts:
            return False
        heard = await self._tell(facts)
        now = self.clock()
        async with db.acquired(self.pool) as connection, connection.transaction():
            if heard:
                await self._acknowledge(connection, facts[heard - 1].place, now)
            failed = 0 if heard == len(facts) else 1 if heard else tried + 1
            settle, failure = queries("webhooks").settle, self.trouble if failed else None
            mine = {"name": self.webhook.name, "owner": self.owner}
            await settle(connection, **mine, attempts=failed, wait=_wait(failed), failure=failure, now=now)
        self._show(facts, heard, now)
        return not failed

    async def _next(self) -> tuple[list[Fact], int]:
        """Return the rows that come next, owned, and how often the first of them has failed. Writes nothing while there is nothing."""
        now, mine = self.clock(), {"name": self.webhook.name, "owner": self.owner}
        async with db.acquired(self.pool) as connection:
            row = await queries("webhooks").look(connection, **mine, now=now)
            if row is None or row["away"]:
                return [], 0
            if not await feed.after(connection, _place(row), most=1, now=now, since=row["since"]):
                if row["beyond"]:
                    await self._restart(connection, now)
                return [], 0
            row = await queries("webhooks").own(connection, **mine, until=now + OWNED, now=now)
            if row is None:
                return [], 0
            if _place(row) != self.place:  # somebody else told them meanwhile, or it is told once more
                self.place, self.ahead = _place(row), set()
            return await feed.after(connection, self.place, most=BATCH, now=now, since=row["since"]), row["attempts"]

    async def _restart(self, connection: Connection, now: datetime) -> None:
        """Go on in another server than the one whose numbers it stands by: its database was restored into this one."""
        if await queries("webhooks").restart(connection, name=self.webhook.name, now=now) != "UPDATE 0":
            telemetry.alarm("webhook_place_beyond", webhook=self.webhook.name)

    async def _tell(self, facts: Sequence[Fact]) -> int:
        """Return how many of the rows, from the first on, were heard. One that was not holds up its lane and what comes after it."""
        lanes = [[fact for fact in facts if fact.place.key.int % LANES == lane] for lane in range(LANES)]
        tasks = [asyncio.create_task(self._lane(lane)) for lane in lanes if lane]
        self.trouble = "slow"  # unless one of them says another
        _, late = await asyncio.wait(tasks, timeout=PATIENCE.total_seconds())
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        heard = next((n for n, fact in enumerate(facts) if fact.place not in self.ahead), len(facts))
        self.ahead.difference_update([fact.place for fact in facts[:heard]])
        return heard

    async def _lane(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            scope = self.catalogue.by_number.get(fact.scope)
            if scope is None:  # a newer release mapped it: a worker of that release tells it
                telemetry.alarm("webhook_scope_unknown", webhook=self.webhook.name)
                self.trouble = "scope_unknown"
                return
            if fact.place in self.ahead or scope.sensitive or await self._post(fact):  # a sensitive topic is told to nobody
                self.ahead.add(fact.place)
            else:
                return

    async def _post(self, fact: Fact) -> bool:
        answer = await post(self.http, self.webhook, self.key, _id(self.webhook.name, fact.place), self._body(fact), at=self.clock())
        if not taken(answer):
            self.trouble = answer
        return taken(answer)

    def _body(self, fact: Fact) -> bytes:
        data = {
            "address": fact.text,
            "key": fact.place.key.hex,
            "channel": fact.channel,
            "party": fact.party,
            "scope": fact.scope,  # by its number: no name of a topic leaves
            "effect": fact.effect,
            "cause": fact.cause,
            "door": fact.door,
            "at": fact.at.isoformat(),
            "until": fact.until.isoformat() if fact.until else None,
            "stopped": fact.stopped,
        }
        return json.dumps({"type": f"preference.{fact.effect}", "timestamp": fact.received_at.isoformat(), "data": data}).encode()

    async def _acknowledge(self, connection: Connection, place: Place, now: datetime) -> None:
        self.place = place
        await queries("webhooks").acknowledged(
            connection,
            name=self.webhook.name,
            owner=self.owner,
            position=str(place.position),
            bucket=place.bucket,
            key=place.key,
            evidence=place.evidence,
            now=now,
        )

    def _show(self, facts: Sequence[Fact], heard: int, now: datetime) -> None:
        waiting = (now - facts[heard].received_at).total_seconds() if heard < len(facts) else 0
        telemetry.gauge("webhook_oldest_age_seconds", max(waiting, 0), webhook=self.webhook.name)
        telemetry.count("webhook_messages", heard, webhook=self.webhook.name)
        if heard < len(facts):
            telemetry.alarm("webhook_failing", webhook=self.webhook.name)


def _place(row: Mapping[str, Any]) -> Place:
    return Place(int(row["position"]), row["bucket"], row["key"], row["evidence"])


def _wait(failed: int) -> timedelta:
    """The longest wait before the next attempt; how much of it is waited is left to chance."""
    return min(CAP, timedelta(seconds=2) * 2 ** min(failed, 20)) if failed else timedelta()


def _id(name: str, place: Place) -> str:
    """The same in every attempt, whoever makes it."""
    return f"msg_{sha256(f'{name}/{place.key.hex}/{place.evidence}'.encode()).hexdigest()[:27]}"


async def replay(connection: Connection, name: str, *, since: datetime) -> bool:
    """Let an endpoint hear everything once more that was recorded from a time on; False if there is nothing, or no such endpoint."""
    place = await feed.since(connection, since)
    return place is not None and await _replay(connection, name, place, since=since)


async def replay_from(connection: Connection, name: str, position: int) -> bool:
    """Let an endpoint hear everything once more from a place on; False for one that was never reached, or no such endpoint."""
    return await _replay(connection, name, Place(position), since=feed.EVER)


async def _replay(connection: Connection, name: str, place: Place, *, since: datetime) -> bool:
    moved = await queries("webhooks").replay(connection, name=name, position=str(place.position), since=since)
    return bool(moved != "UPDATE 0")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one endpoint has come."""

    name: str
    position: int  # of the last transaction that it has heard from
    behind: int  # rows that it has not heard, up to ``COUNTED``
    oldest_at: datetime | None  # when the oldest of them was recorded
    delivered_at: datetime | None
    attempts: int  # in vain, since it last heard
    failing_since: datetime | None
    failed_at: datetime | None
    failure: str | None  # what the last failure was
    due_at: datetime  # it is tried again then
    beyond: bool  # it stands where this server has not come to


async def progress(connection: Connection, names: Iterable[str]) -> list[Progress]:
    """Return how far these endpoints have come, by name; those that no worker has begun to tell are not among them."""
    rows = queries("webhooks").known(connection, names=list(names), most=COUNTED)
    return [Progress(**{**row, "position": int(row["position"])}) async for row in rows]
