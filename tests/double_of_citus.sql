-- Stands in for Citus on one ordinary PostgreSQL, as far as sql/citus.sql asks it: it writes down what is spread and how, moves nothing, and
-- refuses a table that Citus 13 and 14 refuse. In brackets whose rule it is there, in src/backend/distributed/commands.

set allow_system_table_mods = on;  -- where Citus has it: among the system's own
create table pg_catalog.pg_dist_partition (
  logicalrelid regclass primary key,
  partmethod "char" not null,  -- h by hash, n whole on every node
  partkey text,  -- there it is a tree; here the column's name
  colocationid int not null);
reset allow_system_table_mods;
grant select on pg_catalog.pg_dist_partition to public;

-- [create_distributed_table.c: CreateCitusTable, EnsureRelationCanBeDistributed] What no table may be that is spread, whole or by a column.
create function pg_catalog.refuse_undistributable(t regclass) returns void language plpgsql as $$
declare
  c record;
begin
  select * into c from pg_class where oid = t;
  if c.relkind not in ('r', 'p', 'f') then raise '% is not a regular, foreign or partitioned table', t; end if;
  if c.relpersistence = 't' then raise 'cannot distribute a temporary table'; end if;
  if exists (select from pg_dist_partition p where p.logicalrelid = t) then raise 'table "%" is already distributed', t; end if;
  if exists (select from pg_inherits i where t in (i.inhrelid, i.inhparent)) and c.relkind = 'r' then
    raise '% is part of an inheritance of tables', t;
  end if;
  if exists (select from pg_trigger g where g.tgrelid = t and not g.tgisinternal) then
    raise 'cannot distribute relation "%" because it has triggers', t;
  end if;
  if exists (select from pg_policy p where p.polrelid = t and concat(p.polqual, p.polwithcheck) ~ 'SUBLINK') then
    raise 'policies on % contain subqueries', t;
  end if;
  -- [sequence.c] a number given out by the table itself is bigint, or the nodes would run out of ranges
  if exists (select from pg_attribute a where a.attrelid = t and a.attidentity <> '' and a.atttypid <> 'bigint'::regtype) then
    raise 'cannot complete operation on % with smallint/int identity column', t;
  end if;
end $$;

-- [foreign_constraint.c: ErrorIfUnsupportedForeignConstraintExists] From a spread table to one beside it by its column, or to a whole one;
-- from a whole one to a whole one.
create function pg_catalog.refuse_foreign_keys(t regclass, spread_by text, beside int) returns void language plpgsql as $$
declare
  f record;
begin
  for f in
    select k.conname, k.confrelid::regclass to_table, k.confdeltype, k.confupdtype, p.partmethod, p.colocationid,
      array_position(k.conkey, a.attnum) here, array_position(k.confkey, b.attnum) there
    from pg_constraint k
    left join pg_dist_partition p on p.logicalrelid = k.confrelid
    left join pg_attribute a on a.attrelid = k.conrelid and a.attname = spread_by
    left join pg_attribute b on b.attrelid = k.confrelid and b.attname = p.partkey
    where k.conrelid = t and k.contype = 'f' and k.confrelid <> t
  loop
    if f.partmethod is null then
      raise 'referenced table "%" must be a distributed table or a reference table', f.to_table;
    elsif spread_by is null and f.partmethod = 'h' then
      raise 'foreign keys from reference tables and local tables to distributed tables are not supported';
    elsif f.partmethod = 'h' and f.colocationid is distinct from beside then
      raise 'relations are not colocated or not referencing a reference table';
    elsif f.partmethod = 'h' and (f.here is null or f.here is distinct from f.there) then
      raise 'the foreign key % does not include the distribution column in the same place', f.conname;
    elsif f.here is not null and (f.confdeltype in ('n', 'd') or f.confupdtype in ('n', 'd', 'c')) then
      raise 'the foreign key % would change the distribution column', f.conname;
    end if;
  end loop;
end $$;

create function pg_catalog.create_distributed_table(table_name regclass, distribution_column text, distribution_type text default 'hash',
  colocate_with text default 'default', shard_count int default null) returns void language plpgsql as $$
declare
  col pg_attribute;
  beside record;
  k record;
begin
  perform refuse_undistributable(table_name);
  select * into col from pg_attribute a where a.attrelid = table_name and a.attname = distribution_column and a.attnum > 0;
  if not found then raise 'column "%" of relation "%" does not exist', distribution_column, table_name; end if;
  if col.attgenerated <> '' then raise 'Distribution column must not use GENERATED ALWAYS AS (...) STORED.'; end if;
  if not exists (  -- [SupportFunctionForColumn]
    select from pg_opclass o join pg_am m on m.oid = o.opcmethod
    where m.amname = 'hash' and o.opcdefault and o.opcintype = col.atttypid) then
    raise 'data type % has no default operator class for hash', col.atttypid::regtype;
  end if;
  if exists (select from pg_collation l where l.oid = col.attcollation and not l.collisdeterministic) then
    raise 'Hash distributed partition columns may not use a non deterministic collation';
  end if;
  -- [ErrorIfUnsupportedConstraint] each unique index, which a primary key is too, and each EXCLUDE, where the column must be told apart by =
  for k in
    select i.indexrelid::regclass as name, i.indisexclusion, c.conexclop[array_position(i.indkey::int2[], col.attnum) + 1] by_operator,
      col.attnum = any(i.indkey::int2[]) has
    from pg_index i left join pg_constraint c on c.conindid = i.indexrelid and c.contype = 'x'
    where i.indrelid = table_name and (i.indisunique or i.indisexclusion)
  loop
    if not k.has or (k.indisexclusion and k.by_operator is not null and (select oprname from pg_operator where oid = k.by_operator) <> '=') then
      raise 'cannot create constraint on "%": % lacks the partition column %', table_name, k.name, distribution_column;
    end if;
  end loop;
  -- [colocation_utils.c: EnsureTableCanBeColocatedWith]
  if colocate_with not in ('default', 'none') then
    select p.colocationid, a.atttypid into beside
    from pg_dist_partition p join pg_attribute a on a.attrelid = p.logicalrelid and a.attname = p.partkey
    where p.logicalrelid = colocate_with::regclass and p.partmethod = 'h';
    if not found then raise 'relation % is not distributed', colocate_with; end if;
    if beside.atttypid <> col.atttypid then raise 'cannot colocate tables % and %: their columns'' types differ', colocate_with, table_name; end if;
  else
    select (select coalesce(max(p.colocationid), 0) + 1 from pg_dist_partition p) colocationid into beside;
  end if;
  perform refuse_foreign_keys(table_name, distribution_column, beside.colocationid);
  insert into pg_dist_partition values (table_name, 'h', distribution_column, beside.colocationid);
end $$;

create function pg_catalog.create_reference_table(table_name regclass) returns void language plpgsql as $$
begin
  perform refuse_undistributable(table_name);
  perform refuse_foreign_keys(table_name, null, null);
  insert into pg_dist_partition values (table_name, 'n', null, 0);
end $$;

-- Nothing is moved, so all are in one shard: here a statement about several people locks them by their buckets, as on any one server.
create function pg_catalog.get_shard_id_for_distribution_column(table_name regclass, distribution_value smallint) returns bigint
language sql immutable as $$ select 1::bigint $$;
