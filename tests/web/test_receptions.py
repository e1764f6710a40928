"""What is refused at the providers' door is written down, and what each account said is shown to who watches the service."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import asyncpg
from aiohttp import ClientSession

from mailprefs import db
from mailprefs.catalogue import Catalogue
from mailprefs.cli.service import listening
from mailprefs.links import KeyRing
from mailprefs.sandbox import sendgrid
from mailprefs.settings import Settings
from mailprefs.web import app as service

NAME = "sendgrid-main"
TOKEN = "a-token-of-the-tests"


async def shown(http: ClientSession, base: str) -> dict[str, float]:
    """The gauges of the account."""
    async with http.get(f"{base}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
        assert answer.status == 200
        text = await answer.text()
    found = re.findall(rf'(?m)^mailprefs_account_(\w+)\{{account="{NAME}"(?:,kind="(\w+)")?\}} (\S+)$', text)
    return {f"{name}/{kind}".rstrip("/"): float(value) for name, kind, value in found}


async def test_forgeries_at_the_door_are_written_and_all_is_shown(
    shared_catalogue: Catalogue, ring: KeyRing, conn: asyncpg.Connection, database: str
) -> None:
    private, public = sendgrid.key_pair()
    secrets = {v: public if name == "webhook_key" else "SG." + "x" * 40 for a in shared_catalogue.account for name, v in a.secrets.items()}
    settings = Settings().lending(secrets | {"METRICS_TOKEN": TOKEN})
    app = service.create_app(settings, shared_catalogue, ring, database_url=database)
    await db.queries("inbox").tally(conn, account=NAME, kinds=["delivered"], events=[2], now=datetime.now(UTC) - timedelta(hours=1))
    await db.queries("inbox").set_aside(conn, account=NAME, id=["x"], reason=["unknown_kind"], raw=[b"x"], now=datetime.now(UTC))
    async with listening(app, "127.0.0.1", 0) as port, ClientSession() as http:
        base = f"http://127.0.0.1:{port}"

        async def post(headers: dict[str, str]) -> int:
            async with http.post(f"{base}/hooks/{NAME}", data=b"[]", headers=headers) as answer:
                return answer.status

        assert await asyncio.gather(*(post({}) for _ in range(50))) == [401] * 50
        assert await post(sendgrid.sign(private, "1763800000", b"[]")) == 200  # the control: it is no forgery
        before = await shown(http, base)
    assert (before["forged_deliveries"], before["kept_aside"], before["unknown_kinds"], before["events/delivered"]) == (0, 1, 1, 2)
    assert 3_600 <= before["silent_seconds"] < 3_700
    assert await conn.fetchval("select deliveries from forgery where account = $1", NAME) == 50
    app = service.create_app(settings, shared_catalogue, ring, database_url=database)
    async with listening(app, "127.0.0.1", 0) as port, ClientSession() as http:  # another process has counted none itself
        assert (await shown(http, f"http://127.0.0.1:{port}"))["forged_deliveries"] == 50
