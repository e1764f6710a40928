"""What a Citus cluster asks of tables and statements is held here; `make test-citus CITUS_URL=…` holds the suite on one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import asyncpg
import pytest

from mailprefs import shipped

from .citus import spread, statements

SQL = shipped.folder("sql")
# As Citus 13 and 14 do: a distributed table has its column in every unique key, and refers to none but reference tables.
DOUBLE = """
create table pg_dist_partition (logicalrelid regclass primary key, partmethod "char" not null, beside text);
create function create_distributed_table(name text, by text, colocate_with text default 'default') returns void language plpgsql as $$
begin
  if exists (
    select from pg_index i
    where i.indrelid = name::regclass and i.indisunique
      and not (select a.attnum from pg_attribute a where a.attrelid = i.indrelid and a.attname = by) = any(i.indkey::int2[])) then
    raise 'a unique key of % lacks %', name, by;
  end if;
  if exists (select from pg_trigger where tgrelid = name::regclass) then raise '% has a trigger or a foreign key', name; end if;
  insert into pg_dist_partition values (name::regclass, 'h', colocate_with);
end $$;
create function create_reference_table(name text) returns void language plpgsql as $$
begin
  if exists (
    select from pg_constraint c left join pg_dist_partition p on p.logicalrelid = c.confrelid
    where c.conrelid = name::regclass and c.contype = 'f' and p.partmethod is distinct from 'n') then
    raise '% refers to a table that is not on every node', name;
  end if;
  insert into pg_dist_partition values (name::regclass, 'n');
end $$;
"""


@pytest.fixture
async def spreading(conn: asyncpg.Connection) -> asyncpg.Connection:
    """A database that takes the calls of sql/citus.sql, and refuses what Citus refuses."""
    await conn.execute(DOUBLE)
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
    assert await spreading.fetch("select from pg_dist_partition where beside <> 'address' and logicalrelid <> 'address'::regclass") == []


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
    with pytest.raises(asyncpg.RaiseError, match="lacks bucket"):
        await spread(spreading)


REFUSED = {
    "a trigger": r"\bcreate\s+(?:constraint\s+)?trigger\b",
    "a sequence": r"\b(?:serial|bigserial|nextval|generated\s+\w+\s+as\s+identity)\b",
    "NOTIFY": r"\b(?:notify|listen)\b",
    "the database's time in an upsert": r"do\s+update\s+set[^;]*\b(?:now\(\)|current_timestamp)",
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


@pytest.mark.parametrize(
    "text",
    [
        "create trigger t before update on address",
        "insert into a values (1) on conflict (b) do update set c = now()",
        "select 1 from a where (a.bucket, a.key) in (select * from unnest($1, $2))",
        "select nextval('x')",
    ],
)
def test_the_shapes_find_what_they_are_for(text: str) -> None:
    assert any(re.search(shape, text) for shape in REFUSED.values())


def test_the_script_is_one_statement_after_the_other() -> None:
    assert len(statements()) == 3
    assert all(each.startswith("select create_") for each in statements())
