"""What a Citus cluster asks of tables and statements is held here; `make test-citus CITUS_URL=…` holds the suite on one."""

from __future__ import annotations

import ast
import re
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import pytest

from mailprefs import audience, db, exports, outbox, post, shipped, webhooks
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue, Webhook
from mailprefs.decisions import Question, decide
from mailprefs.directory import Entry, know
from mailprefs.errors import NotOnACluster
from mailprefs.ledger import FEW, differing, record
from mailprefs.passes import Purpose
from mailprefs.shapes import Shape
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

from .citus import spread, stand_in, statements
from .conftest import NOT_ON_A_CLUSTER, OF_ONE_SERVER

SQL = shipped.folder("sql")
Result = TypeVar("Result")


@pytest.fixture
async def spreading(conn: asyncpg.Connection) -> asyncpg.Connection:
    """A database that takes the calls of sql/citus.sql, and refuses what Citus refuses."""
    await stand_in(conn)
    return conn


async def placed(conn: asyncpg.Connection, method: str) -> set[str]:
    return {
        row[0]
        for row in await conn.fetch('select logicalrelid::text from pg_dist_partition where partmethod = $1::"char"', method.encode())
    }


async def about_addresses(conn: asyncpg.Connection) -> set[str]:
    rows = await conn.fetch(
        """select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'bucket'
           where c.relkind = 'r' and pg_table_is_visible(c.oid) and c.relname <> 'webhook'"""  # which has places, and is about nobody
    )
    return {row[0] for row in rows}


async def test_every_table_about_an_address_is_spread_by_its_bucket_beside_the_others(spreading: asyncpg.Connection) -> None:
    await spread(spreading)
    assert await placed(spreading, "h") == await about_addresses(spreading) >= {"address", "consent", "push", "told"}
    assert len(await spreading.fetch("select distinct colocationid from pg_dist_partition where partmethod = 'h'")) == 1


async def test_spreading_twice_changes_nothing(spreading: asyncpg.Connection) -> None:
    await spread(spreading)
    before = await spreading.fetch("select * from pg_dist_partition order by 1")
    await spread(spreading)
    assert await spreading.fetch("select * from pg_dist_partition order by 1") == before


async def test_a_table_that_is_asked_together_with_addresses_is_on_every_node(spreading: asyncpg.Connection) -> None:
    await spread(spreading)
    spread_out, whole = await placed(spreading, "h"), await placed(spreading, "n")
    everything = {row[0] for row in await spreading.fetch("select relname from pg_class where relkind = 'r' and pg_table_is_visible(oid)")}
    for name, text in await texts(spreading):
        asked = set(re.findall(r"\b(?:from|join|into|update|using|,)\s+(\w+)\s", text)) & everything
        if asked & spread_out:
            assert asked <= spread_out | whole | {"pg_class"}, name


async def test_a_table_whose_key_lacks_the_bucket_could_not_be_spread(spreading: asyncpg.Connection) -> None:
    await spreading.execute("create table control (bucket smallint, key uuid unique, primary key (bucket, key))")
    with pytest.raises(asyncpg.RaiseError, match="lacks the partition column bucket"):
        await spread(spreading)


@pytest.mark.parametrize(
    ("table", "refused"),
    [
        ("create table control (bucket smallint)", None),
        ("create table control (bucket smallint, n int, unique (n, bucket), foreign key (bucket, n) references control (bucket, n))", None),
        ("create table control (bucket smallint, scope int references scope)", None),
        ("create table control (n int)", 'column "bucket"'),
        ("create table control (bucket smallint, n int unique)", "lacks the partition column"),
        ("create table control (bucket smallint, r int4range, exclude using gist (r with &&))", "lacks the partition column"),
        ("create temporary table control (bucket smallint)", "temporary"),
        ("create table control (bucket smallint, n smallint generated always as identity)", "identity"),
        ("create table control (n smallint, bucket smallint generated always as (n) stored)", "GENERATED"),
        ("create table control (bucket int)", "types differ"),
        ("create table control (bucket smallint, name text references migration)", "must be a distributed table or a reference table"),
        ("create table control (bucket smallint, n uuid, foreign key (bucket, n) references address)", None),
        ("create table control (bucket smallint, n uuid, b smallint, foreign key (b, n) references address)", "in the same place"),
        ("create table control (bucket smallint, n uuid, foreign key (bucket, n) references address on delete set null)", "would change"),
        ("create table control (bucket smallint); alter table control inherit parent", "inheritance"),
        ("create table control (bucket smallint); create trigger t before update on control execute function noticed()", "has triggers"),
        ("create view control as select 1::smallint bucket", "not a regular"),
        ("create table control (bucket point)", "no default operator class"),
    ],
)
async def test_the_stand_in_refuses_the_tables_that_citus_refuses(spreading: asyncpg.Connection, table: str, refused: str | None) -> None:
    await spreading.execute("select create_distributed_table('address', 'bucket'), create_reference_table('scope')")
    await spreading.execute("create table parent (bucket smallint)")
    await spreading.execute("create function noticed() returns trigger language plpgsql as 'begin return new; end'")
    await spreading.execute(table)
    asked = "select create_distributed_table('control', 'bucket', colocate_with => 'address')"
    if refused is None:
        await spreading.execute(asked)
    else:
        with pytest.raises(asyncpg.RaiseError, match=refused):
            await spreading.execute(asked)


