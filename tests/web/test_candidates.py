"""A file of candidates goes in and comes out at one pace, and whoever hangs up holds nothing."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import asyncpg
import pytest
from aiohttp import ClientError, ClientSession, FormData
from backports import zstd

from mailprefs import apikeys, ledger
from mailprefs.addresses import Addresses
from mailprefs.apikeys import Power
from mailprefs.words import Cause, Change, Door, Effect

PATH = "/v1/audiences/connective/newsletter/filter"
ROWS = 'note,address\r\n"a, b",jane@example.org\r\nx,Joe@Example.org\r\ny,no address\r\nz,kim@example.org\r\n'
LEFT = "connective/newsletter:choice"
NOWHERE = "connective/newsletter:unreadable"


@pytest.fixture
async def left(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    stop = Change(addresses.read("joe@example.org"), 272, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(conn, [stop], now=now)


async def test_the_allowed_come_back_as_they_came_and_the_denied_with_reasons(
    base: str, http: ClientSession, bearer: dict[str, str], left: None
) -> None:
    async with http.post(base + PATH, data=ROWS, headers=bearer) as answer:
        assert (answer.status, answer.content_type) == (200, "text/csv")
        assert await answer.text() == 'note,address\n"a, b",jane@example.org\r\nz,kim@example.org\r\n'
    async with http.post(f"{base}{PATH}?rows=denied", data=ROWS, headers=bearer) as answer:
        assert await answer.text() == f"note,address,reasons\nx,Joe@Example.org,{LEFT}\ny,no address,{NOWHERE}\n"
    async with http.post(f"{base}{PATH}?rows=all", data=ROWS, headers=bearer) as answer:
        found = list(csv.DictReader(io.StringIO(await answer.text(), newline="")))
    assert [(row["note"], row["reasons"]) for row in found] == [("a, b", ""), ("x", LEFT), ("y", NOWHERE), ("z", "")]


async def test_ndjson_is_answered_as_ndjson_and_another_column_can_hold_the_address(
    base: str, http: ClientSession, bearer: dict[str, str], left: None
) -> None:
    rows: list[dict[str, object]] = [{"mail": "jane@example.org", "n": [1]}, {"mail": "joe@example.org"}, {"n": 3}]
    body = "".join(json.dumps(row) + "\n" for row in rows)
    async with http.post(f"{base}{PATH}?column=mail&rows=all", data=body, headers=bearer) as answer:
        assert answer.content_type == "application/x-ndjson"
        found = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert found == [{**row, "reasons": why} for row, why in zip(rows, ["", LEFT, NOWHERE], strict=True)]


async def test_numbers_that_no_float_holds_come_back_as_they_came(
    base: str, http: ClientSession, bearer: dict[str, str], left: None
) -> None:
    body = "".join(f'{{"address":"{name}@example.org","n":1e400,"price":1.50}}\n' for name in ("jane", "joe"))
    async with http.post(f"{base}{PATH}?rows=all", data=body, headers=bearer) as answer:
        found = (await answer.text()).splitlines()
    assert found == [f'{line[:-1]}, "reasons": "{why}"}}' for line, why in zip(body.splitlines(), ["", LEFT], strict=True)]


@pytest.mark.parametrize("key", ["email", "Email Address", "post"])
async def test_a_column_that_is_obviously_meant_is_read_and_nobody_is_denied_for_want_of_one(
    base: str, http: ClientSession, bearer: dict[str, str], left: None, key: str
) -> None:
    for body in (f"{json.dumps({key: 'jane@example.org'})}\n", f"{key},n\njane@example.org,1\n"):
        async with http.post(base + PATH, data=body, headers=bearer) as answer:
            assert answer.status == (400 if key == "post" else 200)
            assert (await answer.text() == body) is (key != "post")


async def test_a_form_is_told_how_a_file_is_sent(base: str, http: ClientSession, bearer: dict[str, str]) -> None:
    async with http.post(base + PATH, data=FormData({"file": io.BytesIO(ROWS.encode())}), headers=bearer) as answer:
        assert answer.status == 400
        assert "send the file itself" in (await answer.json())["detail"]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
async def test_a_packed_body_is_unpacked_and_one_that_breaks_off_is_no_answer(
    base: str, http: ClientSession, bearer: dict[str, str], left: None, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    head, _, rest = ROWS.partition("\n")
    whole = pack(f"{head}\n".encode()) + pack(rest.encode())  # two archives behind each other are one file
    headers = {**bearer, "Content-Encoding": encoding}
    async with http.post(base + PATH, data=whole, headers=headers) as answer:
        assert await answer.text() == 'note,address\n"a, b",jane@example.org\r\nz,kim@example.org\r\n'
    async with http.post(base + PATH, data=whole[:-5], headers=headers) as answer:
        assert answer.status == 200
        with pytest.raises(ClientError):
            await answer.text()
    async with http.post(base + PATH, data=b"oops", headers=headers) as answer:
        assert answer.status == 400


@pytest.mark.parametrize(
    ("body", "query", "status"),
    [
        ("name\nx\n", "", 400),
        ("", "", 400),
        ("PAR1....", "", 400),
        ("address\n", "?rows=some", 400),
        ("address\n", "?colum=post", 400),
        ("address,reasons\n", "?rows=all", 400),
        ("address,reasons\n", "?rows=allowed&column=address", 200),
        ("address\n", "", 200),
    ],
)
async def test_what_cannot_be_read_is_refused(
    base: str, http: ClientSession, bearer: dict[str, str], body: str, query: str, status: int
) -> None:
    async with http.post(f"{base}{PATH}{query}", data=body, headers=bearer) as answer:
        assert answer.status == status


async def test_an_unknown_topic_is_not_there(base: str, http: ClientSession, bearer: dict[str, str]) -> None:
    async with http.post(f"{base}/v1/audiences/connective/nothing/filter", data="address\n", headers=bearer) as answer:
        assert answer.status == 404


async def test_the_answer_comes_while_the_question_is_still_being_sent(
    base: str, http: ClientSession, bearer: dict[str, str], left: None, conn: asyncpg.Connection
) -> None:
    more = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"address\njane@example.org\n"
        await more.wait()
        yield b"joe@example.org\nkim@example.org\n"

    async with http.post(base + PATH, data=body(), headers=bearer) as answer:
        assert await answer.content.readline() == b"address\n"
        assert await answer.content.readline() == b"jane@example.org\n"
        busy = "select count(*) from pg_stat_activity where datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()"
        assert await conn.fetchval(busy) == 0, "no connection is held while the client thinks"
        more.set()
        assert await answer.content.read() == b"kim@example.org\n"


async def test_who_does_not_read_the_answer_is_not_read_either(base: str, bearer: dict[str, str]) -> None:
    """Back-pressure: with nobody to take the answer, the service takes a bounded part of the question."""
    host, port = base.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((host, int(port)))
    _, writer = await asyncio.open_connection(sock=sock, limit=1024)
    lines = b"".join(b"p%d@example.org\n" % n for n in range(3000))
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer['Authorization']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode() + b"8\r\naddress\n\r\n")
    sent = 0
    try:
        while sent < 32 << 20:
            writer.write(b"%x\r\n%b\r\n" % (len(lines), lines))
            async with asyncio.timeout(0.5):
                await writer.drain()
            sent += len(lines)
    except TimeoutError:
        pass
    finally:
        writer.transport.abort()
    assert 0 < sent < 24 << 20


async def test_nobody_filters_without_a_key_for_exports(base: str, http: ClientSession, conn: asyncpg.Connection, now: datetime) -> None:
    _, weak = await apikeys.issue(conn, [Power.DECIDE], "weak", now=now)
    doors: list[tuple[dict[str, str], int]] = [({}, 401), ({"Authorization": f"Bearer {weak}"}, 403)]
    for headers, status in doors:
        async with http.post(base + PATH, data=ROWS, headers=headers) as answer:
            assert answer.status == status


@pytest.mark.parametrize("body", [(b"\x50\x2a\x4d\x18" + bytes(4)) * 20_000, b"".join([gzip.compress(b"")] * 5_000)], ids=["zstd", "gzip"])
async def test_a_body_of_nothing_but_archives_is_refused(base: str, http: ClientSession, bearer: dict[str, str], body: bytes) -> None:
    headers = {**bearer, "Content-Encoding": "gzip" if body.startswith(b"\x1f") else "zstd"}
    async with http.post(f"{base}{PATH}", data=body, headers=headers) as answer:
        assert answer.status in (400, 422)
        assert "archives" in await answer.text()


async def test_a_packed_body_takes_no_more_memory_than_a_window_in_http_may(base: str, http: ClientSession, bearer: dict[str, str]) -> None:
    for level, status in ((19, 200), (20, 400)):  # of which the first has a window of 8 MiB, where the length is not known
        packer = zstd.ZstdCompressor(level)
        body = packer.compress(ROWS.encode()) + packer.flush()
        async with http.post(base + PATH, data=body, headers={**bearer, "Content-Encoding": "zstd"}) as answer:
            assert answer.status == status
            assert ("8 MiB" in await answer.text()) is (status == 400)


async def test_a_packed_body_that_does_not_say_so_is_told_how_to(
    base: str, http: ClientSession, bearer: dict[str, str], left: None
) -> None:
    for body in (gzip.compress(ROWS.encode()), zstd.compress(ROWS.encode())):
        async with http.post(base + PATH, data=body, headers=bearer) as answer:
            assert answer.status == 400
            assert "with Content-Encoding: gzip or zstd" in (await answer.json())["detail"]
