"""Bodies of deliveries, and of what applications ask: bounded in memory all together, and none, however slow, in the way of another."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import asyncpg
import pytest
from aiohttp import ClientSession, web

from mailprefs.errors import Busy
from mailprefs.sandbox import sendgrid
from mailprefs.web import guard
from mailprefs.web.arrivals import Arrivals, largest, oldest
from mailprefs.web.candidates import FREE
from mailprefs.web.keys import ARRIVALS, ASKED, HOUSE

SEAL = "X-Twilio-Email-Event-Webhook-Signature: nobody\r\nX-Twilio-Email-Event-Webhook-Timestamp: 1790000000\r\n"


class Sender:
    """Posts a body bit by bit, and looks now and then whether it is answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    async def status(self, seconds: float = 10) -> int:
        line = await asyncio.wait_for(self.reader.readline(), seconds)
        return int(line.split()[1])

    async def answers(self, end: bytes) -> int:
        """Return the status of an answer that has come as far as to these octets."""
        return int((await asyncio.wait_for(self.reader.readuntil(end), 10)).split()[1])

    async def is_gone(self) -> bool:
        """True once the service breaks the answer off."""
        with suppress(ConnectionError):
            return b"\r\n0\r\n" not in b"\r\n" + await asyncio.wait_for(self.reader.read(), 10)  # RFC 9112 §7.1: its end
        return True


@asynccontextmanager
async def sending(base: str, count: int, *, path: str = "/hooks/sendgrid-main", headers: str = SEAL) -> AsyncIterator[list[Sender]]:
    """Lend so many deliveries of a megabyte each, of which nothing but the head is sent."""
    port = base.rpartition(":")[2]
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 1000000\r\n\r\n".encode()
    senders = [Sender(*await asyncio.open_connection("127.0.0.1", int(port))) for _ in range(count)]
    try:
        for sender in senders:
            await sender.send(head)
        yield senders
    finally:
        for sender in senders:
            sender.writer.transport.abort()


async def genuine(base: str, http: ClientSession, private: str, id: str, *, account: str = "sendgrid-main") -> tuple[int, float]:
    """Deliver somebody's unsubscribe; return the status, and after how many seconds it came."""
    told = [{"event": "unsubscribe", "email": f"{id}@example.org", "sg_event_id": id, "timestamp": 1_790_000_000}]
    body = json.dumps(told).encode()
    began = time.monotonic()
    async with http.post(f"{base}/hooks/{account}", data=body, headers=sendgrid.sign(private, str(int(time.time())), body)) as answer:
        return answer.status, time.monotonic() - began


async def until(arrivals: Arrivals, held: int) -> None:
    for _ in range(500):
        if arrivals.held == held:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{arrivals.held} bytes are held, not {held}")


async def test_a_delivery_without_its_seal_is_refused_before_its_body_is_read(base: str, app: web.Application) -> None:
    async with sending(base, 20, headers="") as senders:
        assert {await sender.status(2) for sender in senders} == {401}
    async with sending(base, 1) as [sealed]:
        await sealed.send(b"x" * 1000)
        await until(app[ARRIVALS], 1000)  # the control: with one, it is read


