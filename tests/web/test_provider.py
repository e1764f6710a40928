"""A provider's delivery, from its signed bytes to what it changes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import asyncpg
from aiohttp import ClientSession

from mailprefs.sandbox import sendgrid

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
        await other.execute("select from address for update")
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
