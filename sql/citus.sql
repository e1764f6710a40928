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

-- No recursion there; every bucket of every shard is asked for at once.
create or replace function buckets() returns setof smallint language plpgsql stable as $buckets$
begin
  return query select distinct a.bucket from address a order by 1;
end $buckets$;

-- The rule for each (address, topic) asked, of those alone who are known: beside a list of ours, Citus would read everybody.
create or replace function decided(p_bucket smallint[], p_key uuid[], p_channel text[], p_scope int[], p_now timestamptz)
returns table (n bigint, allowed boolean, consented boolean) language plpgsql stable set plan_cache_mode = force_custom_plan as $decided$
#variable_conflict use_column
begin
  return query
  with known as materialized (
    select u.n, k.channel::text channel, k.stops, k.goes, k.grants, k.claims, k.pauses
    from unnest(p_bucket, p_key) with ordinality u(bucket, key, n)
    join address k on k.bucket = u.bucket and k.key = u.key),
  asked as materialized (
    select q.n, s.scope, s.path, a.stops, a.goes, a.grants, a.claims, a.pauses,
      case when coalesce(q.channel, a.channel) = 'email' then s.wants_email else s.wants_sms end wants
    from unnest(p_channel, p_scope) with ordinality q(channel, scope, n)
    join scope s on s.scope = q.scope
    left join known a on a.n = q.n)
  select w.n, allowed(w.stops, w.goes, w.grants, w.claims, w.pauses, w.path, w.wants, p_now), consented(w.grants, w.claims, w.scope, w.wants)
  from asked w;
end $decided$;

-- For people who look, as before: of everybody whom the coordinator finds, since no node may ask the others for each row of its own.
create or replace function standings()
returns table (bucket smallint, key uuid, scope int, cause text, off_at timestamptz, until timestamptz, on_at timestamptz,
               held boolean, granted boolean, claimed boolean) language plpgsql stable as $standings$
#variable_conflict use_column
declare
  the_buckets smallint[];
  the_keys uuid[];
begin
  select array_agg(a.bucket), array_agg(a.key) into the_buckets, the_keys from address a;
  return query select * from fold(the_buckets, the_keys);
end $standings$;

create or replace view standing as select * from standings();

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

-- What a node is asked may call these, so each has them; those of before the extension was there are told of by being made once more.
do $everywhere$
declare
  f record;
begin
  for f in
    select pg_get_functiondef(p.oid) whole
    from pg_proc p join pg_language l on l.oid = p.prolang
    where l.lanname in ('sql', 'plpgsql') and p.prokind = 'f' and p.pronamespace = current_schema()::regnamespace
      and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
    order by p.oid
  loop
    -- Citus plans most statements only when it is told the parameters, so a plan for any parameters is none; how a node plans is its own
    -- affair. A list of several columns that is joined is taken apart there by the type of its first, unless it is numbered. A lock that is
    -- asked for is asked of every node, one after the other; who reads the table has the same lock, of the coordinator alone. A statement about
    -- rows of several shards goes shard by shard, so whoever locks some in one statement after the other does as well, or they wait in a circle.
    execute replace(
      replace(
        replace(
          regexp_replace(
            replace(f.whole, 'force_generic_plan', 'force_custom_plan'), E'\n SET (enable_\\w+|random_page_cost) TO [^\n]*', '', 'g'),
          'unnest(p_bucket, p_key) u(bucket, key)', 'unnest(p_bucket, p_key) with ordinality u(bucket, key, n)'),
        'lock table mapping in access share mode;', 'perform m.account from mapping m limit 1;'),
      E'order by u.bucket\n  loop', E'order by get_shard_id_for_distribution_column(\'push\', u.bucket), u.bucket\n  loop');
  end loop;
end $everywhere$;

-- What calls a function that reads spread tables asks nothing else in the same statement: a node that got it could not ask the others.
do $summary$
declare
  body text := pg_get_functiondef('summary(smallint[], uuid[])'::regprocedure);
