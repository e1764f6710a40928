"""Providers that greet, that want words of their own back, or that name people by ids, from their posts to what they change."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from aiohttp import ClientResponse, ClientSession, web
from aiohttp.test_utils import TestServer

from mailprefs import catalogue, numbers
from mailprefs.addresses import Addresses
from mailprefs.links import KeyRing
from mailprefs.providers import CHANNELS
from mailprefs.providers.base import Delivery
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web import wire

from . import case_customerio, case_klaviyo, case_mailchimp, case_mandrill, case_twilio
from .cases import PAYLOADS
from .posting import fields_of

CATALOGUE = (Path(__file__).parent.parent / "catalogue.toml").read_text(encoding="utf-8").partition("[[account]]")[0]
BRAND, MARKETING, NEWSLETTER = 256, 257, 272
ACCOUNTS = f"""
[[account]]
name = "twilio-main"
provider = "twilio"
brand = "connective"
secrets = {{ auth_token = "TWILIO_AUTH_TOKEN" }}
public_url = "{case_twilio.URL}"
stops = "connective"

[[account]]
name = "mandrill-main"
provider = "mandrill"
brand = "connective"
secrets = {{ webhook_key = "MANDRILL_WEBHOOK_KEY" }}
public_url = "{case_mandrill.URL}"

[[account]]
name = "mailchimp-main"
provider = "mailchimp"
brand = "connective"
secrets = {{ url_secret = "MAILCHIMP_URL_SECRET", api_key = "MAILCHIMP_API_KEY" }}
scopes = {{ newsletter = "a6b5da1054" }}

[[account]]
name = "customerio-main"
provider = "customerio"
brand = "connective"
secrets = {{ webhook_key = "CUSTOMERIO_WEBHOOK_KEY", site_id = "CIO_SITE", api_key = "CIO_KEY", app_key = "CIO_APP_KEY" }}
scopes = {{ newsletter = "topic_7" }}

[[account]]
name = "klaviyo-main"
provider = "klaviyo"
brand = "connective"
secrets = {{ webhook_secret = "KLAVIYO_WEBHOOK_SECRET", api_key = "KLAVIYO_API_KEY" }}
api_base = "KLAVIYO"
"""
SECRETS = {
    "TWILIO_AUTH_TOKEN": case_twilio.TOKEN,
    "MANDRILL_WEBHOOK_KEY": case_mandrill.KEY,
    "MAILCHIMP_URL_SECRET": case_mailchimp.FIRST["url_secret"],
    "MAILCHIMP_API_KEY": case_mailchimp.API_KEY,
    "CUSTOMERIO_WEBHOOK_KEY": case_customerio.KEY,
    "CIO_SITE": case_customerio.SECRETS["site_id"],
    "CIO_KEY": case_customerio.SECRETS["api_key"],
    "CIO_APP_KEY": case_customerio.SECRETS["app_key"],
    "KLAVIYO_WEBHOOK_SECRET": case_klaviyo.KEY,
    "KLAVIYO_API_KEY": case_klaviyo.API_KEY,
}


class Klaviyo:
    """Klaviyo's profiles over real HTTP, while it is there."""

    away = False

    async def profile(self, _: web.Request) -> web.Response:
        if self.away:
            return web.Response(status=503)
        body = (PAYLOADS / "klaviyo" / "profile.json").read_bytes()
        return web.Response(body=body, content_type="application/vnd.api+json")


@pytest.fixture
async def klaviyo() -> Klaviyo:
    return Klaviyo()


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    runner = wire.runner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def base(klaviyo: Klaviyo, ring: KeyRing, conn: asyncpg.Connection, database: str) -> AsyncIterator[str]:
    """The URL of a service that hears the accounts."""
    profiles = web.Application()
    profiles.router.add_get("/api/profiles/{id}", klaviyo.profile)
    async with TestServer(profiles, host="127.0.0.1") as provider:
        accounts = ACCOUNTS.replace('"KLAVIYO"', f'"{provider.make_url("")}"')
        known = catalogue.parse(CATALOGUE + accounts)
        await numbers.register(conn, known, [key.id for key in ring.keys], CHANNELS, now=datetime.now(UTC))
        async with served(service.create_app(Settings().lending(SECRETS), known, ring, database_url=database)) as url:
            yield url


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


async def post(http: ClientSession, base: str, account: str, delivery: Delivery, query: str = "") -> tuple[int, bytes, str]:
    async with http.post(f"{base}/hooks/{account}{query}", data=delivery.body, headers=dict(delivery.headers)) as answer:
        return answer.status, await answer.read(), answer.content_type


async def stops(conn: asyncpg.Connection, addresses: Addresses, text: str) -> Sequence[int]:
    address = addresses.heard(text)
    return await conn.fetchval("select stops from address where bucket = $1 and key = $2", address.bucket, address.key) or []


def text(n: int, body: str, **more: str) -> Delivery:
    told = {"MessageSid": f"SM{n}", "From": "+12025550123", "To": "+12025550100", "Body": body, **more}
    return case_twilio.CASE.sign(fields_of([json.dumps(told).encode()]))


