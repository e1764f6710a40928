"""What the flows share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg
import pytest

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing

from .visitor import Visitor, visiting


@pytest.fixture
async def visitor(
    database: str,
    conn: asyncpg.Connection,
    shared_catalogue: Catalogue,
    ring: KeyRing,
    addresses: Addresses,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Visitor]:
    """Somebody with a browser; ``indirect`` parameters change the brand."""
    monkeypatch.setenv("SMTP_URL", "smtp://127.0.0.1:9")
    changes = getattr(request, "param", {})
    async with visiting(database, conn, shared_catalogue, ring, addresses, now, **changes) as lent:
        yield lent
