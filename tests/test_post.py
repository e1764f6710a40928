"""Mails that we owe: none is lost, none goes to strangers, and nothing that anybody can see tells who is known."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from standardwebhooks import Webhook as Signed

from mailprefs import db, directory, ledger, passes, post
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Brand, Catalogue, Webhook
from mailprefs.directory import Entry
from mailprefs.errors import Misconfigured
from mailprefs.links import KeyRing
from mailprefs.passes import Purpose
from mailprefs.post import Handed, Postman, Relay
from mailprefs.settings import Settings
from mailprefs.words import Address, Cause, Change, Door, Effect

from .flows import relay as relays

pytestmark = pytest.mark.spread

BRAND = 256
LINK = re.compile(r"https://go\.example\.com/([mc])/(\S+)")


@dataclass
class Room:
    """A post room with one brand that sends over the relay, at a time that stands still until it is moved."""

    conn: asyncpg.Connection
    pool: db.Pool
    catalogue: Catalogue
    ring: KeyRing
    addresses: Addresses
    relay: relays.Relay
    now: datetime
    ways: dict[int, post.Way] = field(default_factory=dict)

    @property
    def postman(self) -> Postman:
        return Postman(self.catalogue, self.ring, self.pool, self.ways or {1: Relay.of(self.relay.url)}, lambda: self.now)

    async def known(self, text: str) -> Address:
        address = self.addresses.read(text)
        await directory.know(self.conn, [Entry(address)], now=self.now)
        return address

    async def ask(self, address: Address, purpose: Purpose = Purpose.MANAGE, scope: int = BRAND, to: str | None = None) -> bool:
        return await post.ask(self.conn, purpose, address, scope, language="en", now=self.now, to=to)

    async def owed(self) -> int:
        return int(await self.conn.fetchval("select count(*) from mail where due_at < 'infinity'"))


def with_brand(catalogue: Catalogue, **changes: Any) -> Catalogue:
    """Return the catalogue with another brand in place of its first."""
    brand = Brand.model_validate(catalogue.brand[0].model_dump(by_alias=True) | changes)
    return catalogue.model_copy(update={"brand": (brand, *catalogue.brand[1:])})


@pytest.fixture
async def room(
    database: str, conn: asyncpg.Connection, shared_catalogue: Catalogue, ring: KeyRing, addresses: Addresses, now: datetime
) -> AsyncIterator[Room]:
    sending = with_brand(shared_catalogue, **{"from": "Connective Care <hello@example.com>"})
    pool = await db.pool(database, size=2, command_timeout=5, purpose="post")
    async with relays.running() as relay:
        yield Room(conn, pool, sending, ring, addresses, relay, now)
    await pool.close()


async def test_a_link_goes_to_the_text_that_we_know_and_opens_that_address_alone(room: Room) -> None:
    jane = await room.known("Jane.Doe@example.org")
    assert await room.ask(room.addresses.read("jane.doe@EXAMPLE.org"))
    await room.postman.round()
    (letter,), (envelope,) = room.relay.letters, room.relay.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("hello@example.com", ["Jane.Doe@example.org"])
    assert (letter["From"], letter["To"]) == ("Connective Care <hello@example.com>", "Jane.Doe@example.org")
    assert letter["Auto-Submitted"] == "auto-generated"
    (found,) = LINK.findall(letter.get_content())
    one = passes.read(room.ring, Purpose.MANAGE, found[1])
    assert (found[0], one.key, one.scope, one.left(room.now)) == ("m", jane.key, BRAND, timedelta(minutes=60))
    assert await room.owed() == 0


async def test_nobody_is_mailed_whom_we_do_not_know_or_who_bounced_or_complained(room: Room) -> None:
    bounced, complained, phone = await room.known("b@example.org"), await room.known("c@example.org"), await room.known("+15005550006")
    stops = [(bounced, 0, Cause.BOUNCE), (complained, 257, Cause.COMPLAINT)]
    facts = [Change(who, scope, cause, Effect.STOP, Door.PROVIDER, cause, room.now, by="sendgrid-main") for who, scope, cause in stops]
    await ledger.record(room.conn, facts, now=room.now)
    for who in (room.addresses.read("nobody@example.org"), bounced, complained, phone):
        assert await room.ask(who), "whoever asks is told the same"
    await room.postman.round()
    assert (room.relay.envelopes, await room.owed()) == ([], 0)
    room.catalogue = with_brand(room.catalogue, complaint="liftable")
    room.now += timedelta(hours=2)
    await room.ask(complained)
    await room.postman.round()
    assert [each.rcpt_tos for each in room.relay.envelopes] == [["c@example.org"]], "who may come back is mailed the way"


async def test_the_same_is_done_for_somebody_we_know_and_for_a_stranger(room: Room) -> None:
    """What could tell them apart by its time is the same for both: the statements, and the rows they write."""
    seen: dict[str, list[tuple[str, int, int]]] = {}
    for name, address in (("known", await room.known("k@example.org")), ("stranger", room.addresses.read("s@example.org"))):
        said: list[Any] = []
        with room.conn.query_logger(said.append):
            for _ in range(5):
                await room.ask(address)
        rows = await room.conn.fetchval("select count(*) from mail where key = $1", address.key)
        asked = await room.conn.fetchval("select count(*) from asking where key = $1", address.key)
        seen[name] = [(each.query, rows, asked) for each in said]
    assert seen["known"] == seen["stranger"]
    assert len(seen["known"]) == 5


async def test_an_address_is_mailed_three_times_an_hour_whoever_asks(room: Room) -> None:
    jane = await room.known("jane@example.org")
    granted = []
    for minutes in (0, 10, 20, 30, 59, 61, 62, 71):
        began, room.now = room.now, room.now + timedelta(minutes=minutes)
        granted.append(await room.ask(jane))
        room.now = began
    assert granted == [True, True, True, False, False, True, False, True]


async def test_many_at_once_are_no_more_than_three(room: Room) -> None:
    jane = await room.known("jane@example.org")

    async def one() -> bool:
        async with room.pool.acquire() as connection:
            return await post.ask(connection, Purpose.MANAGE, jane, BRAND, language=None, now=room.now)

    assert sum(await asyncio.gather(*(one() for _ in range(20)))) == 3
    assert await room.owed() == 3


async def test_a_mail_whose_worker_was_killed_is_sent_by_the_next(room: Room) -> None:
    await room.ask(await room.known("jane@example.org"))
    taken = [row async for row in db.queries("post").lease(room.conn, now=room.now, until=room.now + post.LEASED, most=20)]
    assert len(taken) == 1, "and it is never heard of again"
    await room.postman.round()
    assert room.relay.envelopes == [], "as long as the other may be sending it"
    room.now += post.LEASED
    await room.postman.round()
    assert len(room.relay.envelopes) == 1


async def test_a_mail_waits_for_a_server_that_is_away_and_its_link_works_from_when_it_is_sent(room: Room) -> None:
    await room.ask(await room.known("jane@example.org"))
    there, room.ways = room.relay.url, {1: Relay.of("smtp://127.0.0.1:9")}
    await room.postman.round()
    room.relay.to_letter = "451 later"
    room.ways = {1: Relay.of(there)}
    room.now += timedelta(minutes=30)
    await room.postman.round()
    assert (len(room.relay.envelopes), await room.owed()) == (0, 1)
    room.relay.to_letter, room.now = "250 OK", room.now + timedelta(minutes=30)
    await room.postman.round()
    (found,) = LINK.findall(room.relay.letters[0].get_content())
    assert passes.read(room.ring, Purpose.MANAGE, found[1]).left(room.now) == timedelta(minutes=60)


async def test_a_mail_that_could_not_be_sent_for_a_day_is_given_up(room: Room) -> None:
    await room.ask(await room.known("jane@example.org"))
    room.now += post.STALE + timedelta(seconds=1)
    await room.postman.round()
    assert (room.relay.envelopes, await room.owed()) == ([], 0)


async def test_a_recipient_that_is_refused_holds_up_nobody(room: Room) -> None:
    room.relay.to_recipient = "550 no such mailbox"
    await room.ask(await room.known("gone@example.org"))
    await room.postman.round()
    assert await room.owed() == 0
    room.relay.to_recipient = "450 greylisted"
    await room.ask(await room.known("later@example.org"))
    await room.postman.round()
    assert await room.owed() == 1


async def test_a_question_goes_where_it_was_asked_to_and_makes_nobody_known(room: Room) -> None:
    stranger = room.addresses.read("new@example.org")
    await room.ask(stranger, Purpose.CONFIRM, 275, to="new@example.org")
    await room.postman.round()
    (found,) = LINK.findall(room.relay.letters[0].get_content())
    one = passes.read(room.ring, Purpose.CONFIRM, found[1])
    assert (found[0], one.key, one.scope) == ("c", stranger.key, 275)
    assert await post.awaited(room.conn, one) == "new@example.org", "for the answer"
    assert await room.conn.fetchval("select count(*) from address") == 0
    room.now += passes.WORKS[Purpose.CONFIRM] + timedelta(hours=1)
    await post.forget(room.conn, now=room.now)
    assert await post.awaited(room.conn, one) == "new@example.org", "it may have been sent a day late, and its link works from then"
    room.now += post.STALE
    await post.forget(room.conn, now=room.now)
    assert await post.awaited(room.conn, one) is None


async def test_a_system_of_the_senders_own_is_handed_the_mail_signed(room: Room) -> None:
    secret, heard = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQ=", []

    async def hear(request: web.Request) -> web.Response:
        heard.append(Signed(secret).verify(await request.text(), dict(request.headers)))
        return web.Response(status=500 if len(heard) == 1 else 204)

    app = web.Application()
    app.add_routes([web.post("/mails", hear)])
    room.now = datetime.now(room.now.tzinfo)
    async with TestServer(app) as server, ClientSession() as http:
        hook = Webhook(name="crm", url=str(server.make_url("/mails")), secret="CRM_SECRET", private=True)
        room.ways = {1: Handed(hook, b"secret-secret-secret", http)}
        await room.ask(await room.known("jane@example.org"))
        await room.postman.round()
        assert await room.owed() == 1, "whatever is no 2xx is tried again"
        room.now += timedelta(minutes=1)
        await room.postman.round()
    assert [each["type"] for each in heard] == ["mail.manage"] * 2
    said = heard[1]["data"]
    assert (said["to"], said["brand"], said["minutes"]) == ("jane@example.org", "connective", 60)
    assert LINK.search(said["link"])
    assert said["link"] in said["text"]
    assert await room.owed() == 0


@pytest.mark.parametrize("url", ["mail.example.com:25", "http://x", "smtp://", "smtp://h:port", "smtp://name:secret@h/path?x=secret"])
def test_an_smtp_url_that_is_none_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(Misconfigured, match="SMTP_URL") as said:
        Relay.of(url)
    assert "secret@h" not in str(said.value)


def test_a_password_goes_over_an_encrypted_line_alone() -> None:
    far = Relay.of("smtp://name:p%40ss@mail.example.com")
    assert (far.port, far.name, far.password, far.client()._start_tls_on_connect) == (587, "name", "p@ss", True)
    assert "p@ss" not in repr(far)
    assert Relay.of("smtps://name:pass@mail.example.com").client().use_tls is True
    assert Relay.of("smtp://mail.example.com").client()._start_tls_on_connect is None


def test_no_brand_promises_a_mail_that_nobody_could_send() -> None:
    with_server = Settings().model_copy(update={"smtp_url": SecretStr("smtp://127.0.0.1")})
    brand = Brand(name="b", title="B", number=1, link_host="b.example", mailto="u@b.example", postal_address="1 Main Street")
    named, handed = brand.model_copy(update={"from_": "b@example.com"}), brand.model_copy(update={"mailer": "crm"})

    def promised(server: Settings, each: Brand) -> bool:
        return bool(post.mailing(server, Catalogue(brand=(brand,)).model_copy(update={"brand": (each,)})))

    assert [promised(Settings(), each) for each in (brand, named, handed)] == [False, False, True]
    assert [promised(with_server, each) for each in (brand, named, handed)] == [False, True, True]


async def test_an_address_that_mail_cannot_carry_holds_up_nobody(room: Room) -> None:
    for text in ("é@example.org", "用户@example.org", "joe@bücher.example", "jane@example.org"):
        assert await room.ask(await room.known(text))
    await room.postman.round()
    reached = sorted(each.rcpt_tos[0] for each in room.relay.envelopes)
    assert reached == ["jane@example.org", "joe@xn--bcher-kva.example", "é@example.org", "用户@example.org"]
    assert await room.owed() == 0


async def test_a_letter_that_is_refused_holds_up_no_other(room: Room) -> None:
    await room.ask(await room.known("jane@example.org"))
    await room.ask(await room.known("joe@example.org"))
    room.relay.to_letter = "554 5.7.1 no"
    await room.postman.round()
    assert room.relay.asked == 2, "each was tried"
    assert await room.owed() == 2
