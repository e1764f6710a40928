"""Every statement of ours, as a planner is given it, is one that Citus plans: asked of its tree, where test_citus.py reads its text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from mailprefs import db
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing

from .citus import spread, stand_in, statements
from .planner import DELETE, UPDATE, Catalog, Planner
from .test_citus import THERE_REFUSED, answers, within
from .test_sql import QUERIES
from .trees import Node, heard, nodes

REFUSED_ROOMS = ("exports", "feed", "webhooks")  # with NotOnACluster, before any of these is asked


async def prepared(conn: asyncpg.Connection) -> dict[str, list[Node]]:
    """The trees of the named queries."""
    found = {}
    for room, name in QUERIES:
        if room not in REFUSED_ROOMS:
            async with heard(conn) as trees:
                await conn.prepare(db.text(room, name))
            found[f"{room}.{name}"] = trees
    return found


async def run(conn: asyncpg.Connection, work: Coroutine[Any, Any, Any]) -> dict[str, list[Node]]:
    """The trees of the statements that were read while it worked, by the function that they are of."""
    async with heard(conn) as trees:
        await work
    return {name: [each for each in trees if each["@"] == name] for name in {each["@"] for each in trees}}


async def everything(conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, now: datetime) -> dict[str, list[Node]]:
    async def asked() -> None:
        await answers(conn, shared_catalogue, addresses, now)
        await conn.fetch(db.text("suppressions", "held"), 1, now)

    return await prepared(conn) | await run(conn, asked())


READING = """select distinct p.oid::regprocedure::text
             from pg_proc p join pg_language l on l.oid = p.prolang
             join pg_dist_partition d on d.partmethod = 'h' and p.prosrc ~ ('\\m(from|join)\\s+' || d.logicalrelid::regclass::text || '\\M')
             where p.pronamespace = 'public'::regnamespace and l.lanname = 'plpgsql'"""


def refused(catalog: Catalog, every: dict[str, list[Node]]) -> dict[str, set[str]]:
    found = {name: {reason for each in trees for reason in Planner(catalog).statement(each)} for name, trees in every.items()}
    return {name: reasons for name, reasons in found.items() if reasons}


async def cluster(conn: asyncpg.Connection) -> None:
    """Give a database the tables of a cluster, and leave it the text of one server."""
    await stand_in(conn)
    for each in statements()[:3]:
        await conn.execute(each)


async def test_citus_would_plan_every_statement_of_ours_and_each_is_asked(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, now: datetime
) -> None:
    """A function is read as it is run: one that reads spread tables and is not run here would be passed over."""
    await stand_in(conn)
    await spread(conn)
    catalog = await Catalog.of(conn)
    every = await everything(conn, shared_catalogue, addresses, now)
    assert refused(catalog, every) == {}
    reading = await conn.fetch(READING)
    assert [
        row[0] for row in reading if not row[0].startswith(THERE_REFUSED) and not any(f"function {row[0]} " in name for name in every)
    ] == []


async def test_some_of_the_text_of_one_server_it_would_not(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, now: datetime
) -> None:
    """The control."""
    await cluster(conn)
    found = refused(await Catalog.of(conn), await everything(conn, shared_catalogue, addresses, now))
    of_functions = {name.split("(")[0].removeprefix("PL/pgSQL function ") for name in found}
    assert of_functions >= {"known", "record_few", "record_many"}
    assert {reason.split(" [")[0] for reasons in found.values() for reason in reasons} >= {
        "a function beside a spread table is not immutable",
        "all of a table is read that a list may lack",
        "a list of several columns is not numbered",
        "a sub-select of a spread table for each row of a list",
        "recursion over several shards",
    }


async def test_what_records_changes_rows_in_the_shards_of_its_people_alone(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, now: datetime
) -> None:
    """Each of several shards that a change is asked of is locked until the end [AcquireExecutorShardLocksForExecution].

    Were it every shard, all writers would wait for one another, and two who have locked each other's people, in a circle.
    """
    await cluster(conn)
    kept = await Catalog.of(conn)
    plain = unpruned(kept, await within(conn, run(conn, answers(conn, shared_catalogue, addresses, now))))
    assert len(plain) == 4, "the control: an update and a delete, in record_few and record_many"
    await spread(conn)
    assert unpruned(kept, await run(conn, answers(conn, shared_catalogue, addresses, now))) == set()


def unpruned(catalog: Catalog, every: dict[str, list[Node]]) -> set[tuple[str, str]]:
    """Which updates and deletes of what records name no buckets, by function and line."""
    found = set()
    for place, trees in every.items():
        for tree in trees if "record_" in place else ():
            for query in nodes(tree, "QUERY"):
                if query["commandType"] in (UPDATE, DELETE) and not any(
                    each["args"][0].get("varattno") == catalog.bucket[query["rtable"][int(query["resultRelation"]) - 1]["relid"]]
                    for each in nodes(query["jointree"], "SCALARARRAYOPEXPR", deep=False)
                ):
                    found.add((place, query["commandType"]))
    return found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def unchanged(
    knowing: Callable[[Catalogue, KeyRing], AbstractAsyncContextManager[str]], shared_catalogue: Catalogue, ring: KeyRing
) -> AsyncIterator[tuple[asyncpg.Connection, Catalog]]:
    """One database for all who leave it as it is, and what it knows."""
    async with knowing(shared_catalogue, ring) as url:
        connection = await asyncpg.connect(url)
        await cluster(connection)
        yield connection, await Catalog.of(connection)
        await connection.close()


PLANNED = [
    "select 1 from unnest($1::smallint[], $2::uuid[]) with ordinality u(b, k, n) join address a on a.bucket = u.b and a.key = u.k",
    "select key from push where bucket = $1 for update skip locked",
    "select exists (select from push where bucket = $1)",
    "with w as (select $1::smallint b) select p.key from push p join w on w.b = p.bucket for update of p",
    "select p.key, s.path from push p join told t on t.bucket = p.bucket and t.key = p.key left join scope s on s.scope = p.scope",
    "select (select max(t.sent_at) from told t where t.bucket = p.bucket and t.key = p.key) from push p",
    "select f.cause, a.key from fold($1, $2) f join address a on a.bucket = f.bucket and a.key = f.key",
    "select (select max(w.until) from unnest(a.pauses) w) from address a",
    "update push set due_at = $1::timestamptz + interval '1 day' where bucket = $2",
    "update push p set due_at = u.at from unnest($1::smallint[], $2::timestamptz[]) with ordinality u(b, at, n) where p.bucket = u.b",
    "with g as (select bucket b, key from push) select * from g join told t on t.bucket = g.b and t.key = g.key",
    "select key from push union all select key from told",
    "select 1 from scope s left join (select p.scope from push p) p on p.scope = s.scope",
    "select 1 from push p join (select bucket, key from told group by bucket, key) t on t.key = p.key",
    "select 1 from push p join lateral (select t.key from told t where t.bucket = p.bucket order by t.sent_at limit 1) t on true",
    "delete from push p using mapping m, address a where m.account = p.account and a.bucket = p.bucket and a.key = p.key",
    "select * from (select bucket, count(*) from push group by bucket) p join address a on a.bucket = p.bucket",
    "insert into asking (bucket, key, times) select bucket, key, '{}' from address on conflict (bucket, key) do update set granted = true",
    "insert into address as a (bucket, key) values ($1, $2) on conflict (bucket, key) do update set channel = a.channel returning xmax = 0",
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("statement", PLANNED)
async def test_it_plans_what_keeps_to_the_rules(unchanged: tuple[asyncpg.Connection, Catalog], statement: str) -> None:
    conn, catalog = unchanged
    async with heard(conn) as trees:
        await conn.prepare(statement)
    assert any(catalog.tables(each) for each in trees)
    assert [reason for each in trees for reason in Planner(catalog).statement(each)] == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("select 1 from address a cross join generate_series(now(), $1, '1 day') with ordinality g(t, n)", "is not immutable"),
        ("select 1 from address a cross join lateral fold(array[a.bucket], array[a.key]) f", "is not immutable"),
        ("select 1 from unnest($1::smallint[], $2::uuid[]) u(b, k) join address a on a.bucket = u.b and a.key = u.k", "not numbered"),
        ("select 1 from unnest($1::smallint[]) with ordinality u(b, n) left join address a on a.bucket = u.b", "that a list may lack"),
        ("select 1 from scope s left join push p on p.scope = s.scope", "that a list may lack"),
        ("select 1 from push p right join scope s on p.scope = s.scope", "that a list may lack"),
        (
            "insert into address (bucket, key) values (1, $1) on conflict (bucket, key) do update set plaintext = now()::text",
            "not immutable",
        ),
        (
            "insert into push (bucket, key) values (1, $1) on conflict (bucket, account, key, scope) do update set bucket = 2",
            "bucket of a row",
        ),
        (
            "insert into asking as k (bucket) values (1) on conflict (bucket, key) do update set granted = true where k.asked_at < now()",
            "not immutable",
        ),
        ("update push set due_at = $1::timestamptz + random() * interval '1 s' where bucket = 1", "depends on chance"),
        ("delete from push where bucket = 1 and random() < 0.5", "depends on chance"),
        ("update push set due_at = due_at + interval '1 day' where bucket = 1", "stable function of a column"),
        ("delete from push where since + interval '1 day' < $1", "stable function of a column"),
        ("update push set due_at = case when stop then $1::timestamptz + interval '1 day' end where bucket = 1", "stable in a case"),
        ("update closed set until = until + interval '1 day'", "stable function of a column"),
        ("update push set bucket = 2 where bucket = 1", "bucket of a row"),
        ("with g as materialized (select from push) select count(*) from g", "no columns"),
        ("select exists (select from push where stop)", "no columns"),
        ("select s.scope from scope s where exists (select from push p where p.scope = s.scope)", "for each row of a list"),
        ("select 1 from push p join told t on t.key = p.key", "not joined by their buckets"),
        ("delete from push p using told t where t.key = p.key", "not joined by their buckets"),
        ("select 1 from scope s left join lateral (select p.key from push p where p.scope = s.scope) p on true", "asked by a list"),
        ("select key from push for update skip locked", "are locked"),
        ("select key from push union all select t.key from told t join push p on p.key = t.key", "not joined by their buckets"),
        ("select 1 from scope s join lateral (select t.key from told t where t.scope = s.scope limit 1) t on true", "asks a list"),
        ("select 1 from scope s join lateral (select count(*) from told t where t.scope = s.scope) t on true", "asks a list"),
        ("delete from mapping m using push p where p.account = m.account", "by what shards say"),
        ("update mapping m set filled = true where exists (select 1 from push p where p.account = m.account)", "by what shards say"),
        ("select 1 from (select key from push for update) p join scope s on true", "are locked"),
        ("with w as materialized (select $1::smallint b) select p.key from push p join w on w.b = p.bucket for update of p", "are locked"),
        ("select spoken(a.bucket, a.key) from address a", "ask the others"),
        (
            "select 1 from address a where exists (select 1 from push p where p.bucket = a.bucket and spoken(p.bucket, p.key) < $1)",
            "ask the others",
        ),
        ("select f.cause from fold($1, $2) f join address a on a.key = f.key where a.bucket = $3", "ask the others"),
        ("select ctid from push", "column of the system"),
        (
            "with recursive r (k) as (select key from push union select t.key from r join told t on t.key = r.k) select k from r",
            "recursion",
        ),
    ],
)
async def test_it_refuses_what_citus_refuses(unchanged: tuple[asyncpg.Connection, Catalog], statement: str, why: str) -> None:
    conn, catalog = unchanged
    async with heard(conn) as trees:
        await conn.prepare(statement)
    found = [reason for each in trees for reason in Planner(catalog).statement(each)]
    assert any(why in reason for reason in found), found


async def test_a_tree_is_read_as_it_was_written(conn: asyncpg.Connection) -> None:
    async with heard(conn) as trees:
        await conn.prepare("""select '{(:a "b" \\ <>' "a {b) :c", array[1, 2] from pg_class c, (select 1) d where c.relname = $1""")
    (query,) = (each for each in trees if each["rtable"] and len(each["rtable"]) == 2)
    assert [each["resname"] for each in query["targetList"]] == [r"a\ \{b\)\ :c", "array"]
    assert [each["rtekind"] for each in query["rtable"]] == ["0", "1"]
    assert [each["paramid"] for each in nodes(query["jointree"], "PARAM")] == ["1"]
