"""Five providers at the service's own door, over real HTTP and PostgreSQL: what they post, what it changes, and what is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from aiohttp import ClientSession, web

from mailprefs import numbers
from mailprefs.catalogue import Account, Catalogue
from mailprefs.links import KeyRing
from mailprefs.providers import CHANNELS
from mailprefs.providers.base import Delivery
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web import wire

from .cases import Case, case_of

NAMES = ("brevo", "mailgun", "mailjet", "postmark", "sparkpost")
UNSUBSCRIBED = {  # the event of a recipient who left, and the scope that it stops: all marketing, or the topic that the account maps
    "brevo": ("unsubscribe", 257),
    "mailgun": ("unsubscribed", 257),
    "mailjet": ("unsub", 272),
    "postmark": ("SubscriptionChange/ManualSuppression/Recipient", 272),
    "sparkpost": ("list_unsubscribe", 257),
}
LEFT = {"mailjet": "1"}  # the group that was left, where the payload names one


def account(case: Case) -> Account:
    secrets = {name: f"{case.provider.name}_{name}".upper() for name in case.credential.secrets}
    return Account(
        name=f"{case.provider.name}-main",
        provider=case.provider.name,
        brand="connective",
        secrets=secrets,
        **{**case.credential.options, "scopes": {"newsletter": LEFT.get(case.provider.name, case.credential.groups[0])}},
    )


@pytest.fixture
async def base(shared_catalogue: Catalogue, ring: KeyRing, conn: asyncpg.Connection, database: str) -> AsyncIterator[str]:
    """The URL of a service with one account of each."""
    cases = [case_of(name) for name in NAMES]
    accounts = tuple(map(account, cases))
    lent = {one.secrets[name]: case.credential.secrets[name] for one, case in zip(accounts, cases, strict=True) for name in one.secrets}
    catalogue = shared_catalogue.model_copy(update={"account": accounts})
    await numbers.register(conn, catalogue, [key.id for key in ring.keys], CHANNELS, now=datetime.now(UTC))
    runner = wire.runner(service.create_app(Settings().lending(lent), catalogue, ring, database_url=database))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def answered(base: str, case: Case, *deliveries: Delivery) -> set[tuple[int, str | None]]:
    """Post what the provider would, and return the statuses, each with what it asks for."""
    found = set()
    async with ClientSession() as http:
        for delivery in deliveries:
            headers = [(name, value) for name, value in delivery.headers if name != "Host"]
            async with http.post(f"{base}/hooks/{case.provider.name}-main", data=delivery.body, headers=headers) as answer:
                found.add((answer.status, answer.headers.get("WWW-Authenticate")))
    return found


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


async def test_who_left_is_stopped_there_once_however_often_it_is_told(case: Case, base: str, conn: asyncpg.Connection) -> None:
    word, scope = UNSUBSCRIBED[case.provider.name]
    delivery = case.sign(case.body([case.documented[word]]))
    assert await answered(base, case, delivery, delivery, delivery) == {(case.provider.answers.kept, None)}
    assert [list(row["stops"]) for row in await conn.fetch("select stops from address where stops is not null")] == [[scope]]
    assert await conn.fetchval("select count(*) from consent") == 1


async def test_a_stop_beside_half_an_emoji_stops_and_is_kept_aside(case: Case, base: str, conn: asyncpg.Connection) -> None:
    word, scope = UNSUBSCRIBED[case.provider.name]
    delivery = case.sign(case.body([case.documented[word].replace(b"{", b'{"x": "\\ud83d", ', 1)]))
    assert await answered(base, case, delivery, delivery) == {(case.provider.answers.kept, None)}
    assert [list(row["stops"]) for row in await conn.fetch("select stops from address where stops is not null")] == [[scope]]
    assert [row["reason"] for row in await conn.fetch("select reason from event")] == ["unreadable"]


async def test_whoever_proves_nothing_changes_nothing_and_is_asked(case: Case, base: str, conn: asyncpg.Connection) -> None:
    body = case.body([case.tokened])
    challenge = case.provider.answers.challenge.get("WWW-Authenticate")
    unsigned = Delivery([("Content-Type", "application/json")], body, case.sign(body).received_at)
    assert await answered(base, case, case.sign_strange(body), unsigned, replace(unsigned, body=b"")) == {(401, challenge)}
    assert (challenge is None) is (case.provider.name == "mailgun")  # it proves what it posts, the others are known by a password
    assert await conn.fetchval("select count(*) from consent") == 0
    assert await answered(base, case, case.sign(body)) == {(200, None)}  # the control


async def test_all_that_is_documented_is_kept_and_nothing_lifts(case: Case, base: str, conn: asyncpg.Connection) -> None:
    told = [case.sign(body) for body in case.bodies(list(case.documented.values()))]
    if case.provider.name == "mailgun":
        told = told[3:4]  # each of the others would want a proof of its own
    assert await answered(base, case, *told) == {(200, None)}
    [stops] = [list(row["stops"]) for row in await conn.fetch("select stops from address where stops is not null")]
    assert stops[0] == 0  # a hard bounce was among them, and what came back behind it lifted nothing
    assert await conn.fetchval("select count(*) from event") == 0


async def test_what_cannot_be_read_is_kept_with_the_same_answer(case: Case, base: str, conn: asyncpg.Connection) -> None:
    assert await answered(base, case, case.sign(case.body([case.unknown]))) == {(200, None)}
    assert await conn.fetchval("select reason from event") == "unknown_kind"
    assert await conn.fetchval("select count(*) from consent") == 0


async def test_a_proof_of_mailguns_stops_no_second_person(base: str, conn: asyncpg.Connection) -> None:
    case = case_of("mailgun")
    first = case.sign(case.body([case.documented["unsubscribed"]]))
    second = replace(first, body=first.body.replace(b"alex@", b"sam@"))
    assert await answered(base, case, first) == {(200, None)}
    assert await answered(base, case, second) == {(401, None)}
    assert await answered(base, case, first) == {(200, None)}
    assert await conn.fetchval("select count(*) from consent") == 1
