"""Keys of /v1: shown once, held as a digest, each for its powers and its time."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

import asyncpg
import pytest

from mailprefs import apikeys
from mailprefs.apikeys import ApiKey, Power
from mailprefs.errors import Forged, Misconfigured

DAY = timedelta(days=1)


async def test_a_key_is_recognised_with_its_powers_and_no_others(conn: asyncpg.Connection, now: datetime) -> None:
    id, text = await apikeys.issue(conn, [Power.DECIDE, Power.LINKS, Power.DECIDE], "shop", now=now)
    assert await apikeys.recognise(conn, text, now=now) == ApiKey(id, frozenset({"decide", "links"}))
    assert Power.DECIDE in (await apikeys.recognise(conn, text, now=now)).powers
    assert Power.EXPORT not in (await apikeys.recognise(conn, text, now=now)).powers


async def test_the_secret_is_kept_nowhere(conn: asyncpg.Connection, now: datetime) -> None:
    id, text = await apikeys.issue(conn, [Power.LINKS], "shop", now=now)
    secret = text.removeprefix(f"mp_{id}_")
    assert len(secret) == 43
    row = await conn.fetchrow("select * from api_key")
    assert row is not None
    assert row["digest"] == sha256(secret.encode()).digest(), "the control: what is kept is of this very secret"
    assert secret not in str(dict(row))
    assert secret not in str(await apikeys.every(conn))
    assert "digest" not in (await apikeys.every(conn))[0]


async def test_no_two_keys_are_alike(conn: asyncpg.Connection, now: datetime) -> None:
    issued = [await apikeys.issue(conn, [Power.LINKS], "", now=now) for _ in range(50)]
    assert len({text for _, text in issued}) == len({id for id, _ in issued}) == 50
    for id, text in issued:
        assert (await apikeys.recognise(conn, text, now=now)).id == id


async def test_a_text_that_differs_in_anything_is_no_key(conn: asyncpg.Connection, now: datetime) -> None:
    id, text = await apikeys.issue(conn, [Power.LINKS], "shop", now=now)
    other, _ = await apikeys.issue(conn, [Power.OPERATE], "admin", now=now)
    altered = [text[:n] + ("A" if text[n] != "A" else "B") + text[n + 1 :] for n in range(len(text))]
    odd = [
        "",
        "mp_",
        id,
        text.upper(),
        text[:-1],
        text + "A",
        f" {text}",
        f"{text}\n",
        text.replace(id, other),
        "mp_\0",
        "é" * 55,
        "\ud800",
    ]
    for forged in [*altered, *odd]:
        with pytest.raises(Forged, match="unknown, expired or revoked") as refused:
            await apikeys.recognise(conn, forged, now=now)
        assert text not in str(refused.value)
    assert (await apikeys.recognise(conn, text, now=now)).id == id, "the control: the text itself is"


async def test_a_key_ends_when_its_time_is_over(conn: asyncpg.Connection, now: datetime) -> None:
    id, text = await apikeys.issue(conn, [Power.LINKS], "", now=now, expires_at=now + DAY)
    assert (await apikeys.recognise(conn, text, now=now + DAY - timedelta(microseconds=1))).id == id
    with pytest.raises(Forged):
        await apikeys.recognise(conn, text, now=now + DAY)
    id, forever = await apikeys.issue(conn, [Power.LINKS], "", now=now)
    assert (await apikeys.recognise(conn, forever, now=now + 10_000 * DAY)).id == id


async def test_a_revoked_key_ends_at_once_and_no_other(conn: asyncpg.Connection, now: datetime) -> None:
    id, text = await apikeys.issue(conn, [Power.LINKS], "", now=now)
    another, other = await apikeys.issue(conn, [Power.LINKS], "", now=now)
    assert await apikeys.revoke(conn, id, now=now) is True
    assert await apikeys.revoke(conn, id, now=now + DAY) is False
    assert await apikeys.revoke(conn, "nothing", now=now) is False
    with pytest.raises(Forged):
        await apikeys.recognise(conn, text, now=now)
    assert (await apikeys.recognise(conn, other, now=now)).id == another
    assert {row["id"]: row["revoked_at"] for row in await apikeys.every(conn)}[id] == now, "the first time stands"


async def test_a_key_without_a_power_is_not_made(conn: asyncpg.Connection, now: datetime) -> None:
    with pytest.raises(Misconfigured, match="links, decide, export, change, privacy, operate"):
        await apikeys.issue(conn, [], "", now=now)
    assert await apikeys.every(conn) == []


async def test_all_that_were_ever_made_are_shown_the_newest_first(conn: asyncpg.Connection, now: datetime) -> None:
    first, _ = await apikeys.issue(conn, [Power.LINKS], "old", now=now - DAY, expires_at=now + DAY)
    second, _ = await apikeys.issue(conn, list(Power), "new", now=now)
    await apikeys.revoke(conn, first, now=now)
    assert await apikeys.every(conn) == [
        {"id": second, "label": "new", "scopes": sorted(Power), "created_at": now, "expires_at": None, "revoked_at": None},
        {"id": first, "label": "old", "scopes": ["links"], "created_at": now - DAY, "expires_at": now + DAY, "revoked_at": now},
    ]