async def test_a_table_of_every_node_refers_to_none_that_is_spread(spreading: asyncpg.Connection) -> None:
    await spread(spreading)
    await spreading.execute("create table control (bucket smallint, key uuid, foreign key (bucket, key) references address)")
    with pytest.raises(asyncpg.RaiseError, match="from reference tables"):
        await spreading.execute("select create_reference_table('control')")


IN_ONE_BUCKET = r"\bbucket\s*=\s*(?!any)\S+"
SMALL = "scope|account|mapping|closed|proof|reconciliation"
SPREAD = f"(?:address|asking|closed_pass|consent|drift|echo|listing|mail|push|soft_bounce|told|{SMALL})"
REFUSED = {
    "a trigger": r"\bcreate\s+(?:constraint\s+)?trigger\b",
    "a sequence": r"\b(?:serial|bigserial|nextval|generated\s+\w+\s+as\s+identity)\b",
    "NOTIFY": r"\b(?:notify|listen)\b",
    "the database's time in an upsert": r"do\s+update\s+set[^;]*\b(?:now\(\)|current_timestamp)",
    "a sub-select among values": rf"\binsert\s+into\s+{SPREAD}\b[^;]*?\bvalues\s*\((?:(?!\binsert\b|;).)*?\(\s*select\b",
    "chance in what is set": rf"\bupdate\s+{SPREAD}\b[^;]*?\bset\b(?:(?!\bfrom\b|\bwhere\b)[^;])*\brandom\(",
    "a time and a span in what is set": rf"\bupdate\s+{SPREAD}\b[^;]*?\bset\b(?:(?!\bfrom\b|\bwhere\b)[^;])*\bp?_?now(?:::\w+)?\s*[-+]",
    "a count of distinct pairs": r"\bdistinct\s*\(",
    "a pair in a sub-select": r"\(\s*\w+(?:\.\w+)?\s*,\s*\w+(?:\.\w+)?[^()]*\)\s+in\s*\(\s*select\b",
}


def plain(text: str) -> str:
    """Return a statement without its comments and in small letters."""
    return re.sub(r"--[^\n]*", "", text).lower()


