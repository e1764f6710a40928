"""How the service comes up, and what it leaves behind where it does not."""

from __future__ import annotations

import asyncio
import re
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import web

from mailprefs.catalogue import Catalogue
from mailprefs.errors import Unavailable
from mailprefs.links import KeyRing
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.web import wire
from mailprefs.web.keys import EXPORTS, HOOKS, POOL, PRESSES

OPEN = "select count(*) from pg_stat_activity where usename = $1"


async def test_pools_that_were_open_are_closed_when_a_later_one_fails(
    settings: Settings, shared_catalogue: Catalogue, ring: KeyRing, database: str, conn: asyncpg.Connection
) -> None:
    role = f"narrow_{uuid4().hex}"
    await conn.execute(f"create role {role} login password 'narrow' connection limit 2")
    url = re.sub(r"//[^@]*@", f"//{role}:narrow@", database)
    runner = wire.runner(service.create_app(settings, shared_catalogue, ring, database_url=url))
    try:
        with pytest.raises(Unavailable, match="53300"):
            await runner.setup()
        for _ in range(1000):
            if await conn.fetchval(OPEN, role) == 0:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("connections are left open")
    finally:
        await conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", role)
        await conn.execute(f"drop role {role}")


async def test_a_web_process_opens_no_more_connections_than_it_says(app: web.Application, base: str, conn: asyncpg.Connection) -> None:
    assert service.CONNECTIONS == 22  # as README.md says
    pools = [app[POOL], app[HOOKS], app[EXPORTS], app[PRESSES].pool]
    assert sum(pool.get_max_size() for pool in pools) == service.CONNECTIONS
