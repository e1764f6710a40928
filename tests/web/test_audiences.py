"""Audiences over HTTP: as they are asked for, streamed, and held for nobody who has gone."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
from datetime import datetime

import asyncpg
import pytest
from aiohttp import ClientSession
from backports import zstd

from mailprefs.addresses import Addresses
from mailprefs.directory import Entry, know
from mailprefs.spelling import MINTED

AUDIENCE = "/v1/audiences/connective/newsletter"
RUNNING = """select count(*) from pg_stat_activity
             where datname = current_database() and application_name = 'mailprefs exports' and state = 'active'"""


@pytest.fixture
async def people(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> list[str]:
    found = sorted(f"p{n}@example.org" for n in range(50))
    await know(conn, [Entry(addresses.read(text), "en", "US", "=1") for text in found], now=now)
    return found


def texts(body: bytes) -> list[str]:
    return sorted(body.decode().splitlines()[1:])


async def test_a_file_is_packed_as_it_is_asked_for(base: str, http: ClientSession, bearer: dict[str, str], people: list[str]) -> None:
    plain = {**bearer, "Accept-Encoding": "identity"}
    for packing, unpack, media in (("gzip", gzip.decompress, "application/gzip"), ("zstd", zstd.decompress, "application/zstd")):
        async with http.get(f"{base}{AUDIENCE}?compress={packing}", headers=plain) as answer:
            assert (answer.content_type, answer.headers.get("Content-Encoding")) == (media, None)
            assert answer.headers["Content-Disposition"].endswith('.csv.gz"' if packing == "gzip" else '.csv.zst"')
            assert texts(unpack(await answer.read())) == people
    async with http.get(base + AUDIENCE, headers=plain) as answer:
        assert (answer.content_type, answer.headers.get("Content-Encoding")) == ("text/csv", None)
        assert texts(await answer.read()) == people


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, zstd", "zstd"),
        ("zstd;q=0, gzip;q=0.5", "gzip"),
        ("br", None),
        ("gzip; q=0", None),
        ("gzip;q=0.000", None),
        ("gzip; Q=0", None),
    ],
)
async def test_what_a_client_unpacks_by_itself_is_packed_on_the_way(
    base: str, bearer: dict[str, str], people: list[str], accepted: str, encoding: str | None
) -> None:
    async with (
        ClientSession(auto_decompress=False) as http,
        http.get(base + AUDIENCE, headers={**bearer, "Accept-Encoding": accepted}) as answer,
    ):
        assert answer.content_type == "text/csv"
        assert answer.headers.get("Content-Encoding") == encoding
        body = await answer.read()
    assert texts({"gzip": gzip.decompress, "zstd": zstd.decompress}.get(str(encoding), bytes)(body)) == people


async def test_links_come_in_the_same_stream(base: str, http: ClientSession, bearer: dict[str, str], people: list[str]) -> None:
    async with http.get(f"{base}{AUDIENCE}?links=1", headers=bearer) as answer:
        rows = list(csv.DictReader(io.StringIO(await answer.text())))
    assert sorted(row["address"] for row in rows) == people
    assert list(rows[0]) == ["address", *MINTED]
    async with http.post(base + rows[0]["url"].removeprefix("https://go.example.com"), data=b"") as answer:
        assert answer.status == 200
    async with http.get(f"{base}{AUDIENCE}?format=ndjson&columns=address,url", headers=bearer) as answer:
        left = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert sorted(row["address"] for row in left) == sorted(set(people) - {rows[0]["address"]}), "and the link stops mail"


async def test_parquet_and_the_variant_for_a_spreadsheet(base: str, http: ClientSession, bearer: dict[str, str], people: list[str]) -> None:
    async with http.get(f"{base}{AUDIENCE}?spreadsheet=1&columns=address,party", headers=bearer) as answer:
        assert ".lossy.csv" in answer.headers["Content-Disposition"]
        assert "'=1" in await answer.text()
    async with http.get(f"{base}{AUDIENCE}?format=parquet", headers=bearer) as answer:
        body = await answer.read()
    assert body[:4] == body[-4:] == b"PAR1"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("format=parquet&compress=gzip", 400),
        ("compress=br", 400),
        ("spreadsheet=1&format=ndjson", 400),
        ("columns=url,address", 404),
        ("chanel=sms", 400),
    ],
)
async def test_what_does_not_go_together_is_refused(
    base: str, http: ClientSession, bearer: dict[str, str], query: str, status: int
) -> None:
    async with http.get(f"{base}{AUDIENCE}?{query}", headers=bearer) as answer:
        assert answer.status == status
    async with http.get(f"{base}/v1/audiences/connective/orders?links=1", headers=bearer) as answer:
        assert answer.status == 422


async def test_who_hangs_up_frees_its_connection_at_once(
    base: str, http: ClientSession, conn: asyncpg.Connection, database: str, bearer: dict[str, str], people: list[str]
) -> None:
    """Even while nothing is sent to it: one transaction holds the table, so no row can come."""
    holding = await asyncpg.connect(database)

    async def until(running: int) -> float:
        began = asyncio.get_running_loop().time()
        while await conn.fetchval(RUNNING) != running:
            assert asyncio.get_running_loop().time() - began < 30
            await asyncio.sleep(0.01)
        return asyncio.get_running_loop().time() - began

    async with holding.transaction():
        await holding.execute("lock table address in access exclusive mode")
        answer = await http.get(base + AUDIENCE, headers=bearer)  # its head; no row can come
        await until(1)
        answer.close()
        assert await until(0) < 10  # the table is held for as long as we please
    await holding.close()
    async with http.get(base + AUDIENCE, headers=bearer) as answer:
        assert texts(await answer.read()) == people, "and the pool is whole"