def own() -> Iterator[tuple[str, str]]:
    for path in sorted((SQL / "queries").glob("*.sql")):
        for part in re.split(r"^-- name: ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            yield f"{path.stem}.{part.split()[0]}", plain(part)


async def texts(conn: asyncpg.Connection) -> list[tuple[str, str]]:
    """Every statement of ours: the named ones, and the functions as they stand after the last migration."""
    rows = await conn.fetch(
        """select p.proname, p.prosrc from pg_proc p join pg_language l on l.oid = p.prolang
           where l.lanname in ('sql', 'plpgsql') and p.pronamespace = 'public'::regnamespace"""
    )
    return [*own(), *((row[0], plain(row[1])) for row in rows if not row[0].startswith("create_"))]


async def test_no_statement_is_of_a_kind_that_citus_refuses(conn: asyncpg.Connection) -> None:
    for name, text in await texts(conn):
        for what, shape in REFUSED.items():
            assert not re.search(shape, text), f"{name}: {what}"


async def test_rows_are_claimed_in_one_bucket_at_a_time(conn: asyncpg.Connection) -> None:
    claiming = [(name, text) for name, text in await texts(conn) if "skip locked" in text]
    assert {name for name, _ in claiming} == {"lease", "lease_mails"}
    for name, text in claiming:
        for before in text.split("skip locked")[:-1]:
            assert re.search(IN_ONE_BUCKET, before.rpartition("select")[2]), name


async def test_once_spread_no_row_is_named_by_its_place(spreading: asyncpg.Connection) -> None:
    """A place that one statement found may be another row's by the next."""
    assert any("ctid" in text for _, text in await texts(spreading)), "the control: on one server it is"
    await spread(spreading)
    assert [name for name, text in await texts(spreading) if "ctid" in text] == []


async def test_once_spread_every_plan_is_made_for_its_parameters(spreading: asyncpg.Connection) -> None:
    """Citus makes most plans only with them, and a plan for any parameters is an error when it runs."""
    assert await generic(spreading), "the control: on one server some are made once"
    await spread(spreading)
    assert await generic(spreading) == []


async def generic(conn: asyncpg.Connection) -> list[str]:
    rows = await conn.fetch("select proname from pg_proc where 'plan_cache_mode=force_generic_plan' = any(proconfig)")
    return [row[0] for row in rows]


async def test_once_spread_nothing_counts_on_recursion(spreading: asyncpg.Connection) -> None:
    assert any("recursive" in text for _, text in await texts(spreading)), "the control: on one server a function does"
    await spread(spreading)
    assert [name for name, text in await texts(spreading) if "recursive" in text] == []


async def test_once_spread_no_function_asks_for_the_lock_of_a_table(spreading: asyncpg.Connection) -> None:
    """Citus asks every node for it, one after the other [resource_lock.c: AcquireDistributedLockOnRelations_Internal]."""
    shape = r"\block table\b"
    assert {name for name, text in await texts(spreading) if "." not in name and re.search(shape, text)} >= {"known", "settle"}, (
        "the control"
    )
    await spread(spreading)
    assert [name for name, text in await texts(spreading) if "." not in name and re.search(shape, text)] == []


async def test_once_spread_whoever_reads_the_mappings_holds_them_until_the_end(
    spreading: asyncpg.Connection, database: str, addresses: Addresses, now: datetime
) -> None:
    await spread(spreading)
    other = await asyncpg.connect(database)
    async with spreading.transaction():
        await spreading.execute("select known($1, $2, $3)", [1], [uuid4()], now)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await other.execute("begin; lock table mapping in access exclusive mode nowait")
        await other.execute("rollback")
    async with other.transaction():
        await other.execute("lock table mapping in access exclusive mode nowait")  # and no longer
    await other.close()


async def test_once_spread_what_is_asked_of_a_list_is_asked_of_the_shards_that_it_names(spreading: asyncpg.Connection) -> None:
    """Else of all of them [shard_pruning.c: SAORestrictions], be it about one address."""
    given = "select proname, pg_get_functiondef(oid) from pg_proc where pg_get_function_identity_arguments(oid) ~ 'p_bucket smallint\\[\\]'"
    spread_out = "|".join(await about_addresses(spreading))
    joined = rf"\bjoin (?:{spread_out}) (\w+) on \1\.bucket = "

    async def of_all() -> set[str]:
        return {row[0] for row in await spreading.fetch(given) if re.search(joined, row[1])}

    assert await of_all() >= {"fold", "decided", "record_few", "record_many"}
    await spread(spreading)
    assert await of_all() == set()
    before = await spreading.fetch(given + " order by oid")
    await spread(spreading)
    assert await spreading.fetch(given + " order by oid") == before


async def test_once_spread_no_shard_looks_for_a_long_list_in_as_many_places_as_it_has_rows(spreading: asyncpg.Connection) -> None:
    """Ten thousand decisions took seventy times as long: a list names its shards while it is short, and nothing once it is long."""
    await spread(spreading)
    whole = "".join([row[0] for row in await spreading.fetch("select pg_get_functiondef(oid) from pg_proc where prosrc ~ 'any.p_bucket.'")])
    bounded = re.findall(r"\(cardinality\(p_bucket\) > 16 or \w+\.bucket = any\(p_bucket\)\)", whole)
    assert len(bounded) == whole.count("any(p_bucket)") > 10

    async def asked(length: int) -> str:
        condition = bounded[0].replace("p_bucket", "$1::smallint[]").partition(" or ")[0] + " or bucket = any($1))"
        return "".join([row[0] for row in await spreading.fetch(f"explain select from address where {condition}", [1] * length)])

    assert ["ANY" in await asked(length) for length in (1, 16, 17, 1_000)] == [True, True, False, False]
    assert "cardinality" not in await asked(1) + await asked(17), "it is known before anything is read, and no shard is asked about it"


# [shard_pruning.c] The hashes of a column are cut into ranges of one length, and the shards are numbered in their order.
OF_32 = """
    create or replace function pg_catalog.get_shard_id_for_distribution_column(table_name regclass, distribution_value smallint)
    returns bigint language sql immutable as $$ select (hashint2(distribution_value) + 2147483648) / (4294967296 / 32) $$"""


async def test_once_spread_what_is_settled_is_locked_shard_by_shard(
    spreading: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    """As a statement that changes what several people are owed does it; on one server both go bucket by bucket."""
    await know(spreading, [Entry(addresses.read(f"p{n}@example.org")) for n in range(40)], now=now)

    async def settled() -> list[int]:
        token, owed = uuid4(), "insert into push select bucket, 1, key, 272, 1, true, $1, $1, 1, '-infinity', $2, $3 from address"
        await spreading.execute(owed, now, token, now + timedelta(hours=1))
        rows = await spreading.fetch("select bucket, key, 272, 1 from push order by key")
        done = [outbox.Fate.DONE.value] * len(rows)
        spans = [timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=72)]
        await spreading.fetch(SETTLE, token, True, *zip(*rows, strict=True), done, done, now, *spans, now)
        return [row[0] for row in await spreading.fetch("select bucket from told order by ctid")]

    plain = await within(spreading, settled())
    assert plain == sorted(plain)
    await spread(spreading)
    assert await within(spreading, settled()) == plain, "the control: of one shard"
    await spreading.execute(OF_32)
    by_shard = await within(spreading, settled())
    shards = [await spreading.fetchval("select get_shard_id_for_distribution_column('push', $1)", each) for each in by_shard]
    assert shards == sorted(shards)
    assert by_shard != plain


# What is refused there; and what folds in a step of its own, since a statement that writes in a step is done step by step.
ASKED_OF_ONE_SERVER = (
    *("exports.", "feed.", "webhooks.", "left_since", "reached_at", "summary_at"),
    *("lease_mails", "record_many", "record_few"),
)


async def test_once_spread_what_reads_the_ledger_is_called_beside_no_table_of_one_node(spreading: asyncpg.Connection) -> None:
    """Such a statement is sent whole to that node, which may not ask the others."""
    reading = await reading_addresses(spreading, await texts(spreading)) | {"summary"}
    assert "summary" in beside_one_node(reading, await texts(spreading)), "the control: on one server it joins fold and scope"
    await spread(spreading)
    assert beside_one_node(reading, await texts(spreading)) == set()


async def test_once_spread_a_list_of_several_columns_is_numbered_where_it_is_joined(spreading: asyncpg.Connection) -> None:
    """Else Citus takes it apart by the type of its first column."""
    shape = r"\bunnest\([^()]+,[^()]+\) u\([^()]*\)(?: join\b|,| on\b)|\bjoin unnest\([^()]+,[^()]+\) \w+\("
    of_one_bucket = r"\bbucket = (?:b\b|each\.|sent\.)|\b(?:mapping|reconciliation)\b"
    assert any(re.search(shape, flat(text)) for _, text in await texts(spreading)), "the control: on one server it need not be"
    await spread(spreading)
    for name, text in await texts(spreading):
        for statement in flat(text).split(";"):
            assert not re.search(shape, statement) or re.search(of_one_bucket, statement) or name.startswith(ASKED_OF_ONE_SERVER), name


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def beside_one_node(reading: set[str], every: list[tuple[str, str]]) -> set[str]:
    """Return the names of statements that call a function which reads spread tables, and are of one bucket or of small tables alone."""
    found = set()
    for name, text in every:
        for statement in re.split(r";|\bmaterialized\b", text):
            called = re.search(rf"\b(?:from|join|lateral)\s+(?:{'|'.join(sorted(reading))})\(", statement)
            small = re.search(rf"\b(?:from|join)\s+(?:{SMALL})\b", statement)
            large = re.search(r"\b(?:from|join)\s+(?:address|consent|told|push|echo|listing)\b", statement)
            of_one = large and re.search(IN_ONE_BUCKET.replace(r"\S+", r"(?::|p_|each\.)"), statement)
            if called and (of_one or (small and not large)):
                found.add(name)
    return {name for name in found if not name.startswith(ASKED_OF_ONE_SERVER)}


async def test_once_spread_a_list_of_ours_is_laid_beside_no_table_from_which_it_may_lack_something(spreading: asyncpg.Connection) -> None:
    """Citus would read all of the table for it."""
    spread_out = f"(?:{'|'.join(sorted(await about_addresses(spreading)))})"
    beside = rf"(?:(?!\bselect\b|;|(?<!left )\bjoin {spread_out}\b).)*?"  # unless rows of such a table are there already
    shape = rf"\bunnest\({beside}\bleft join {spread_out} \w+ on\b"
    control = "select 1 from unnest($1::int[]) q(bucket) join scope s on true left join address a on a.bucket = q.bucket"
    assert re.search(shape, control)
    await spread(spreading)
    laid = {name for name, text in await texts(spreading) if re.search(shape, flat(text))}
    assert laid == set()


async def test_no_function_that_reads_addresses_is_called_for_each_row_of_them(conn: asyncpg.Connection) -> None:
    """A shard cannot ask the cluster: what is called for each row of a spread table must need nothing but its arguments."""
    every = await texts(conn)
    reading = await reading_addresses(conn, every)
    for name, text in every:
        called = re.findall(rf"\b({'|'.join(reading)})\(\s*(?:array\[)?\w+\.(?:bucket|key)\b", text)
        assert not called, f"{name} calls {called[0]} for each row"


async def reading_addresses(conn: asyncpg.Connection, every: list[tuple[str, str]]) -> set[str]:
    names = "|".join(await about_addresses(conn))
    return {name for name, text in every if "." not in name and re.search(rf"\b(?:from|join)\s+(?:{names})\b", text)}


DEFINITIONS = """select p.oid::regprocedure::text, pg_get_functiondef(p.oid) from pg_proc p join pg_language l on l.oid = p.prolang
                 where p.pronamespace = 'public'::regnamespace and p.prokind = 'f' and l.lanname in ('sql', 'plpgsql')"""
SETTLE = "select settle(1::smallint, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
STAYS = """select bucket, account, key, scope, stop, want, since, refused, attempts, refusals, unsure_until, lease_until > $1, due_at > $1
           from push where due_at < 'infinity' order by 1, 2, 3, 4"""  # when it is tried again depends on chance
CALLED = "select funcid::regprocedure::text from pg_stat_xact_user_functions"
LANGUAGES = """select p.proname || '/' || p.pronargs, l.lanname from pg_proc p join pg_language l on l.oid = p.prolang
               where p.pronamespace = 'public'::regnamespace"""


async def test_once_spread_no_function_in_sql_reads_a_table_that_is(spreading: asyncpg.Connection) -> None:
    reading = await reading_addresses(spreading, await texts(spreading))
    before = {row[0]: row[1] for row in await spreading.fetch(LANGUAGES)}
    assert "sql" in {before[name] for name in before if name.split("/")[0] in reading}  # else there were nothing to do
    await spread(spreading)
    after = {row[0]: row[1] for row in await spreading.fetch(LANGUAGES)}
    assert {after[name] for name in after if name.split("/")[0] in reading | {"summary", "summary_at"}} == {"plpgsql"}
    assert after["allowed/8"] == after["held/5"] == "sql"  # what reads none goes along to the shards, and is inlined there


THERE_REFUSED = ("fold_at", "left_since", "reached_at", "summary_at")  # with NotOnACluster, before they are asked
LEASE = "select key, scope from lease(1::smallint, $1, $2, $3, 10, $4, $5, $6, $7, $5) order by 1, 2"


async def answers(conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, now: datetime) -> list[Any]:
    """What a small history comes to, by every way that people are asked about and accounts are told."""
    people = [addresses.read(f"p{n}@example.org") for n in range(6)]
    await know(conn, [Entry(each) for each in people], now=now)
    soon = now + timedelta(hours=1)
    history = [
        Change(people[0], 272, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now),
        Change(people[1], 257, Cause.COMPLAINT, Effect.STOP, Door.PROVIDER, "2", now, by="sendgrid-main"),
        Change(people[2], 257, Cause.PAUSE, Effect.STOP, Door.PAGE, "3", now, until=soon),
        Change(people[3], 272, Cause.CHOICE, Effect.STOP, Door.PAGE, "4", now),
        Change(people[3], 272, Cause.CHOICE, Effect.GO, Door.MANAGE, "5", now + timedelta(seconds=1)),
        Change(people[4], 274, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "6", now),
    ]
    recorded = [await record(conn, [each], now=now) for each in history] + [await record(conn, history, now=now)]
    crowd = [addresses.read(f"c{n}@example.org") for n in range(FEW + 1)]  # by their keys alone: nobody is told of most of them
    for scope, effect, door in ((272, Effect.STOP, Door.LINK), (274, Effect.STOP, Door.PAGE), (274, Effect.GO, Door.MANAGE)):
        many = [Change(each, scope, Cause.CHOICE, effect, door, f"{effect}{scope}{n}", now) for n, each in enumerate(crowd)]
        recorded += [await record(conn, many, now=now), await record(conn, [replace(each, id=f"{each.id}b") for each in many[:2]], now=now)]
    await know(conn, [Entry(each) for each in crowd[:2]], now=now)
    recorded += await undone(conn, people, now)
    owed = await conn.fetch("select bucket, account, key, scope, want, stop, since, due_at, unsure_until from push order by 1, 2, 3, 4")
    questions = [Question(each, each.text or "", topic) for each in people for topic in ("newsletter", "partners")]
    decisions = await decide(conn, questions, shared_catalogue, now=now)
    summaries = await conn.fetch("select * from summary($1, $2) order by key", [p.bucket for p in people], [p.key for p in people])
    listed: list[bytes] = []

    async def sink(chunk: bytes) -> None:
        listed.append(chunk)

    await audience.stream(conn, shared_catalogue.topic("newsletter"), Channel.EMAIL, sink, now=now, order="ordered")
    await audience.stream(conn, shared_catalogue.topic("newsletter"), Channel.EMAIL, sink, now=now)
    listed.sort()  # as they lie, which is not the same twice
    leased = [await told(conn, True, now, quiet=timedelta(minutes=1))]
    for quiet in (timedelta(hours=2), timedelta(minutes=1)):  # of whom somebody spoke lately, nothing is told yet
        leased.append(await told(conn, False, now, quiet=quiet))
        await conn.execute("update push set due_at = since where due_at < 'infinity'")
    await post.ask(conn, Purpose.MANAGE, people[0], 256, language="en", now=now)
    mails = [tuple(row)[2:] async for row in db.queries("post").lease(conn, now=now, until=soon, most=5)]
    stands = await conn.fetch("select * from standing order by 1, 2, 3, 4")
    decided = [(each.allowed, each.reasons) for each in decisions]
    whole = await differing(conn)
    await conn.execute("update address set goes = '{272}' where key = $1", people[5].key)
    differ = [whole, await differing(conn)]
    await conn.execute(db.text("inbox", "tally"), now, "sendgrid-main", ["bounce", "open"], [2, 3])
    heard = await conn.fetch("select * from heard order by account, kind")
    spoken = [await conn.fetchval("select spoken($1, $2)", each.bucket, each.key) for each in people]
    there = [tuple(await buckets(conn)), differ, heard, spoken]
    return [recorded, owed, decided, summaries, listed, leased, mails, stands, there, await laid_beside(conn, people, now)]


async def buckets(conn: asyncpg.Connection) -> list[int]:
    return [row[0] for row in await conn.fetch("select buckets()")]


async def told(conn: asyncpg.Connection, stop: bool, now: datetime, *, quiet: timedelta) -> list[tuple[Any, ...]]:
    """Lease what is owed in one direction, and settle it in every way: return what was leased, the verdicts, and what stays."""
    token, soon = uuid4(), now + timedelta(hours=1)
    leased = await conn.fetch(LEASE, [272], ["sendgrid/12345"], stop, token, soon, timedelta(minutes=1), quiet)
    rows = await conn.fetch("select bucket, key, scope, want from push where lease = $1 order by 1, 2, 3", token)
    fates = [each.value for each, _ in zip(cycle(outbox.Fate), rows, strict=False)]
    values: list[Any] = [token, stop, *([row[n] for row in rows] for n in range(4)), fates, ["code" for _ in fates]]
    verdicts = await conn.fetch(SETTLE, *values, now, timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=72), now)
    stays = await conn.fetch(STAYS, now)
    return [*map(tuple, leased), *sorted(map(tuple, verdicts)), *map(tuple, stays)]