async def test_a_body_that_says_it_is_too_large_is_not_read(base: str) -> None:
    async with sending(base, 1, headers=SEAL.replace("nobody", "nobody\r\nX-More: x")) as [sender]:
        with pytest.raises(TimeoutError):
            await sender.status(0.2)
    port = int(base.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /hooks/sendgrid-main HTTP/1.1\r\nHost: x\r\n{SEAL}Content-Length: 6000000\r\n\r\n".encode())
    assert await Sender(reader, writer).status(2) == 413
    writer.transport.abort()


async def test_the_bodies_of_all_accounts_share_one_budget_and_the_oldest_give_way(
    base: str, http: ClientSession, app: web.Application, signing: tuple[str, str]
) -> None:
    arrivals = app[ARRIVALS]
    arrivals.most, arrivals.share = 1_000_000, 600_000
    async with AsyncExitStack() as stack:
        senders = []
        for account, held in (*(("sendgrid-main", n) for n in (2, 4, 6, 6)), *(("sendgrid-second", n) for n in (8, 10, 10, 10))):
            [sender] = await stack.enter_async_context(sending(base, 1, path=f"/hooks/{account}"))
            await sender.send(b"x" * 200_000)
            await until(arrivals, held * 100_000)
            senders.append(sender)
            await asyncio.sleep(0.05)
        assert [await senders[0].status(), await senders[1].status(), await senders[4].status()] == [503] * 3
        assert (await genuine(base, http, signing[0], "1"))[0] == 200, "a quick one finds room"
        assert await senders[2].status() == 503, "for which the oldest gave way"
    await until(arrivals, 0)


async def test_slow_senders_hold_up_no_quick_one(
    base: str, http: ClientSession, app: web.Application, conn: asyncpg.Connection, signing: tuple[str, str]
) -> None:
    async with sending(base, 400) as senders:
        for sender in senders:
            await sender.send(b"x")
        await until(app[ARRIVALS], 400)
        answers = [await genuine(base, http, signing[0], str(n)) for n in range(5)]
        assert app[ARRIVALS].held == 400, "the control: all of them still send"
    assert {status for status, _ in answers} == {200}
    assert max(seconds for _, seconds in answers) < 5
    assert await conn.fetchval("select count(*) from consent") == 5


async def test_a_body_that_is_whole_gives_way_to_nobody() -> None:
    arrivals = Arrivals(most=10, share=8)
    async with arrivals.arriving("one") as whole:
        arrivals.grow(whole, 8)
        arrivals.whole(whole)
        with pytest.raises(Busy):
            async with arrivals.arriving("one") as more:
                arrivals.grow(more, 1)  # the account has its share, and nobody else of it can go
        with pytest.raises(Busy):
            async with arrivals.arriving("two") as other:
                arrivals.grow(other, 3)
        assert arrivals.held == 8
        async with arrivals.arriving("two") as small:
            arrivals.grow(small, 2)
    assert arrivals.held == 0


async def test_who_gives_way_is_told_wherever_it_waits_and_counts_no_more() -> None:
    arrivals = Arrivals(most=10, share=10)
    begun = asyncio.Event()

    async def sends_slowly() -> None:
        async with arrivals.arriving("one") as slow:
            arrivals.grow(slow, 8)
            begun.set()
            await asyncio.sleep(60)

    slow = asyncio.create_task(sends_slowly())
    await begun.wait()
    async with arrivals.arriving("two") as quick:
        arrivals.grow(quick, 9)
        assert arrivals.held == 9
        with pytest.raises(Busy):
            await asyncio.wait_for(slow, 2)


async def test_who_gave_way_and_does_not_know_it_yet_takes_no_more() -> None:
    arrivals = Arrivals(most=10, share=10)

    async def late() -> None:
        async with arrivals.arriving("one") as first:
            arrivals.grow(first, 8)
            async with arrivals.arriving("two") as other:
                arrivals.grow(other, 5)
                with pytest.raises(Busy):
                    arrivals.grow(first, 1)
                with pytest.raises(Busy):
                    arrivals.whole(first)
            await asyncio.sleep(60)

    with pytest.raises(Busy):
        await late()
    assert arrivals.held == 0


async def test_another_time_limit_is_not_taken_for_a_lack_of_room() -> None:
    with pytest.raises(TimeoutError):
        async with Arrivals().arriving("one"):
            raise TimeoutError


FILTER, DECISIONS = "/v1/audiences/connective/newsletter/filter", "/v1/decisions"


def asking(base: str, bearer: dict[str, str], path: str) -> AbstractAsyncContextManager[list[Sender]]:
    return sending(base, 1, path=path, headers=f"Authorization: {bearer['Authorization']}\r\n")


@pytest.mark.parametrize("control", [False, True])
async def test_a_filter_of_ordinary_rows_takes_as_long_as_it_takes_beside_rows_that_never_end(
    base: str, bearer: dict[str, str], app: web.Application, control: bool
) -> None:
    """The control: were it the oldest who gives way, it would be this one."""
    asked = app[ASKED]
    asked.most = 450_000
    if control:
        asked.gives_way = oldest
    async with AsyncExitStack() as stack:
        [ordinary] = await stack.enter_async_context(asking(base, bearer, FILTER))
        await ordinary.send(b"address\njane@example.org\n")
        assert await ordinary.answers(b"jane@example.org\n") == 200
        others, held = [], 0
        for length in (400_000, 300_000, 350_000):
            others += await stack.enter_async_context(asking(base, bearer, FILTER))
            await others[-1].send(b"address\n")
            assert await others[-1].answers(b"address\n\r\n") == 200
            await others[-1].send(b"x" * length)
            held += length - FREE - (400_000 - FREE if length == 350_000 else 0)  # for the last one, the largest gives way
            await until(asked, held)
        assert await others[0].is_gone(), "an answer that has begun is broken off, and never ends as if it were whole"
        if control:
            assert await ordinary.is_gone()
        else:
            await ordinary.send(b"kim@example.org\n")
            assert b"kim@" in await asyncio.wait_for(ordinary.reader.readuntil(b"kim@example.org\n"), 10)
    await until(asked, 0)


async def test_a_long_row_counts_until_it_is_answered(base: str, bearer: dict[str, str], app: web.Application) -> None:
    async with asking(base, bearer, FILTER) as [sender]:
        await sender.send(b"address,n\njane@example.org," + b"x" * 300_000)
        await until(app[ASKED], 300_017 - FREE)
        async with app[HOUSE].slices:  # which the answer wants
            await sender.send(b"\n")
            await until(app[ASKED], 300_018 - FREE)
        await until(app[ASKED], 0)
        assert not sender.reader.at_eof(), "the control: there may be more rows"


@pytest.mark.parametrize("path", [FILTER, DECISIONS])
async def test_an_application_whose_bodies_find_no_room_is_told_to_come_back(
    base: str, http: ClientSession, bearer: dict[str, str], app: web.Application, signing: tuple[str, str], path: str
) -> None:
    app[ASKED].share = 400_000
    async with asking(base, bearer, path) as [sender]:
        await sender.send(b"x" * 300_000)
        await until(app[ASKED], 300_000 - (FREE if path == FILTER else 0))  # the control: so much is taken
        await sender.send(b"x" * 300_000)
        assert await sender.status() == 503
        head = await sender.reader.readuntil(b"\r\n\r\n")
        assert b"Retry-After: 5" in head
        assert b"application/problem+json" in head
    await until(app[ASKED], 0)


async def test_a_question_counts_until_it_is_answered_and_gives_way_to_nobody_once_it_is_whole(
    base: str, http: ClientSession, bearer: dict[str, str], app: web.Application, signing: tuple[str, str]
) -> None:
    asked, body = app[ASKED], json.dumps({"pairs": [{"address": "jane@example.org", "topic": "newsletter"}]}).encode()
    asked.most = asked.share = 500_000
    async with app[HOUSE].slices:  # which the answer wants
        waiting = asyncio.create_task(http.post(base + DECISIONS, data=body + b" " * (400_000 - len(body)), headers=bearer).__aenter__())
        await until(asked, 400_000)
        async with asking(base, bearer, DECISIONS) as [other]:
            await other.send(b" " * 200_000)
            assert await other.status() == 503, "there is room for one of them"
        assert (await genuine(base, http, signing[0], "1"))[0] == 200, "a provider's body finds room of its own"
        assert asked.held == 400_000
    answer = await waiting
    assert answer.status == 200
    await answer.read()
    await until(asked, 0)


async def test_of_one_key_twenty_bodies_of_a_megabyte_are_taken_at_once_and_half_the_room_is_left_to_others(app: web.Application) -> None:
    asked = app[ASKED]
    async with AsyncExitStack() as stack:
        for _ in range(20):
            asked.grow(await stack.enter_async_context(asked.arriving("one")), 1_000_000)
        async with asked.arriving("two") as other:
            asked.grow(other, guard.SHARE)
            with pytest.raises(Busy):
                asked.grow(other, 1)


async def test_what_is_held_goes_up_and_down() -> None:
    arrivals = Arrivals(most=10, share=10, gives_way=largest)
    async with arrivals.arriving("one") as row:
        for size in (3, 9, 0, 10):
            arrivals.hold(row, size)
            assert arrivals.held == size
        with pytest.raises(Busy):
            arrivals.hold(row, 11)
    assert arrivals.held == 0