begin
  if body not like '%the_buckets%' then
    body := replace(body, E'begin\nreturn query', $new$declare
  the_buckets smallint[];
  the_keys uuid[];
  the_scopes int[];
  the_causes text[];
  the_offs timestamptz[];
  the_ends timestamptz[];
  the_ons timestamptz[];
  the_holds boolean[];
  the_grants boolean[];
  the_claims boolean[];
begin
  select array_agg(r.bucket), array_agg(r.key), array_agg(r.scope), array_agg(r.cause), array_agg(r.off_at), array_agg(r.until),
    array_agg(r.on_at), array_agg(r.held), array_agg(r.granted), array_agg(r.claimed)
  into the_buckets, the_keys, the_scopes, the_causes, the_offs, the_ends, the_ons, the_holds, the_grants, the_claims
  from fold(p_bucket, p_key) r;
return query$new$);
    body := replace(body, 'from fold(p_bucket, p_key) f join', $new$from unnest(the_buckets, the_keys, the_scopes, the_causes, the_offs, the_ends, the_ons, the_holds, the_grants, the_claims)
      f(bucket, key, scope, cause, off_at, until, on_at, held, granted, claimed)
    join$new$);
    if body not like '%into the_buckets%' or body not like '%unnest(the_buckets%' then
      raise 'summary is not the one that this is made of';
    end if;
    execute body;
  end if;
end $summary$;

-- A place in a table is not carried from one statement to the next there: rows are named by their keys.
do $lease$
declare
  body text := pg_get_functiondef('lease'::regproc);
begin
  body := replace(body, '  -- a place in a table is one of its shard, which the bucket names', '');
  body := replace(body, 'p.ctid = f.ctid', 'p.account = p_account and p.key = f.key and p.scope = f.scope');
  execute replace(body, 'select p.ctid', 'select p.key, p.scope');
end $lease$;

-- What a provider lists, laid beside what we hold: the same answers as on one server, a step at a time. No full join by what is neither's column,
-- and no look-up in spread tables for each row of what was found before.
create or replace function differ(p_account smallint, p_scope int, p_began timestamptz, p_now timestamptz)
returns table (bucket smallint, key uuid, kind text, cause text, at timestamptz)
language plpgsql stable set plan_cache_mode = force_custom_plan as $differ$
#variable_conflict use_column
declare
  m record;
begin
  select m.path, n.channel into m from mapping m join account n on n.account = m.account where m.account = p_account and m.scope = p_scope;
  if not found then
    return;
  end if;
  return query
  with differing as materialized (
    select t.bucket, t.key, t.stopped_at, t.cause, case when a.key is null then 'stranger' else 'theirs' end kind
    from (
      select l.bucket, l.key, max(l.stopped_at) stopped_at, (array['choice', 'complaint', 'bounce'])[
        min(array_position(array['choice', 'complaint', 'bounce'], l.cause))] cause
      from listing l
      where l.account = p_account and l.scope = p_scope
      group by l.bucket, l.key) t
    left join address a on a.bucket = t.bucket and a.key = t.key
    where case
      when t.cause = 'bounce' then t.stopped_at is not null and not coalesce(0 = any(a.stops), false)
      else a.key is null or not withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, p_now) end
    union all
    select a.bucket, a.key, null::timestamptz, 'choice', 'ours'
    from address a
    left join (
      select distinct l.bucket, l.key from listing l where l.account = p_account and l.scope = p_scope) t on t.bucket = a.bucket and t.key = a.key
    where t.key is null and a.channel = m.channel and a.plaintext is not null
      and withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, p_now)),
  pending as materialized (
    select distinct d.bucket, d.key
    from differing d
    join push p on p.bucket = d.bucket and p.key = d.key
    where p.account = p_account and p.scope = p_scope and p.since <= p_now),
  spoken as materialized (
    select distinct d.bucket, d.key
    from differing d
    join consent c on c.bucket = d.bucket and c.key = d.key
    where c.received_at >= p_began),
  last as materialized (
    select distinct on (t.bucket, t.key) t.bucket, t.key, t.sent_at, t.confirmed_at
    from differing d
    join told t on t.bucket = d.bucket and t.key = d.key
    where t.account = p_account and t.scope = p_scope
    order by t.bucket, t.key, t.sent_at desc)
  select d.bucket, d.key,
    case
      when p.key is not null or last.confirmed_at >= p_began or s.key is not null then 'unsettled'
      when d.kind <> 'ours' and d.cause <> 'bounce' and coalesce(d.stopped_at, last.sent_at) <= last.sent_at then 'stale'
      else d.kind end,
    d.cause,
    least(coalesce(d.stopped_at, last.sent_at, p_now), p_now)
  from differing d
  left join pending p on p.bucket = d.bucket and p.key = d.key
  left join spoken s on s.bucket = d.bucket and s.key = d.key
  left join last on last.bucket = d.bucket and last.key = d.key;
