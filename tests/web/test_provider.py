"""A provider's delivery, from its signed bytes to what it changes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import asyncpg
import pytest
from aiohttp import ClientSession, web

from mailprefs.providers import LARGE, apart, listen
from mailprefs.providers.base import Answers, Credential, Delivery, Ear, Heard
from mailprefs.sandbox import sendgrid
from mailprefs.web.keys import HOUSE
from mailprefs.words import Channel, Kind

WHEN = 1_790_000_000  # seconds


def event(kind: str, email: str, id: str, **more: Any) -> dict[str, Any]:
    return {"event": kind, "email": email, "sg_event_id": id, "timestamp": WHEN, "sg_message_id": "m.1", **more}


async def posted(http: ClientSession, base: str, private: str, events: object, *, account: str = "sendgrid-main") -> int:
    body = events if isinstance(events, bytes) else json.dumps(events).encode() + b"\r\n"
    headers = sendgrid.sign(private, str(int(time.time())), body)
    async with http.post(f"{base}/hooks/{account}", data=body, headers={**headers, "Content-Type": "application/json"}) as answer:
        return answer.status


async def test_a_batch_stops_what_it_says_and_nothing_else(
    base: str, http: ClientSession, conn: asyncpg.Connection, signing: tuple[str, str]
) -> None:
    batch = [
        event("bounce", "hard@example.org", "1", type="bounce", status="5.1.1"),
        event("bounce", "blocked@example.org", "2", type="blocked"),
        event("deferred", "soft@example.org", "3"),
        event("spamreport", "angry@example.org", "4"),
        event("group_unsubscribe", "left@example.org", "5", asm_group_id=12345),
        event("unsubscribe", "gone@example.org", "6"),
        event("group_unsubscribe", "stranger@example.org", "7", asm_group_id=999),
        event("delivered", "fine@example.org", "8"),
        event("dropped", "echo@example.org", "9", reason="Unsubscribed Address"),
        event("group_resubscribe", "left@example.org", "10", asm_group_id=12345),
    ]
    assert await posted(http, base, signing[0], batch + batch[::-1]) == 200
    found = {
        tuple(r["stops"]): r["n"] for r in await conn.fetch("select stops, count(*) n from address where stops is not null group by 1")
    }
    assert found == {(0,): 1, (257,): 3, (272,): 1}
    assert await conn.fetchval("select count(*) from consent") == 6


async def test_a_forged_delivery_is_refused(base: str, http: ClientSession, conn: asyncpg.Connection) -> None:
    other, _ = sendgrid.key_pair()
    assert await posted(http, base, other, [event("spamreport", "x@example.org", "1")]) == 401
    assert await conn.fetchval("select count(*) from consent") == 0


async def test_what_cannot_be_read_is_kept_and_the_rest_counts(
    base: str, http: ClientSession, conn: asyncpg.Connection, signing: tuple[str, str]
) -> None:
    poison = b'[{"event":"spamreport","email":"a@example.org","sg_event_id":"1","timestamp":1790000000},{"a":1,"a":2},NaN]'
    assert await posted(http, base, signing[0], poison) == 200
    assert await posted(http, base, signing[0], b"no json at all") == 200
    assert await conn.fetchval("select count(*) from event") >= 2
    assert await conn.fetchval("select count(*) from consent") == 1


async def test_an_unknown_account_hears_nothing(base: str, http: ClientSession, signing: tuple[str, str]) -> None:
    assert await posted(http, base, signing[0], [], account="nobody") == 404


async def test_hostile_text_in_an_event_is_no_500(
    base: str, http: ClientSession, conn: asyncpg.Connection, signing: tuple[str, str]
) -> None:
    odd = [
        event("spamreport", "\ud800@example.org", "1"),
        event("spamreport", "a\0b@example.org", "2"),
        event("spamreport", "x" * 100_000, "3" * 10_000),
        event("spamreport", "ok@example.org", "\0"),
        event("group_unsubscribe", "ok2@example.org", "5", asm_group_id="\0"),
        {**event("spamreport", "late@example.org", "6"), "timestamp": 10**30},
        {**event("spamreport", "fine@example.org", "7"), "timestamp": -(10**12)},
    ]
    assert await posted(http, base, signing[0], odd) == 200
    assert await conn.fetchval("select count(*) from consent where effect = 'stop'") >= 3


async def test_a_flood_at_one_account_leaves_places_to_the_others(
    base: str, http: ClientSession, conn: asyncpg.Connection, database: str, signing: tuple[str, str]
) -> None:
    told = [event("unsubscribe", "slow@example.org", "0")]
    assert await posted(http, base, signing[0], told) == 200
    other = await asyncpg.connect(database)
    async with other.transaction():  # so that whatever is told of this one waits
        await other.execute("update address set plaintext = plaintext")
        flood = [
            asyncio.create_task(posted(http, base, signing[0], [event("spamreport", "slow@example.org", str(n))])) for n in range(1, 21)
        ]
        while not await conn.fetchval("select exists (select from pg_locks where not granted)"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        late = await posted(http, base, signing[0], [event("unsubscribe", "quick@example.org", "1")], account="sendgrid-second")
        answered = [each.done() for each in flood]
    await other.close()
    assert set(await asyncio.gather(*flood)) == {200}
    assert late == 200
    assert not any(answered), "the control: the flood still waited"


async def test_a_delivery_whose_commit_no_standby_confirmed_is_asked_for_again(
    base: str, http: ClientSession, conn: asyncpg.Connection, signing: tuple[str, str]
) -> None:
    assert await posted(http, base, signing[0], [event("unsubscribe", "a@example.org", "1")]) == 200, "the control"
    await conn.execute(
        """create function unconfirmed() returns trigger language plpgsql as $$ begin
             raise warning 'canceling wait for synchronous replication due to user request';
             return null;
           end $$;
           create constraint trigger unconfirmed after insert on consent deferrable initially deferred
             for each row execute function unconfirmed()"""
    )
    assert await posted(http, base, signing[0], [event("unsubscribe", "b@example.org", "2")]) == 503
    assert await conn.fetchval("select count(*) from consent") == 2, "it is committed here, and would be lost with this server"


async def test_of_a_delivery_that_fails_half_way_nothing_is_kept_and_the_next_attempt_keeps_all_of_it(
    base: str, http: ClientSession, conn: asyncpg.Connection, signing: tuple[str, str]
) -> None:
    told = [event("bounce", "soft@example.org", f"s{n}", type="expired") for n in range(5)]  # as many as put an address on hold
    told += [event("unsubscribe", "gone@example.org", "u")]
    await conn.execute(
        """create function full_disk() returns trigger language plpgsql as $$ begin
             raise exception 'no space left' using errcode = 'disk_full';
           end $$;
           create trigger full_disk before insert on consent for each row execute function full_disk()"""
    )
    assert await posted(http, base, signing[0], told) == 503
    halves = "select (select count(*) from soft_bounce), (select count(*) from address), (select count(*) from heard)"
    assert tuple(await conn.fetchrow(halves) or ()) == (0, 0, 0)
    await conn.execute("drop trigger full_disk on consent")
    assert await posted(http, base, signing[0], told) == 200
    rows = await conn.fetch("select scope, cause from consent order by scope")
    assert [tuple(row) for row in rows] == [(0, "soft"), (257, "choice")]
    assert await conn.fetchval("select count(*) from soft_bounce") == 5


FLOODS = {  # a body, and what its one row says of it
    "objects that say nothing": b"[" + b",".join([b"{}"] * 20_000) + b"]",
    "arrays behind one that is not strict": b'[{"y":NaN},' + b",".join([b"[[],[],[],[]]"] * 5_000) + b"]",
}


@pytest.mark.parametrize("body", FLOODS.values(), ids=FLOODS)
async def test_more_than_a_thousand_things_aside_are_kept_whole_and_once(
    base: str, http: ClientSession, conn: asyncpg.Connection, signing: tuple[str, str], body: bytes
) -> None:
    stop = b'[{"event":"unsubscribe","email":"left@example.org","x":NaN},'
    assert await posted(http, base, signing[0], stop + body[1:]) == 200
    [row] = await conn.fetch("select reason, raw from event")
    assert (row["reason"], row["raw"]) == ("too_many", stop + body[1:])
    assert await conn.fetchval("select count(*) from consent where effect = 'stop'") == 1, "whoever left among them is stopped"


async def test_one_element_that_names_two_people_stops_both(
    base: str, http: ClientSession, conn: asyncpg.Connection, signing: tuple[str, str]
) -> None:
    for n, (one, other, stopped) in enumerate((("a@example.org", "A@EXAMPLE.ORG", 1), ("b@example.org", "c@example.org", 3))):
        body = f'[{{"event":"unsubscribe","sg_event_id":"e{n}","email":"{one}","email":"{other}"}}]'.encode()
        assert await posted(http, base, signing[0], body) == 200
        assert await conn.fetchval("select count(*) from address where stops = '{257}'") == stopped


@pytest.mark.parametrize(("padding", "beside"), [(0, False), (LARGE, True)], ids=["small", "large"])
async def test_only_a_large_delivery_is_worked_on_beside_the_loop(padding: int, beside: bool) -> None:
    delivery = Delivery((), b" " * (padding + 1), datetime.now(UTC))
    found = await apart(delivery, threading.current_thread)
    assert (found is not threading.current_thread()) is beside


async def test_the_loop_goes_on_while_a_large_delivery_is_read() -> None:
    """The one that works waits for what the loop does meanwhile."""
    delivery, gone_on = Delivery((), b" " * (LARGE + 1), datetime.now(UTC)), threading.Event()
    asyncio.get_running_loop().call_later(0.05, gone_on.set)
    assert await apart(delivery, gone_on.wait, 30)


async def test_all_that_takes_long_of_a_large_delivery_is_done_beside_the_loop(app: web.Application, http: ClientSession) -> None:
    """From its proof to its place; what wants the loop or the database is not among it."""
    hearing, seen = app[HOUSE].hearings["sendgrid-main"], dict[str, threading.Thread]()
    watched = Watched(hearing.provider, seen)
    body = b'[{"event":"unsubscribe","email":"a@example.org","x":NaN,"y":"%b"}]' % (b"y" * LARGE)
    heard = await listen(watched, hearing.credential, Delivery((), body, datetime.now(UTC)), http)
    assert len(heard.events) == 1, "the control: it was mended and read again"
    assert set(seen) == {"verify", "parse"}
    assert threading.current_thread() not in seen.values()


class Watched:
    """A provider that notes which thread each of its parts was asked in, and takes any proof."""

    name: ClassVar[str] = "watched"
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers()
    kinds: ClassVar[Mapping[str, Kind | str]] = {}
    secrets_in: ClassVar[tuple[str, ...]] = ()

    def __init__(self, provider: Ear, seen: dict[str, threading.Thread]) -> None:
        self.provider, self.seen = provider, seen

    def check(self, credential: Credential) -> None:
        self.provider.check(credential)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        self.seen["verify"] = threading.current_thread()

    def parse(self, delivery: Delivery) -> Heard:
        self.seen["parse"] = threading.current_thread()
        return self.provider.parse(delivery)
