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

-- The write path, as Citus takes it: no outer join and no sub-select from a list of our own to a spread table, which it refuses or answers by
-- reading all of it, and none in what an upsert sets. With the same answers; `lease_until` of a row that nobody has leased carries what the last telling was.
do $record$
declare
  each text;
  body text;
begin
  foreach each in array array['record_many', 'record_few'] loop
    body := pg_get_functiondef(each::regproc);
    continue when body like '%last_told as (%';
    body := replace(body, $old$  beside as ($old$, $new$  met as (
    select g.n from change g join consent k on k.bucket = g.bucket and k.key = g.key and k.evidence = g.evidence
    where g.cause = 'choice' and g.effect = 'go'),
  beside as ($new$);
    body := replace(body, $old$    left join consent k on k.bucket = g.bucket and k.key = g.key and k.evidence = g.evidence
    where c.effect = 'stop' and k.key is null),$old$, $new$    left join met k on k.n = g.n
    where c.effect = 'stop' and k.n is null),$new$);
    body := replace(body, $old$  said as ($old$, $new$  overtaken as (
    select c.n
    from unnest(p_bucket, p_key, p_scope, p_effect, p_teller, p_happened) with ordinality c(bucket, key, scope, effect, teller, happened, n)
    join account n on n.name = c.teller
    join told t on t.bucket = c.bucket and t.key = c.key and t.account = n.account and t.scope = c.scope and not t.stop
      and t.confirmed_at >= c.happened
    where c.effect = 'stop'),
  said as ($new$);
    body := replace(body, $old$    join account n on n.name = c.teller
    where c.door in ('provider', 'sms', 'reconcile')$old$, $new$    join account n on n.name = c.teller
    left join overtaken o on o.n = c.n
    where o.n is null and c.door in ('provider', 'sms', 'reconcile')$new$);
    body := replace(body, $old$
      and not (c.effect = 'stop' and exists (
        select from told t
        where t.bucket = c.bucket and t.key = c.key and t.account = n.account and t.scope = c.scope and not t.stop
          and t.confirmed_at >= c.happened))$old$, '');
    body := replace(body, $old$  pushed as (
    insert into push as p (bucket, account, key, scope, stop, since, due_at, unsure_until)$old$, $new$  last_told as (
    select distinct on (t.bucket, t.account, t.key, t.scope) t.bucket, t.account, t.key, t.scope, t.stop
    from owed o
    join told t on t.bucket = o.bucket and t.account = o.account and t.key = o.key and t.scope = o.scope
    order by t.bucket, t.account, t.key, t.scope, t.sent_at desc),
  pushed as (
    insert into push as p (bucket, account, key, scope, stop, since, due_at, unsure_until, lease_until)$new$);
    body := replace(body, $old$      case when o.said then 'epoch' else '-infinity' end::timestamptz
    from owed o
$old$, $new$      case when o.said then 'epoch' else '-infinity' end::timestamptz,
      case when w.stop then 'epoch' else '-infinity' end::timestamptz
    from owed o
    left join last_told w on w.bucket = o.bucket and w.account = o.account and w.key = o.key and w.scope = o.scope
$new$);
    body := replace(body, $old$and not coalesce((
            select t.stop from told t
            where t.bucket = p.bucket and t.key = p.key and t.account = p.account and t.scope = p.scope
            order by t.sent_at desc limit 1), false)$old$, $new$and excluded.lease_until = '-infinity'$new$);
    if body like '%left join consent k%' or body like '%select from told%' or body like '%select t.stop from told%'
      or body not like '%left join met k%' or body not like '%left join overtaken%' or body not like '%left join last_told%' then
      raise '% is not the one that this is made of', each;
    end if;
    execute body;
  end loop;
end $record$;
