"""Amazon SES at the service's own door, over real HTTP and PostgreSQL: with the answers that SNS takes to mean what we mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from aiohttp import ClientSession, encode_basic_auth, web

from mailprefs import numbers
from mailprefs.catalogue import Account, Catalogue
from mailprefs.links import KeyRing
from mailprefs.providers import CHANNELS, PROVIDERS
from mailprefs.providers.base import Delivery
from mailprefs.providers.ses import SES
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web import wire

from .basic import PASSWORD, USER
from .case_ses import MAPPED, OUT
from .cases import PAYLOADS
from .sns_sender import ASKING_NAMES, TOPIC, URL, asking, certificate, key, notification, posted, signed

HELD = URL.replace("0a", "0d")
ACCOUNT = Account(
    name="ses-main",
    provider="ses",
    brand="connective",
    topic_arns=(TOPIC,),
    secrets={"webhook_user": "SES_USER", "webhook_password": "SES_PASSWORD", "access_key_id": "SES_ID", "secret_access_key": "SES_KEY"},
    **MAPPED,
)


@pytest.fixture
async def base(shared_catalogue: Catalogue, ring: KeyRing, conn: asyncpg.Connection, database: str) -> AsyncIterator[str]:
    """The URL of a service with one account of SES, which has fetched the certificate already."""
    ses, now = PROVIDERS["ses"], datetime.now(UTC)
    assert isinstance(ses, SES)
    ses.certificates.hold(HELD, certificate(key(), begins=now - timedelta(days=1), ends=now + timedelta(days=1)), now)
    lent = {"SES_USER": USER, "SES_PASSWORD": PASSWORD, "SES_ID": OUT["access_key_id"], "SES_KEY": OUT["secret_access_key"]}
    settings = Settings().lending(lent)
    known = shared_catalogue.model_copy(update={"account": (ACCOUNT,)})
    await numbers.register(conn, known, [key.id for key in ring.keys], CHANNELS, now=now)
    app = service.create_app(settings, known, ring, database_url=database)
    runner = wire.runner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def answered(base: str, delivery: Delivery, password: str | None = PASSWORD) -> tuple[int, str | None]:
    """Post a delivery as SNS does, and return the status and what it is asked for."""
    headers = [*delivery.headers, *([("Authorization", encode_basic_auth(USER, password))] if password else [])]
    async with ClientSession() as http, http.post(f"{base}/hooks/ses-main", data=delivery.body, headers=headers) as answer:
        return answer.status, answer.headers.get("WWW-Authenticate")


async def test_who_bounced_is_stopped_and_a_subscription_waits_for_the_operator(base: str, conn: asyncpg.Connection) -> None:
    told = (PAYLOADS / "ses" / "several-bounced.json").read_text(encoding="utf-8")
    bounce = posted(signed(notification(told, SigningCertURL=HELD)))
    assert await answered(base, bounce, password=None) == (401, 'Basic realm="mailprefs"')  # SNS sends them now that it was asked
    assert await conn.fetchval("select count(*) from consent") == 0
    for _ in range(2):
        assert await answered(base, bounce) == (200, None)
    assert await conn.fetchval("select count(*) from consent where effect = 'stop'") == 2
    assert [row["stops"] for row in await conn.fetch("select stops from address where stops is not null")] == [[0], [0]]
    question = posted(signed(asking(SigningCertURL=HELD), ASKING_NAMES))
    assert (await answered(base, question))[0] == 200
    [row] = await conn.fetch("select reason, raw from event")
    assert (row["reason"], json.loads(row["raw"])["Type"]) == ("subscription_confirmation", "SubscriptionConfirmation")


async def test_a_forgery_is_a_4xx_that_sns_does_not_repeat(base: str, conn: asyncpg.Connection) -> None:
    fields = signed(notification('{"eventType": "Bounce"}', SigningCertURL=HELD))
    stranger = signed(notification("{}", SigningCertURL=HELD), signer=key("nobody's"))
    for wrong in (
        fields | {"Message": "{}"},
        fields | {"SigningCertURL": "https://example.com/x.pem"},
        fields | {"TopicArn": TOPIC + "x"},
        stranger,
    ):
        assert (await answered(base, posted(wrong)))[0] == 401
    assert (await answered(base, Delivery([("x-amz-sns-rawdelivery", "true")], b'{"eventType": "Bounce"}', datetime.now(UTC))))[0] == 401
    assert (await answered(base, posted(fields)))[0] == 200  # the control
    assert await conn.fetchval("select count(*) from consent") == 0