end $differ$;

create or replace function differ(p_account smallint, p_scope int, p_began timestamptz, p_settle interval, p_now timestamptz)
returns table (bucket smallint, key uuid, kind text, cause text, at timestamptz)
language plpgsql stable set plan_cache_mode = force_custom_plan as $differ$
#variable_conflict use_column
declare
  before timestamptz := looked(p_account, p_scope, p_began);
begin
  return query
  with found as materialized (
    select f.bucket, f.key, f.kind, f.cause, f.at from differ(p_account, p_scope, p_began, p_now) f),
  last as materialized (
    select distinct on (t.bucket, t.key) t.bucket, t.key, t.stop, t.sent_at, t.confirmed_at
    from found d
    join told t on t.bucket = d.bucket and t.key = d.key
    where d.kind = 'stale' and t.account = p_account and t.scope = p_scope
    order by t.bucket, t.key, t.sent_at desc),
  named as materialized (
    select distinct e.bucket, e.key
    from last l
    join echo e on e.bucket = l.bucket and e.key = l.key
    where e.account = p_account and e.scope = p_scope and e.seen_at >= l.confirmed_at),
  spoken as materialized (
    select distinct l.bucket, l.key
    from last l
    join consent c on c.bucket = l.bucket and c.key = l.key
    where c.received_at >= before)
  select d.bucket, d.key, case when d.again then 'theirs' else d.kind end, d.cause, case when d.again then before else d.at end
  from (
    select d.bucket, d.key, d.kind, d.cause, d.at,
      coalesce(not l.stop and l.confirmed_at + p_settle < before and d.at = l.sent_at and n.key is null and s.key is null, false) again
    from found d
    left join last l on l.bucket = d.bucket and l.key = d.key
    left join named n on n.bucket = d.bucket and n.key = d.key
    left join spoken s on s.bucket = d.bucket and s.key = d.key) d;
end $differ$;

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
    body := replace(body, $old$known := array(
      select distinct c.key from unnest(p_bucket, p_key) with ordinality u(bucket, key, n) join consent c on c.bucket = u.bucket and c.key = u.key);$old$,
      $new$select coalesce(array_agg(c.key), '{}') into known
    from (select distinct c.bucket, c.key from unnest(p_bucket, p_key) with ordinality u(bucket, key, n) join consent c on c.bucket = u.bucket and c.key = u.key) c;$new$);
    -- a change of rows that a list names is asked of every shard, and each is locked for it until the end; these buckets are of a few
    body := replace(body, $old$  where a.bucket = f.bucket and a.key = f.key
    and (a.stops$old$, $new$  where (cardinality(p_bucket) > 16 or a.bucket = any(p_bucket)) and a.bucket = f.bucket and a.key = f.key
    and (a.stops$new$);
    body := replace(body, $old$    where p.bucket = u.bucket and p.account = n.account$old$,
      $new$    where (cardinality(p_bucket) > 16 or p.bucket = any(p_bucket)) and p.bucket = u.bucket and p.account = n.account$new$);
    if cardinality(string_to_array(body, '.bucket = any(p_bucket)')) <> 3 or body like '%known := array%' or body like '%left join consent k%' or body like '%select from told%' or body like '%select t.stop from told%'
      or body not like '%left join met k%' or body not like '%left join overtaken%' or body not like '%left join last_told%' then
      raise '% is not the one that this is made of', each;
    end if;
    execute body;
  end loop;
end $record$;

-- What is joined to a list is asked of every shard, unless it is said beside it which buckets these are of. A long list is of most shards
-- anyway, and each of them would look for every one of its rows in as many places. The parameters are known when a plan is made, so one of
-- the two is all that is left of it then.
do $buckets$
declare
  f record;
  joined text := (
    select '(\mjoin (?:' || string_agg(d.logicalrelid::regclass::text, '|') || ') (\w+) on )\2\.bucket = '
    from pg_dist_partition d
    where d.partmethod = 'h');
begin
  for f in
    select pg_get_functiondef(p.oid) whole
    from pg_proc p
    where p.pronamespace = current_schema()::regnamespace and pg_get_function_identity_arguments(p.oid) like '%p_bucket smallint[]%'
    order by p.oid
  loop
    execute regexp_replace(f.whole, joined, '\1(cardinality(p_bucket) > 16 or \2.bucket = any(p_bucket)) and \2.bucket = ', 'g');
  end loop;
end $buckets$;
