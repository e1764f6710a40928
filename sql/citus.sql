-- Spreads the tables over a Citus cluster: on the coordinator, as their owner, after each `mailprefs migrate`. Once more changes nothing.
-- Every table about an address goes by its bucket, all beside one another, so that what is asked of one address is asked of one shard.
-- Small tables that such questions look into stand whole on every node. The others stay on the coordinator, and everybody connects to it.
-- What it costs and what does not work there: docs/growing.md.

select create_distributed_table('address', 'bucket', colocate_with => 'none')
where not exists (select from pg_dist_partition where logicalrelid = 'address'::regclass);

select create_distributed_table(t.name, 'bucket', colocate_with => 'address')
from (
  select c.relname::text as name
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid and a.attname = 'bucket'
  left join pg_index i on i.indrelid = c.oid and i.indisprimary
  where c.relkind = 'r' and pg_table_is_visible(c.oid) and coalesce(i.indkey[0] = a.attnum, true)
    and not exists (select from pg_dist_partition p where p.logicalrelid = c.oid)
  order by c.oid
  offset 0) t;

-- those that others refer to come first
select create_reference_table(t.name)
from (
  select u.name
  from unnest(array['scope', 'account', 'mapping', 'closed', 'proof', 'reconciliation', 'webhook']) with ordinality u(name, n)
  where not exists (select from pg_dist_partition p where p.logicalrelid = u.name::regclass)
  order by u.n
  offset 0) t;

-- Citus plans no function in SQL that reads such tables, be it by another function, and advises PL/pgSQL: the same text in another frame.
-- `mailprefs migrate` may have replaced one, so this too is run after it.
do $spread$
declare
  f record;
begin
  loop
    select p.proretset, p.prosrc, pg_get_functiondef(p.oid) whole into f
    from pg_proc p join pg_language l on l.oid = p.prolang
    where l.lanname = 'sql' and p.pronamespace = current_schema()::regnamespace
      and (exists (select from pg_dist_partition d where p.prosrc ~ ('\m(from|join)\s+\(?' || d.logicalrelid::regclass::text || '\M'))
        or exists (
          select from pg_proc g join pg_language k on k.oid = g.prolang
          where k.lanname = 'plpgsql' and g.pronamespace = p.pronamespace and p.prosrc ~ ('\m(from|join|lateral)\s+' || g.proname || '\(')))
    limit 1;
    exit when not found;
    execute replace(split_part(f.whole, 'AS $function$', 1), ' LANGUAGE sql', ' LANGUAGE plpgsql')
      || E'AS $function$\n#variable_conflict use_column\nbegin\n'
      || case when f.proretset then 'return query ' || f.prosrc else 'return (' || f.prosrc || ')' end
      || E';\nend $function$';
  end loop;
end $spread$;