async def laid_beside(conn: asyncpg.Connection, people: list[Address], now: datetime) -> list[tuple[Any, ...]]:
    """Lay lists of an account beside what we hold, of whom we know and a stranger, read at the same time and a day later."""
    later = now + timedelta(days=1)
    await conn.execute("delete from push")
    await conn.execute("insert into reconciliation values (1, 272, $1, $1, 1, '{}', true, true)", now + timedelta(hours=12))
    for who in people:
        await conn.execute("insert into listing values (1, 272, $1, $2, 'choice', null)", who.bucket, who.key)
    await conn.execute("delete from listing where key = $1", people[1].key)
    await conn.execute("insert into listing values (1, 272, 7, $1, 'complaint', $2)", uuid4(), now)
    back, never = uuid4(), uuid4()
    await conn.execute(
        "insert into address (bucket, key, channel, plaintext) values (8, $1, 'email', 'b'), (9, $2, 'email', 'n')", back, never
    )
    await conn.execute("insert into told values (8, 1, $1, 272, false, $2, $2, $2)", back, now)
    await conn.execute("insert into listing values (1, 272, 8, $1, 'choice', null), (1, 272, 9, $2, 'bounce', $3)", back, never, now)
    asked = "select bucket, kind, cause, at from differ(1::smallint, 272, $1, interval '1 minute', $2) order by 1, 2, 3, 4"
    found = [tuple(row) for at in (now, later) for row in await conn.fetch(asked, at, at)]
    await conn.execute("insert into echo select bucket, 1, 272, key, $1 from address", later)
    found += [tuple(row) for row in await conn.fetch(asked, later, later)]
    return found


