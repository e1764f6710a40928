"""The numbers that can never change: whatever would make an old link mean something else is refused before anything is written."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from mailprefs import ledger, numbers
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.errors import Misconfigured
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

pytestmark = pytest.mark.spread

CATALOGUE = Path(__file__).parent / "catalogue.toml"
CHANNELS = {"sendgrid": Channel.EMAIL, "twilio": Channel.SMS}
MARKETING, NEWSLETTER, OFFERS, PARTNERS, STUDIES, ORDERS = 257, 272, 273, 274, 275, 288
KEYS = (1,)
RING = {-1: b"digest", 1: b"one"}  # fingerprints
WRITTEN = (
    "select scope, name, path, stream, wants_email, wants_sms, retired from scope order by scope",
    "select account, name, channel from account order by account",
    "select account, scope, path, called from mapping order by account, scope",
    "select id from signing_key order by id",
    "select account, key, scope from push order by account, key, scope",
)


def text() -> dict[str, Any]:
    """The shared catalogue as its file says it, to be changed."""
    return tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))


def topic(raw: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in raw["brand"][0]["topic"] if each["name"] == name)
    return found


async def register(conn: asyncpg.Connection, raw: dict[str, Any], now: datetime, keys: Sequence[int] = KEYS) -> None:
    await numbers.register(conn, Catalogue.model_validate(raw), keys, CHANNELS, now=now)


async def written(conn: asyncpg.Connection) -> list[list[asyncpg.Record]]:
    return [await conn.fetch(query) for query in WRITTEN]


def stop(address: Address, scope: int, now: datetime, cause: Cause = Cause.CHOICE, door: Door = Door.LINK) -> Change:
    return Change(address, scope, cause, Effect.STOP, door, f"{scope}", now)


async def pushes(conn: asyncpg.Connection) -> list[tuple[str, int]]:
    rows = await conn.fetch("select name, scope from push join account using (account) order by name, scope")
    return [(row["name"], row["scope"]) for row in rows]


@pytest.fixture
def raw() -> dict[str, Any]:
    return text()


@pytest.fixture
async def jane(conn: asyncpg.Connection, addresses: Addresses) -> Address:
    found = addresses.read("jane@example.org")
    await conn.execute(
        "insert into address (bucket, key, channel, plaintext) values ($1, $2, 'email', $3)", found.bucket, found.key, found.text
    )
    return found


async def test_the_same_catalogue_again_changes_nothing(
    conn: asyncpg.Connection, raw: dict[str, Any], jane: Address, now: datetime
) -> None:
    await ledger.record(conn, [stop(jane, MARKETING, now)], now=now)
    before = await written(conn)
    await register(conn, raw, now + timedelta(days=1))
    assert await written(conn) == before


async def test_what_would_change_the_meaning_of_an_old_link_is_refused_before_anything_is_written(
    conn: asyncpg.Connection, now: datetime
) -> None:
    def reused(raw: dict[str, Any]) -> None:
        topic(raw, "studies")["name"] = "surveys"

    def swapped(raw: dict[str, Any]) -> None:
        topic(raw, "partners")["number"], topic(raw, "studies")["number"] = 19, 18

    def renumbered(raw: dict[str, Any]) -> None:
        topic(raw, "studies")["number"] = 99

    def moved(raw: dict[str, Any]) -> None:
        topic(raw, "studies").update(stream="transactional", consent="opt-out")

    def vanished(raw: dict[str, Any]) -> None:
        raw["brand"][0]["topic"].remove(topic(raw, "studies"))

    def renamed(raw: dict[str, Any]) -> None:
        raw["brand"][0]["name"] = "other"
        for account in raw["account"]:
            account["brand"] = "other"

    def another(raw: dict[str, Any]) -> None:
        raw["brand"][0]["number"] = 2

    before = await written(conn)
    for spoil, said in (
        (reused, "number 275 is 'connective/studies' for ever"),
        (swapped, "number 274 is 'connective/partners' for ever"),
        (renumbered, "'connective/studies' .* is gone .*retired = true"),
        (moved, "'connective/studies' changed its stream"),
        (vanished, "'connective/studies' .* is gone .*retired = true"),
        (renamed, "number 256 is 'connective' for ever"),
        (another, "is gone"),
    ):
        raw = text()
        spoil(raw)
        raw["brand"][0]["topic"].insert(0, {"name": "fresh", "title": "New", "number": 200})
        with pytest.raises(Misconfigured, match=said):
            await register(conn, raw, now, keys=(1, 2))
        assert await written(conn) == before, spoil.__name__
    raw = text()
    raw["brand"][0]["topic"].insert(0, {"name": "fresh", "title": "New", "number": 200})
    await register(conn, raw, now, keys=(1, 2))
    assert await written(conn) != before, "the control: without the change that is refused, all of it is written"


async def test_a_key_that_is_lost_is_refused_before_anything_is_written(conn: asyncpg.Connection, now: datetime) -> None:
    await register(conn, text(), now, keys=(1, 2, 7))
    before = await written(conn)
    raw = text()
    raw["brand"][0]["topic"].append({"name": "fresh", "title": "New", "number": 200})
    with pytest.raises(Misconfigured, match="lacks the key 1, 7:"):
        await register(conn, raw, now, keys=(2, 3))
    assert await written(conn) == before
    await register(conn, raw, now, keys=(1, 2, 3, 7))
    assert [row["id"] for row in (await written(conn))[3]] == [1, 2, 3, 7]


async def test_a_topic_may_retire_and_an_ads_node_may_go(
    conn: asyncpg.Connection, raw: dict[str, Any], jane: Address, now: datetime
) -> None:
    await ledger.record(conn, [stop(jane, MARKETING, now)], now=now)
    assert ("sendgrid-main", OFFERS) in await pushes(conn)
    topic(raw, "offers")["retired"] = True
    raw["brand"][0]["ads"] = False
    await register(conn, raw, now)
    assert await conn.fetchval("select retired from scope where scope = $1", OFFERS)
    assert await conn.fetchval("select count(*) from scope where scope = 259") == 1, "its number stays taken"
    assert ("sendgrid-main", OFFERS) not in await pushes(conn), "nobody is told about what is never sent"


async def test_what_a_topic_wants_may_change(conn: asyncpg.Connection, raw: dict[str, Any], now: datetime) -> None:
    topic(raw, "newsletter")["consent"] = "double-opt-in"
    await register(conn, raw, now)
    assert await conn.fetchval("select wants_email from scope where scope = $1", NEWSLETTER) == 2


async def test_a_new_mapping_owes_everything_that_is_held(
    conn: asyncpg.Connection, raw: dict[str, Any], jane: Address, addresses: Addresses, now: datetime
) -> None:
    people = {name: addresses.read(f"{name}@example.org") for name in ("all", "topic", "other", "bounced", "back", "paused", "free")}
    back = Change(people["back"], PARTNERS, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", now)
    pause = Change(people["paused"], PARTNERS, Cause.PAUSE, Effect.STOP, Door.PAGE, "p", now, until=now + timedelta(days=30))
    changes = [
        stop(people["all"], MARKETING, now),
        stop(people["topic"], PARTNERS, now),
        stop(Address(people["topic"].key), PARTNERS, now),
        stop(people["other"], NEWSLETTER, now),
        stop(people["bounced"], 0, now, Cause.BOUNCE, Door.PROVIDER),
        stop(people["back"], MARKETING, now),
        back,
        pause,
        Change(people["free"], PARTNERS, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "c", now),
        stop(addresses.read("+12025550123"), PARTNERS, now),
    ]
    await ledger.record(conn, changes, now=now)
    raw["account"][1]["scopes"]["partners"] = "778"
    await register(conn, raw, now + timedelta(days=1))
    owed = await conn.fetch("select key, stop, since, due_at from push where scope = $1", PARTNERS)
    assert {row["key"] for row in owed} == {people[name].key for name in ("all", "topic", "paused")}
    assert all(row["stop"] and row["since"] == now + timedelta(days=1) for row in owed)
    assert await conn.fetchval("select count(*) from push where scope = $1 and due_at = 'infinity'", PARTNERS) == 3, "known by key alone"
    await conn.execute("delete from push")
    await register(conn, raw, now + timedelta(days=2))
    assert await pushes(conn) == [], "a mapping that is known owes nothing again"


async def test_a_text_that_is_known_makes_the_back_fill_due(
    conn: asyncpg.Connection, raw: dict[str, Any], jane: Address, now: datetime
) -> None:
    await ledger.record(conn, [stop(jane, PARTNERS, now)], now=now)
    raw["account"][0]["scopes"]["partners"] = "12347"
    await register(conn, raw, now + timedelta(days=1))
    assert await conn.fetchval("select due_at from push where scope = $1", PARTNERS) == now + timedelta(days=1)


async def test_another_group_or_another_part_of_the_tree_is_a_new_mapping(
    conn: asyncpg.Connection, raw: dict[str, Any], jane: Address, now: datetime
) -> None:
    await ledger.record(conn, [stop(jane, NEWSLETTER, now), stop(jane, 0, now, Cause.BOUNCE, Door.PROVIDER)], now=now)
    await conn.execute("delete from push")  # all of it was told
    await register(conn, raw, now)
    assert await pushes(conn) == [], "the control: the same catalogue owes nothing"
    raw["account"][0]["scopes"]["newsletter"] = "99999"
    await register(conn, raw, now)
    assert await pushes(conn) == [("sendgrid-main", NEWSLETTER)], "the new group over there knows of nobody"
    await conn.execute("update push set refused = 'http_404', attempts = 5, due_at = $1", now + timedelta(days=1))
    raw["account"][0]["scopes"]["newsletter"] = "88888"
    await register(conn, raw, now)
    row = await conn.fetchrow("select refused, attempts, due_at, want from push")
    assert row is not None
    assert tuple(row) == (None, 0, now, 2), "what was put aside under the wrong id is tried under the right one at once"
    await conn.execute("delete from push")
    raw["account"][0]["share_bounces"] = True
    await register(conn, raw, now)
    assert await pushes(conn) == [("sendgrid-main", NEWSLETTER), ("sendgrid-main", OFFERS)], "the bounces of the past are shared too"


async def test_another_provider_under_the_same_name_is_a_new_mapping(
    conn: asyncpg.Connection, raw: dict[str, Any], jane: Address, now: datetime
) -> None:
    """It keeps the ids of the groups, and has been told nothing; whom it cannot reach it is owed nothing about."""
    await ledger.record(conn, [stop(jane, NEWSLETTER, now)], now=now)
    assert await pushes(conn), "the control: it is owed"
    raw["account"][0] |= {"provider": "twilio", "stops": "newsletter"}
    await register(conn, raw, now)
    assert [account for account, _ in await pushes(conn)] == ["sendgrid-second"] * await conn.fetchval("select count(*) from push")
    await conn.execute("delete from push")
    raw["account"][0]["provider"] = "sendgrid"
    await register(conn, raw, now)
    assert await pushes(conn) == [("sendgrid-main", NEWSLETTER)]


async def test_a_mapping_that_goes_takes_its_pushes_along_and_no_other(
    conn: asyncpg.Connection, raw: dict[str, Any], jane: Address, now: datetime
) -> None:
    await ledger.record(conn, [stop(jane, MARKETING, now)], now=now)
    assert await pushes(conn) == [("sendgrid-main", NEWSLETTER), ("sendgrid-main", OFFERS), ("sendgrid-second", NEWSLETTER)]
    del raw["account"][0]["scopes"]["newsletter"]
    await register(conn, raw, now)
    assert await pushes(conn) == [("sendgrid-main", OFFERS), ("sendgrid-second", NEWSLETTER)]
    raw["account"].pop()
    await register(conn, raw, now)
    assert await pushes(conn) == [("sendgrid-main", OFFERS)]
    assert await conn.fetchval("select count(*) from account") == 2, "its number stays taken"


async def test_an_account_keeps_its_number_whatever_stands_around_it(conn: asyncpg.Connection, raw: dict[str, Any], now: datetime) -> None:
    before = {row["name"]: row["account"] for row in await conn.fetch("select name, account from account")}
    first = raw["account"][0]
    raw["account"] = [{**first, "name": "sendgrid-new", "scopes": {}}, *reversed(raw["account"])]
    await register(conn, raw, now)
    after = {row["name"]: row["account"] for row in await conn.fetch("select name, account from account")}
    assert {name: after[name] for name in before} == before
    assert after["sendgrid-new"] not in before.values()


async def test_two_registrations_at_once_give_one_set_of_numbers(database: str, now: datetime) -> None:
    connections = [await asyncpg.connect(database) for _ in range(4)]
    texts = [text() for _ in connections]
    for turn, raw in enumerate(texts):
        raw["brand"][0]["topic"].append({"name": "fresh", "title": "New", "number": 200})
        added = [{**raw["account"][0], "name": f"new-{n}", "scopes": {"fresh": "1"}} for n in range(5)]
        raw["account"] = added[turn:] + added[:turn] + raw["account"]  # each begins with another
    await asyncio.gather(*(register(each, raw, now, keys=(1, 9)) for each, raw in zip(connections, texts, strict=True)))
    assert await connections[0].fetchval("select count(*) from account where name like 'new-%'") == 5
    assert await connections[0].fetchval("select count(distinct account) from account") == 7
    assert await connections[0].fetchval("select count(*) from mapping where scope = 456") == 5
    for each in connections:
        await each.close()


async def test_of_two_catalogues_at_once_that_give_one_number_to_two_topics_one_is_refused(database: str, now: datetime) -> None:
    connections = [await asyncpg.connect(database) for _ in range(4)]
    texts = [text() for _ in connections]
    for turn, raw in enumerate(texts):
        raw["brand"][0]["topic"].append({"name": f"fresh-{turn}", "title": "New", "number": 200})
    asked = [register(each, raw, now) for each, raw in zip(connections, texts, strict=True)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Misconfigured"] * 3 + ["NoneType"]
    (winner,) = [turn for turn, answer in enumerate(answers) if answer is None]
    assert await connections[0].fetchval("select name from scope where scope = 456") == f"connective/fresh-{winner}"
    for each in connections:
        await each.close()


async def test_a_database_that_was_never_migrated_says_what_to_do(conn: asyncpg.Connection, raw: dict[str, Any], now: datetime) -> None:
    await conn.execute("delete from migration where name like '0004%'")
    with pytest.raises(Misconfigured, match=r"lacks 0004_\w+\.sql.*mailprefs migrate"):
        await numbers.ready(conn, Catalogue.model_validate(raw), RING, CHANNELS, now=now)
    await conn.execute("drop table migration")
    with pytest.raises(Misconfigured, match=r"lacks 0001_\w+\.sql, .*mailprefs migrate"):
        await numbers.ready(conn, Catalogue.model_validate(raw), RING, CHANNELS, now=now)


async def test_a_stop_that_is_on_its_way_while_a_scope_is_mapped_is_told(
    conn: asyncpg.Connection, database: str, addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    """The writer read the mappings as they were; whoever maps a scope waits for it, and then owes what it wrote."""
    writer = await asyncpg.connect(database)
    open_transaction = writer.transaction()
    await open_transaction.start()
    await ledger.record(writer, [Change(addresses.read("jane@example.org"), 273, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)], now=now)
    account = shared_catalogue.account[1].model_copy(update={"scopes": {"newsletter": "777", "offers": "778"}})
    wider = shared_catalogue.model_copy(update={"account": (shared_catalogue.account[0], account)})
    registering = asyncio.create_task(numbers.register(conn, wider, [1], CHANNELS, now=now))
    await asyncio.sleep(0.5)
    await open_transaction.commit()
    await registering
    await writer.close()
    rows = await conn.fetch("select name, scope from push join account using (account) where scope = 273 order by name")
    assert [row["name"] for row in rows] == ["sendgrid-main", "sendgrid-second"]


async def test_a_mapping_that_comes_back_tells_who_came_back_meanwhile(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    jane = addresses.read("jane@example.org")
    await ledger.record(conn, [Change(jane, 272, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)], now=now)
    await conn.execute("insert into told select bucket, account, key, scope, stop, since, since, since from push")
    await conn.execute("delete from push")
    without = shared_catalogue.model_copy(update={"account": ()})
    await numbers.register(conn, without, [1], CHANNELS, now=now)
    await ledger.record(conn, [Change(jane, 272, Cause.CHOICE, Effect.GO, Door.MANAGE, "2", now)], now=now)
    assert await conn.fetchval("select count(*) from push") == 0
    await numbers.register(conn, shared_catalogue, [1], CHANNELS, now=now)
    assert {(row["scope"], row["stop"]) for row in await conn.fetch("select scope, stop from push")} == {(272, False)}


async def test_another_key_ring_with_the_same_ids_is_refused(conn: asyncpg.Connection, shared_catalogue: Catalogue, now: datetime) -> None:
    await numbers.ready(conn, shared_catalogue, RING, CHANNELS, now=now)
    await numbers.ready(conn, shared_catalogue, {**RING, 2: b"two"}, CHANNELS, now=now)
    for other in ({**RING, -1: b"other"}, {**RING, 1: b"other"}):
        with pytest.raises(Misconfigured, match="another key ring"):
            await numbers.ready(conn, shared_catalogue, other, CHANNELS, now=now)


# What serves and works only looks


def _wider(raw: dict[str, Any]) -> None:
    raw["brand"][0]["topic"].append({"name": "fresh", "title": "New", "number": 200})


def _asking(raw: dict[str, Any]) -> None:
    topic(raw, "newsletter")["consent"] = "double-opt-in"


def _retiring(raw: dict[str, Any]) -> None:
    topic(raw, "partners")["retired"] = True


def _joined(raw: dict[str, Any]) -> None:
    raw["account"].append({**raw["account"][0], "name": "sendgrid-third", "scopes": {}})


def _texting(raw: dict[str, Any]) -> None:
    raw["account"][1]["provider"] = "twilio"


def _mapping(raw: dict[str, Any]) -> None:
    raw["account"][1]["scopes"]["partners"] = "778"


def _regrouped(raw: dict[str, Any]) -> None:
    raw["account"][1]["scopes"]["newsletter"] = "778"


def _sharing(raw: dict[str, Any]) -> None:
    raw["account"][1]["share_bounces"] = True


LACKING = {
    "connective/fresh": _wider,
    "connective/newsletter": _asking,
    "connective/partners": _retiring,
    "sendgrid-third": _joined,
    "sendgrid-second, sendgrid-second: connective/newsletter": _texting,
    "sendgrid-second: connective/partners": _mapping,
    "sendgrid-second: connective/newsletter": _regrouped,
    "sendgrid-second: connective/newsletter.": _sharing,
}


@pytest.mark.parametrize(("said", "change"), LACKING.items(), ids=[each.__name__ for each in LACKING.values()])
async def test_a_catalogue_that_the_database_does_not_know_is_refused_until_the_release_step_tells_it(
    conn: asyncpg.Connection, raw: dict[str, Any], now: datetime, said: str, change: Callable[[dict[str, Any]], None]
) -> None:
    change(raw)
    before, known = await written(conn), Catalogue.model_validate(raw)
    with pytest.raises(Misconfigured, match=rf"does not know what the catalogue says of {said.rstrip('.')}\. Tell it: mailprefs migrate"):
        await numbers.ready(conn, known, RING, CHANNELS, now=now)
    assert await written(conn) == before
    await numbers.introduce(conn, known, RING, CHANNELS, now=now)
    await numbers.ready(conn, known, RING, CHANNELS, now=now)


@pytest.mark.parametrize("change", [_wider, _joined, _mapping], ids=["scope", "account", "mapping"])
async def test_an_older_process_takes_nothing_from_what_a_newer_release_made_known(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, raw: dict[str, Any], jane: Address, now: datetime,
    change: Callable[[dict[str, Any]], None],
) -> None:  # fmt: skip
    change(raw)
    await ledger.record(conn, [stop(jane, MARKETING, now)], now=now)
    await numbers.introduce(conn, Catalogue.model_validate(raw), RING, CHANNELS, now=now)
    before = await written(conn)
    with structlog.testing.capture_logs() as lines:
        await numbers.ready(conn, shared_catalogue, RING, CHANNELS, now=now)
    assert await written(conn) == before
    assert [line["event"] for line in lines] == ([] if change is _joined else ["database_knows_more"])


async def test_a_number_that_means_something_else_is_refused_by_who_only_looks(
    conn: asyncpg.Connection, raw: dict[str, Any], now: datetime
) -> None:
    topic(raw, "studies")["name"] = "surveys"
    with pytest.raises(Misconfigured, match="number 275 is 'connective/studies' for ever"):
        await numbers.ready(conn, Catalogue.model_validate(raw), RING, CHANNELS, now=now)


async def test_a_release_step_that_was_cut_short_is_alarmed_and_done_again(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, jane: Address, now: datetime
) -> None:
    await ledger.record(conn, [stop(jane, MARKETING, now)], now=now)
    await conn.execute("delete from push; update mapping set filled = false")
    with structlog.testing.capture_logs() as lines:
        await numbers.ready(conn, shared_catalogue, RING, CHANNELS, now=now)
    assert [(line["event"], line["account"]) for line in lines] == [
        ("mapping_not_filled", name) for name in ("sendgrid-main", "sendgrid-second")
    ]
    await numbers.introduce(conn, shared_catalogue, RING, CHANNELS, now=now)
    assert len(await pushes(conn)) == 3


async def test_another_key_ring_is_refused_before_the_database_is_told_anything(
    conn: asyncpg.Connection, raw: dict[str, Any], now: datetime
) -> None:
    await numbers.ready(conn, Catalogue.model_validate(raw), RING, CHANNELS, now=now)
    _wider(raw)
    before = await written(conn)
    with pytest.raises(Misconfigured, match="another key ring"):
        await numbers.introduce(conn, Catalogue.model_validate(raw), {**RING, 1: b"other"}, CHANNELS, now=now)
    assert await written(conn) == before


async def test_a_provider_that_nobody_knows_is_told_by_the_release_step(
    conn: asyncpg.Connection, raw: dict[str, Any], now: datetime
) -> None:
    raw["account"][0]["provider"] = "sendgird"
    for asked in (numbers.ready, numbers.introduce):
        with pytest.raises(Misconfigured, match="'sendgrid-main' names the provider 'sendgird'; there are: sendgrid, twilio"):
            await asked(conn, Catalogue.model_validate(raw), RING, CHANNELS, now=now)


@pytest.mark.parametrize("somebody", [False, True])
async def test_while_nobody_is_known_it_is_said_how_to_begin_anew(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime, somebody: bool
) -> None:
    """Whoever served the brand that `init` wrote before they put in their own."""
    if somebody:
        who = addresses.read("jane@example.org")
        await conn.execute("insert into address (bucket, key) values ($1, $2)", who.bucket, who.key)
    raw = text()
    raw["brand"][0]["name"] = "acme"
    for account in raw["account"]:
        account["brand"] = "acme"
    with pytest.raises(Misconfigured, match="for ever") as refused:
        await register(conn, raw, now)
    assert ("begin anew" in str(refused.value)) is not somebody
    with pytest.raises(Misconfigured, match="for ever") as refused:
        await numbers.ready(conn, Catalogue.model_validate(raw), RING, CHANNELS, now=now)
    assert ("begin anew" in str(refused.value)) is not somebody
