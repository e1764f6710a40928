"""What applications and marketing get, and what nobody gets without a key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

import asyncpg
import pytest
from aiohttp import ClientSession

from mailprefs import apikeys, ledger
from mailprefs.addresses import Addresses
from mailprefs.apikeys import Power
from mailprefs.catalogue import Catalogue
from mailprefs.words import Cause, Change, Door, Effect

ROUTES = (
    ("POST", "/v1/links"),
    ("POST", "/v1/decisions"),
    ("GET", "/v1/audiences/connective/newsletter"),
    ("POST", "/v1/addresses/lookup"),
    ("GET", "/v1/addresses/00000000-0000-0000-0000-000000000000"),
)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nobody_gets_in_without_a_key_of_that_power(
    base: str, http: ClientSession, conn: asyncpg.Connection, now: datetime, method: str, path: str
) -> None:
    _, weak = await apikeys.issue(conn, [Power.OPERATE], "weak", now=now)
    ended, revoked = await apikeys.issue(conn, list(Power), "revoked", now=now)
    await apikeys.revoke(conn, ended, now=now)
    for header, status in (
        ({}, 401),
        ({"Authorization": "Bearer mp_00000000_" + "x" * 43}, 401),
        ({"Authorization": "Basic eA=="}, 401),
        ({"Authorization": f"Bearer {revoked}"}, 401),
        ({"Authorization": f"Bearer {weak}"}, 403),
    ):
        async with http.request(method, base + path, headers=header) as answer:
            assert answer.status == status
            assert answer.content_type == "application/problem+json"


async def test_decisions_come_in_order_with_their_reasons(
    base: str, http: ClientSession, conn: asyncpg.Connection, addresses: Addresses, bearer: dict[str, str], now: datetime
) -> None:
    stop = Change(addresses.read("jane@example.org"), 257, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(conn, [stop], now=now)
    pairs = [{"address": "JANE@example.org", "topic": topic} for topic in ("newsletter", "orders", "connective/partners", "nothing")]
    pairs.append({"address": "joe@example.org", "topic": "newsletter"})
    async with http.post(f"{base}/v1/decisions", json={"pairs": pairs}, headers=bearer) as answer:
        decisions = (await answer.json())["decisions"]
    assert [d["allowed"] for d in decisions] == [False, True, False, False, True]
    assert decisions[0]["reasons"] == [{"scope": "connective/marketing", "cause": "choice", "since": now.isoformat(), "until": None}]
    assert [r["cause"] for r in decisions[2]["reasons"]] == ["choice", "consent_missing"]
    assert [r["cause"] for r in decisions[3]["reasons"]] == ["unknown_topic"]


async def test_an_audience_holds_exactly_the_allowed(
    base: str, http: ClientSession, conn: asyncpg.Connection, addresses: Addresses, bearer: dict[str, str], now: datetime
) -> None:
    people = [addresses.read(f"p{n}@example.org") for n in range(10)]
    for person in people:
        await conn.execute(
            "insert into address (bucket, key, channel, plaintext, locale) values ($1, $2, 'email', $3, 'en')",
            person.bucket, person.key, person.text,
        )  # fmt: skip
    await ledger.record(conn, [Change(p, 272, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now) for p in people[:4]], now=now)
    async with http.get(f"{base}/v1/audiences/connective/newsletter?columns=address,locale", headers=bearer) as answer:
        lines = (await answer.text()).splitlines()
    assert lines[0] == "address,locale"
    assert sorted(lines[1:]) == [f"p{n}@example.org,en" for n in range(4, 10)]
    async with http.get(f"{base}/v1/audiences/connective/newsletter?format=ndjson", headers=bearer) as answer:
        assert sorted((await answer.text()).splitlines()) == [f'{{"address":"p{n}@example.org"}}' for n in range(4, 10)]
    for wrong, status in (
        ("connective/nothing", 404),
        ("connective/newsletter?columns=key", 404),
        ("connective/newsletter?format=xml", 400),
    ):
        async with http.get(f"{base}/v1/audiences/{wrong}", headers=bearer) as answer:
            assert answer.status == status


@pytest.mark.parametrize(
    "sent", [b"", b"{", b"[]", b'{"pairs":[{"address":1,"topic":"x"}]}', b'{"pairs":[],"more":1}', b"\xff", b'{"pairs":NaN}']
)
async def test_bad_input_is_told_what_is_wrong_and_never_repeated(
    base: str, http: ClientSession, bearer: dict[str, str], sent: bytes
) -> None:
    async with http.post(f"{base}/v1/decisions", data=sent, headers=bearer) as answer:
        assert answer.status == 400
        assert (await answer.json())["type"] == "/docs/errors/unreadable"


async def test_links_minted_over_http_stop_mail(base: str, http: ClientSession, conn: asyncpg.Connection, bearer: dict[str, str]) -> None:
    asked = {"topic": "newsletter", "addresses": ["jane@example.org"]}
    async with http.post(f"{base}/v1/links", json=asked, headers=bearer) as answer:
        minted = (await answer.json())["links"][0]
    assert minted["headers"]["List-Unsubscribe"].startswith(f"<{minted['url']}>, <mailto:")
    async with http.post(base + minted["url"].removeprefix("https://go.example.com"), data=b"") as answer:
        assert answer.status == 200
    assert await conn.fetchval("select stops from address") == [272]
    async with http.post(f"{base}/v1/links", json={**asked, "topic": "orders"}, headers=bearer) as answer:
        assert answer.status == 422


async def test_why_never_puts_an_address_into_a_url(base: str, http: ClientSession, conn: asyncpg.Connection, addresses: Addresses,
                                                    bearer: dict[str, str], now: datetime) -> None:  # fmt: skip
    stop = Change(addresses.read("jane@example.org"), 272, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(conn, [stop], now=now)
    async with http.post(f"{base}/v1/addresses/lookup", json={"address": "jane@example.org"}, headers=bearer) as answer:
        key = (await answer.json())["key"]
    async with http.get(f"{base}/v1/addresses/{key}", headers=bearer) as answer:
        whole = await answer.json()
    assert next(d["topic"] for d in whole["decisions"] if not d["allowed"]) == "connective/newsletter"
    assert whole["history"][0]["evidence"] == "link:1"
    assert [t["account"] for t in whole["told"]] == ["sendgrid-main", "sendgrid-second"]
    async with http.get(f"{base}/v1/addresses/{key}?chanel=sms", headers=bearer) as answer:
        assert answer.status == 400


async def test_a_text_that_spells_no_address_is_a_doubt_and_for_marketing_a_no(
    base: str, http: ClientSession, bearer: dict[str, str]
) -> None:
    odd = ("Ann <ann@example.com>", "mailto:ann@example.com", "garbage", "ann@example.com.")
    pairs = [{"address": text, "topic": topic} for text in odd for topic in ("newsletter", "orders")]
    async with http.post(f"{base}/v1/decisions", json={"pairs": pairs}, headers=bearer) as answer:
        decisions = (await answer.json())["decisions"]
    assert [decision["allowed"] for decision in decisions] == [False, True] * len(odd)
    assert {reason["cause"] for decision in decisions for reason in decision["reasons"]} == {"unreadable"}


async def test_a_scope_that_is_not_there_is_answered_without_those_that_are(
    base: str, http: ClientSession, bearer: dict[str, str], shared_catalogue: Catalogue
) -> None:
    topics = {topic.name for topic in shared_catalogue.topics} | {topic.name.partition("/")[2] for topic in shared_catalogue.topics}
    for method, path, sent in (
        ("POST", "/v1/links", {"topic": "nothing", "addresses": []}),
        ("GET", "/v1/audiences/connective/nothing", None),
        ("GET", "/v1/audiences/connective/marketing", None),
    ):
        async with http.request(method, base + path, json=sent, headers=bearer) as answer:
            assert answer.status == 404
            said = await answer.text()
        assert not [topic for topic in topics if topic in said]
        assert "brand/topic" in said


INTERNATIONAL = "é{n}" + "ü" * 20 + "@" + ".".join(["ñandú" * 3] * 8) + "{n}.example.com"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/links", lambda texts: {"topic": "newsletter", "addresses": texts}),
        ("/v1/decisions", lambda texts: {"pairs": [{"address": text, "topic": "newsletter"} for text in texts]}),
    ],
)
async def test_odd_addresses_by_the_thousand_hold_up_nobody(
    base: str, http: ClientSession, bearer: dict[str, str], path: str, asked: Callable[[list[str]], object]
) -> None:
    texts = [INTERNATIONAL.format(n=n) for n in range(1_000)]

    async def called() -> float:
        began = time.monotonic()
        async with http.post(base + path, json=asked(texts), headers=bearer) as answer:
            assert answer.status == 200
            assert len(next(each for each in (await answer.json()).values() if isinstance(each, list))) == len(texts)
        return time.monotonic() - began

    async def longest_wait() -> float:
        """How much of that work somebody else had to wait for at most."""
        waits = []
        call = asyncio.create_task(called())
        while not call.done():
            began = time.monotonic()
            async with http.get(f"{base}/healthz") as answer:
                assert answer.status == 200
            waits.append(time.monotonic() - began)
        took = await call
        assert took > 0.3, "the control: it is long work"
        return max(waits) / took

    shares = [await longest_wait()]
    while shares[-1] >= 1 / 3 and len(shares) < 6:  # a busy machine stalls now and then; work in one piece would each time
        shares.append(await longest_wait())
    assert min(shares) < 1 / 3