async def undone(conn: asyncpg.Connection, people: list[Address], now: datetime) -> list[list[bool]]:
    """Record what looks back at what was told or recorded before: both ways of each."""
    teller = await conn.fetchval("select name from account where account = 1")
    later = now + timedelta(minutes=1)
    for who, stop, at in ((people[5], False, later), (people[4], True, now), (people[2], False, now - timedelta(hours=1))):
        values = (who.bucket, who.key, stop, at)
        await conn.execute("insert into told values ($1, 1, $2, 272, $3, $4, $4, $4)", *values)

    def change(who: Address, effect: Effect, door: Door, id: str, at: datetime, by: str | None = None) -> Change:
        return Change(who, 272, Cause.CHOICE, effect, door, id, at, by=by)

    calls = [
        [change(people[5], Effect.STOP, Door.PROVIDER, "7", now, teller), change(people[2], Effect.STOP, Door.PROVIDER, "8", now, teller)],
        [change(people[4], Effect.STOP, Door.PAGE, "9", now)],
        [change(people[4], Effect.GO, Door.MANAGE, "10", later)],
        [change(people[1], Effect.STOP, Door.PAGE, "11", now), change(people[1], Effect.GO, Door.MANAGE, "12", later)],
        [change(people[1], Effect.GO, Door.MANAGE, "12", later), change(people[1], Effect.STOP, Door.PAGE, "13", later)],
        [change(people[1], Effect.GO, Door.MANAGE, "14", later), change(people[1], Effect.STOP, Door.PAGE, "15", later)],
        [change(people[3], Effect.STOP, Door.LINK, "16", later)],
        [change(people[0], Effect.GO, Door.MANAGE, "17", later)],
        [change(people[0], Effect.STOP, Door.LINK, "18", later)],
        [change(people[0], Effect.GO, Door.MANAGE, "17", later), change(people[0], Effect.STOP, Door.LINK, "19", later)],  # a go of before
        [change(people[3], Effect.WITHDRAW, Door.PAGE, "page:4", later)],
    ]
    return [await record(conn, each, now=later) for each in calls]


