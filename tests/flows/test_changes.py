"""Changes that applications hand in: stops at once, questions by mail, and nothing that only a recipient may do."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from mailprefs import db, ledger
from mailprefs.post import Postman, Relay
from mailprefs.words import Cause, Change, Door, Effect

from . import relay as relays
from .test_manage import allowed
from .visitor import Visitor

NEWSLETTER, PARTNERS = 272, 274


async def handed(visitor: Visitor, *changes: dict[str, Any]) -> dict[str, Any]:
    said = {"changes": [{"evidence": "ticket 7", **change} for change in changes]}
    async with visitor.doors.http.post(f"{visitor.doors.base}/v1/changes", json=said, headers=visitor.doors.bearer) as answer:
        assert answer.status == 200
        found: dict[str, Any] = await answer.json()
        return found


async def test_a_signup_is_asked_about_by_mail_and_counts_from_the_press(visitor: Visitor, database: str) -> None:
    new = {"address": "new@example.org", "scope": "studies", "effect": "signup"}
    assert await handed(visitor, new) == {"recorded": 1, "refused": []}
    assert await visitor.conn.fetchval("select count(*) from address") == 0
    pool = await db.pool(database, size=1, command_timeout=5, purpose="post")
    async with relays.running() as relay:
        await Postman(visitor.catalogue, visitor.ring, pool, {1: Relay.of(relay.url)}, lambda: visitor.clock[-1]).round()
    await pool.close()
    (letter,) = relay.letters
    assert (letter["To"], letter["Subject"]) == ("new@example.org", "Do you want these emails?")
    found = re.search(r"https://go\.example\.com(/c/\S+)", letter.get_content())
    assert found
    await visitor.get(found[1])
    await visitor.post(found[1], answer="yes")
    assert "studies" in await allowed(visitor, visitor.addresses.read("new@example.org"))


async def test_each_row_is_taken_or_refused_by_itself_and_twice_is_once(visitor: Visitor) -> None:
    rows: list[dict[str, Any]] = [
        {"address": "jane@example.org", "scope": "newsletter", "effect": "stop"},
        {"address": "jane@example.org", "scope": "orders", "effect": "stop"},
        {"address": "jane@example.org", "scope": "newsletter", "effect": "lift"},
        {"address": "jane@example.org", "scope": "gossip", "effect": "stop"},
        {"address": "jane", "scope": "partners", "effect": "consent", "at": "2026-11-01T10:00:00Z"},
        {"address": "jane@example.org", "scope": "partners", "effect": "consent", "at": "2026-11-01T10:00:00Z"},
        {"address": "jane@example.org", "scope": "studies", "effect": "consent", "at": "2026-11-01T10:00:00Z"},
        {"address": "+12025550123", "scope": "studies", "effect": "signup"},
    ]
    for _ in range(2):
        answer = await handed(visitor, *rows)
        assert (answer["recorded"], [each["row"] for each in answer["refused"]]) == (2, [1, 2, 3, 4, 6, 7])
        assert not re.search("jane|2025550123", str(answer))
    jane = visitor.addresses.read("jane@example.org")
    rows_of = {row[:3] for row in await visitor.rows(jane)}
    assert rows_of == {(NEWSLETTER, "choice", "stop"), (PARTNERS, "choice", "grant")}
    assert len(await visitor.rows(jane)) == 2


async def test_a_stop_told_before_its_person_chose_otherwise_is_not_acknowledged_again(visitor: Visitor) -> None:
    """Whoever hands the same words in each night must not undo a person's choice, nor be told that a stop holds that does not."""
    jane = visitor.addresses.read("jane@example.org")
    stop = {"address": "jane@example.org", "scope": "newsletter", "effect": "stop"}
    assert await handed(visitor, stop) == await handed(visitor, stop) == {"recorded": 1, "refused": []}
    visitor.clock[-1] += timedelta(days=1)
    back = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "1", visitor.clock[-1])
    await ledger.record(visitor.conn, [back], now=visitor.clock[-1])
    visitor.clock[-1] += timedelta(days=1)
    (refused,) = (await handed(visitor, stop))["refused"]
    assert "`at`" in refused["reason"]
    assert "newsletter" in await allowed(visitor, jane)
    assert await handed(visitor, {**stop, "at": visitor.clock[-1].isoformat()}) == {"recorded": 1, "refused": []}
    assert "newsletter" not in await allowed(visitor, jane)


async def test_a_time_that_is_none_is_refused_before_anything_is_recorded(visitor: Visitor) -> None:
    for at in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "yesterday"):
        said = {"changes": [{"address": "jane@example.org", "scope": "newsletter", "effect": "stop", "evidence": "x", "at": at}]}
        async with visitor.doors.http.post(f"{visitor.doors.base}/v1/changes", json=said, headers=visitor.doors.bearer) as answer:
            assert answer.status in (400, 422), at
    assert await visitor.conn.fetchval("select count(*) from consent") == 0