async def test_stop_by_text_stops_what_the_account_names_and_start_takes_just_that_back(
    base: str, http: ClientSession, conn: asyncpg.Connection, addresses: Addresses
) -> None:
    empty = (200, b"<Response/>", "text/xml")
    assert await post(http, base, "twilio-main", text(1, "Stop")) == empty
    assert await post(http, base, "twilio-main", text(1, "Stop")) == empty
    assert await stops(conn, addresses, "+12025550123") == [BRAND]
    assert await post(http, base, "twilio-main", text(2, "Help")) == empty
    assert await post(http, base, "twilio-main", text(3, "Thanks")) == empty
    assert await stops(conn, addresses, "+12025550123") == [BRAND]
    assert await post(http, base, "twilio-main", text(4, "Start", From="+12025550124")) == empty  # another number's
    assert await stops(conn, addresses, "+12025550123") == [BRAND]
    assert await post(http, base, "twilio-main", text(5, "Start")) == empty
    assert await stops(conn, addresses, "+12025550123") == []
    assert await post(http, base, "twilio-main", text(1, "Stop")) == empty  # the first one once more
    assert await stops(conn, addresses, "+12025550123") == []
    assert await post(http, base, "twilio-main", text(6, "Stop")) == empty
    assert await stops(conn, addresses, "+12025550123") == [BRAND]


async def test_a_stop_in_other_words_is_kept_for_staff(base: str, http: ClientSession, conn: asyncpg.Connection) -> None:
    assert (await post(http, base, "twilio-main", text(1, "Please stop texting me")))[0] == 200
    assert await conn.fetchval("select count(*) from consent") == 0
    assert [row["reason"] for row in await conn.fetch("select reason from event")] == ["revocation"]


async def test_what_a_provider_tries_an_address_with_is_answered_and_changes_nothing(
    base: str, http: ClientSession, conn: asyncpg.Connection
) -> None:
    async def status(method: str, account: str) -> int:
        answer: ClientResponse
        async with http.request(method, f"{base}/hooks/{account}") as answer:
            return answer.status

    assert [await status("HEAD", "mandrill-main"), await status("GET", "mandrill-main")] == [200, 405]
    assert [await status("HEAD", "mailchimp-main"), await status("GET", "mailchimp-main")] == [200, 200]
    assert [await status("HEAD", "twilio-main"), await status("GET", "klaviyo-main")] == [405, 405]
    assert await conn.fetchval("select count(*) from event") == 0


async def test_a_complaint_at_mandrill_stops_marketing(
    base: str, http: ClientSession, conn: asyncpg.Connection, addresses: Addresses
) -> None:
    event = b'{"event": "spam", "ts": 1763801234, "msg": {"email": "alex@example.com"}, "_id": "m"}'
    case = case_mandrill.CASE
    assert (await post(http, base, "mandrill-main", case.sign(case.body([event])), "?x=1"))[
        0
    ] == 200  # what is signed is the public address
    assert await stops(conn, addresses, "alex@example.com") == [MARKETING]
    assert (await post(http, base, "mandrill-main", case.sign_strange(case.body([event]))))[0] == 401


async def test_who_leaves_an_audience_at_mailchimp_leaves_its_topic(
    base: str, http: ClientSession, conn: asyncpg.Connection, addresses: Addresses
) -> None:
    case = case_mailchimp.CASE
    delivery = case.sign(case.body([case.documented["unsubscribe"]]))
    for query, status in (
        ("", 401),
        ("?secret=another-secret-of-the-address", 401),
        (f"?secret={case_mailchimp.FIRST['url_secret']}", 200),
    ):
        assert (await post(http, base, "mailchimp-main", delivery, query))[0] == status
    assert await stops(conn, addresses, "left@example.com") == [NEWSLETTER]


async def test_each_topic_turned_off_at_customerio_is_left(
    base: str, http: ClientSession, conn: asyncpg.Connection, addresses: Addresses
) -> None:
    case = case_customerio.CASE
    event = case.documented["customer/cio_subscription_preferences_changed"]
    assert (await post(http, base, "customerio-main", case.sign(case.body([event]))))[0] == 200
    assert await stops(conn, addresses, "preferences@example.com") == [NEWSLETTER]
    assert (await post(http, base, "customerio-main", case.sign(b'{"metric": "teleported"}')))[0] == 200


async def test_klaviyo_is_asked_who_its_profile_is_and_sends_again_while_it_cannot_say(
    base: str, http: ClientSession, conn: asyncpg.Connection, addresses: Addresses, klaviyo: Klaviyo
) -> None:
    event = {
        "external_id": "e-1",
        "topic": "event:klaviyo.unsubscribed_from_email_marketing",
        "payload": {
            "data": {
                "attributes": {"timestamp": 1763801234},
                "relationships": {"profile": {"data": {"type": "profile", "id": "01KP4EGHH8QJ3N3AY2Z6V7RMDK"}}},
            }
        },
    }
    delivery = case_klaviyo.CASE.sign(case_klaviyo.CASE.body([json.dumps(event).encode()]))
    klaviyo.away = True
    assert (await post(http, base, "klaviyo-main", delivery))[0] == 503
    assert await conn.fetchval("select count(*) from event") == 0
    klaviyo.away = False
    assert (await post(http, base, "klaviyo-main", delivery))[0] == 200
    assert await stops(conn, addresses, "alex@example.com") == [MARKETING]
    assert await conn.fetchval("select count(*) from event") == 0