async def test_once_spread_every_answer_is_what_it_was(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, now: datetime
) -> None:
    plain = await within(conn, answers(conn, shared_catalogue, addresses, now))
    assert all(plain)  # else it says little
    assert {kind for _, kind, *_ in plain[-1]} == {"theirs", "stranger", "ours", "stale", "unsettled"}
    before = {row[0]: row[1] for row in await conn.fetch(DEFINITIONS)}
    await stand_in(conn)
    await spread(conn)
    otherwise = {name for name, text in await conn.fetch(DEFINITIONS) if before.get(name) != text}
    await conn.execute("set track_functions = pl")
    called: set[str] = set()

    async def asked() -> list[Any]:
        found = await answers(conn, shared_catalogue, addresses, now)
        called.update(row[0] for row in await conn.fetch(CALLED))
        return found

    assert await within(conn, asked()) == plain
    assert {name for name in otherwise - called if not name.startswith(THERE_REFUSED)} == set()  # else nobody compared them


FAULTS = (
    ("fold(smallint[], uuid[])", "off_at >= r.on_at", "off_at > r.on_at + interval '1 day'"),
    ("summary(smallint[], uuid[])", "the_grants, the_claims)", "the_claims, the_grants)"),
    ("decided(smallint[], uuid[], text[], int[], timestamptz)", "a.n = q.n", "a.n = q.n + 1"),
    ("record_few", "left join overtaken o on o.n = c.n", "left join overtaken o on false"),
    ("record_few", "excluded.lease_until = '-infinity'", "true"),
    ("record_few", "left join met k on k.n = g.n", "left join met k on false"),
    ("record_many", "where concerned and", "where not concerned and"),
    ("lease", "and p.key = f.key and p.scope = f.scope", "and p.scope = f.scope + 1"),
    ("settle", "w.verdict = 'settled' and w.turns_at is null)", "w.verdict = 'settled' or w.turns_at is null)"),
    ("differ(smallint, int, timestamptz, timestamptz)", "then 'stale'", "then 'theirs'"),
    ("differ(smallint, int, timestamptz, interval, timestamptz)", "n.key is null and s.key is null", "s.key is null"),
    ("standings()", "from address a;", "from address a where false;"),
    ("buckets()", "order by 1", "order by 1 desc"),
)


async def test_a_fault_in_the_text_of_a_cluster_is_found_out(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, now: datetime
) -> None:
    """The control of the comparison: with any of these, some answer is another one."""
    plain = await within(conn, answers(conn, shared_catalogue, addresses, now))
    await stand_in(conn)
    await spread(conn)

    async def faulty(name: str, text: str, fault: str) -> list[Any]:
        kind = "regprocedure" if "(" in name else "regproc"
        body = await conn.fetchval(f"select pg_get_functiondef($1::text::{kind})", name)
        assert text in body, (name, text)
        await conn.execute(body.replace(text, fault))
        return await answers(conn, shared_catalogue, addresses, now)

    for fault in FAULTS:
        assert await within(conn, faulty(*fault)) != plain, fault
    assert await within(conn, answers(conn, shared_catalogue, addresses, now)) == plain


async def within(conn: asyncpg.Connection, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what work comes to, and undo it."""
    undone = conn.transaction()
    await undone.start()
    try:
        return await work
    finally:
        await undone.rollback()


async def test_what_wants_one_order_of_commits_is_refused_once_spread(
    spreading: asyncpg.Connection, shared_catalogue: Catalogue, now: datetime
) -> None:
    """A worker that has webhooks does not start, and no export is kept: a feed that passes over somebody is believed all the same."""
    heard = shared_catalogue.model_copy(update={"webhook": (Webhook(name="crm", url="https://crm.example.com/", secret="CRM_SECRET"),)})

    async def asked() -> None:
        said: dict[str, Any] = {"purpose": "test", "requester": "test", "expires_at": now + timedelta(days=1), "now": now}
        await exports.ask(spreading, shared_catalogue.topic("newsletter"), Channel.EMAIL, Shape(), **said)

    await webhooks.introduce(spreading, heard, now=now)
    await asked()
    await spread(spreading)
    await webhooks.introduce(spreading, shared_catalogue, now=now)  # of those it has none
    for refused in (webhooks.introduce(spreading, heard, now=now), asked()):
        with pytest.raises(NotOnACluster):
            await refused


@pytest.mark.parametrize(
    "text",
    [
        "create trigger t before update on address",
        "insert into a values (1) on conflict (b) do update set c = now()",
        "select 1 from a where (a.bucket, a.key) in (select * from unnest($1, $2))",
        "select nextval('x')",
        "insert into account values ((select max(account) + 1 from account), 'x')",
        "insert into asking values (1, 'x') on conflict (bucket, key) do update set granted = (select true from unnest(k.times))",
        "update push p set stop = true, due_at = now + random() * wait from answer where p.bucket = 1",
        "update push set unsure_until = case when lease is null then unsure_until else p_now + p_settle end",
        "select count(distinct (bucket, key)) from listing",
    ],
)
def test_the_shapes_find_what_they_are_for(text: str) -> None:
    assert any(re.search(shape, text) for shape in REFUSED.values())


def test_the_script_is_one_statement_after_the_other() -> None:
    begun = [re.split(r"[($]", each.replace("function ", "function $"))[0].strip() for each in statements()]
    assert begun[:3] == ["select create_distributed_table"] * 2 + ["select create_reference_table"]
    assert {re.sub(r"view.*", "view", each) for each in begun[3:]} == {"create or replace function", "create or replace view", "do"}


def test_no_test_that_runs_on_a_cluster_makes_a_trigger() -> None:
    """Citus refuses it for every table that is spread [trigger.c: ErrorOutForTriggerIfNotSupported]."""
    making = [
        each.name
        for path in Path(__file__).parent.rglob("test_*.py")
        if path.stem not in NOT_ON_A_CLUSTER
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(
            re.search(REFUSED["a trigger"], one.value)
            for one in ast.walk(each)
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
        )
    ]
    assert len(making) > 3
    assert [name for name in making if not name.startswith(OF_ONE_SERVER)] == []
