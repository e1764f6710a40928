-- Whatever claims rows claims them in one bucket at a time, and asks nothing of the tables for each row it meets: so it is the same on one
-- server and on a cluster that is spread by bucket (docs/growing.md).

-- The pushes of some scopes that are due the longest in one direction, so many of each scope.
create function due(p_account smallint, p_scopes int[], p_stop boolean, p_most int, p_now timestamptz)
returns table (bucket smallint, key uuid, scope int, due_at timestamptz)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
#variable_conflict use_column
begin
  foreach due.scope in array p_scopes loop
    return query
    select p.bucket, p.key, p.scope, p.due_at
    from push p
    where p.account = p_account and p.stop = p_stop and p.scope = due.scope and p.due_at < 'infinity' and p.due_at <= p_now
      and p.lease_until <= p_now
    order by p.due_at
    limit p_most;
  end loop;
end $$;

-- Of these addresses, whom somebody spoke for after a time, and when the last did.
create function spoken_since(p_bucket smallint[], p_key uuid[], p_since timestamptz)
returns table (bucket smallint, key uuid, spoken_at timestamptz)
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
begin
  return query
  select c.bucket, c.key, max(c.received_at)
  from (select distinct u.b, u.k from unnest(p_bucket, p_key) u(b, k)) t
  join consent c on c.bucket = t.b and c.key = t.k
  where c.effect in ('stop', 'go', 'withdraw') and c.received_at > p_since
  group by c.bucket, c.key;
end $$;

-- As before: leases what is due the longest in one direction and says what it leased, one statement for each bucket, all in the caller's
-- transaction. A go waits until nobody has spoken for its address for a while. Of goes the thousand that are due the longest in each scope are
-- looked at; one that must wait becomes due when it will be quiet, so that none stands before others.
-- A lease found expired is a dead worker: what it sent may still land, so the row is unsure for as long as the account settles.
create or replace function lease(p_account smallint, p_scopes int[], p_called text[], p_stop boolean, p_most int, p_lease uuid, p_until timestamptz,
  p_settle interval, p_quiet interval, p_now timestamptz)
returns setof push language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off
set enable_mergejoin = off as $$
declare
  tellable int[] := array(
    select s.scope from unnest(p_scopes, p_called) s(scope, called)
    join mapping m on m.account = p_account and m.scope = s.scope and m.called = s.called  -- not what a newer release tells otherwise
    left join closed x on x.account = p_account and x.scope = s.scope and x.until > p_now
    where x.scope is null);
  buckets smallint[];
  keys uuid[];
  scopes int[];
  loud jsonb := '{}';  -- address → until when it has to wait
  lacking int := p_most;
  taken int;
  each record;
begin
  for looked in 0 .. case when p_stop then 0 else 3 end loop
    select array_agg(d.bucket order by d.due_at), array_agg(d.key order by d.due_at), array_agg(d.scope order by d.due_at)
    into buckets, keys, scopes
    from due(p_account, tellable, p_stop, greatest(p_most, 1000), p_now) d;
    exit when keys is null;
    if not p_stop then
      select coalesce(jsonb_object_agg(s.key, s.spoken_at + p_quiet), '{}') into loud
      from spoken_since(buckets, keys, p_now - p_quiet) s;
    end if;

    if looked = 0 then
      for each in
        select f.bucket, array_agg(f.key) keys, array_agg(f.scope) scopes
        from (
          select u.bucket, u.key, u.scope
          from unnest(buckets, keys, scopes) with ordinality u(bucket, key, scope, n)
          where not loud ? u.key::text
          order by u.n
          limit p_most) f
        group by f.bucket
      loop
        return query
        with free as materialized (
          select p.ctid
          from unnest(each.keys, each.scopes) u(key, scope)
          cross join lateral (  -- one look-up for each by its whole key, whatever the planner believes of the table
            select p.ctid, p.stop, p.due_at, p.lease_until
            from push p
            where p.bucket = each.bucket and p.account = p_account and p.key = u.key and p.scope = u.scope
            for update skip locked) p
          where p.stop = p_stop and p.due_at <= p_now and p.lease_until <= p_now)
        update push p
        set lease = p_lease, lease_until = p_until, attempts = p.attempts + 1,
          unsure_until = case when p.lease is null then p.unsure_until else greatest(p.unsure_until, p_now + p_settle) end
        from free f
        where p.bucket = each.bucket and p.ctid = f.ctid  -- a place in a table is one of its shard, which the bucket names
        returning p.*;
        get diagnostics taken = row_count;
        lacking := lacking - taken;
      end loop;
      exit when lacking = 0;
    end if;
    exit when loud = '{}';

    for each in
      select u.bucket, array_agg(u.key) keys, array_agg(u.scope) scopes, array_agg((loud ->> u.key::text)::timestamptz) untils
      from unnest(buckets, keys, scopes) u(bucket, key, scope)
      where loud ? u.key::text
      group by u.bucket
    loop
      with free as materialized (
        select p.ctid, u.until
        from unnest(each.keys, each.scopes, each.untils) u(key, scope, until)
        cross join lateral (
          select p.ctid
          from push p
          where p.bucket = each.bucket and p.account = p_account and p.key = u.key and p.scope = u.scope
          for update skip locked) p)
      update push p set due_at = f.until
      from free f
      where p.bucket = each.bucket and p.ctid = f.ctid;
    end loop;
  end loop;
end $$;

-- The mails that are due, the oldest first, for nobody else until then; with where each goes, and what speaks against writing there.
-- A link to somebody's choices goes to the text that we know of that very address, whatever was typed.
create function lease_mails(p_most int, p_until timestamptz, p_now timestamptz)
returns table (key uuid, id uuid, kind text, scope int, asked_at timestamptz, attempts int, plaintext text, language text,
  unreachable boolean, complained boolean)
language plpgsql as $$
#variable_conflict use_column
declare
  each record;
begin
  for each in
    select d.bucket, array_agg(d.key) keys, array_agg(d.id) ids
    from (select m.bucket, m.key, m.id from mail m where m.due_at <= p_now order by m.due_at, m.bucket, m.key, m.id limit p_most) d
    group by d.bucket
  loop
    return query
    with free as materialized (
      select m.key, m.id
      from unnest(each.keys, each.ids) u(key, id)
      cross join lateral (
        select m.key, m.id from mail m
        where m.bucket = each.bucket and m.key = u.key and m.id = u.id and m.due_at <= p_now
        for update skip locked) m),
    taken as (
      update mail m set due_at = p_until, attempts = m.attempts + 1
      from free f
      where m.bucket = each.bucket and m.key = f.key and m.id = f.id
      returning m.key, m.id, m.kind, m.scope, m.asked_at, m.attempts, m.plaintext, m.language),
    known as materialized (
      select a.key, a.channel, a.plaintext, a.locale from address a where a.bucket = each.bucket and a.key = any(each.keys)),
    holds as materialized (
      select f.key, f.scope, f.cause, f.until
      from fold(array_fill(each.bucket, array[cardinality(each.keys)]), each.keys) f
      where f.held)
    select t.key, t.id, t.kind, t.scope, t.asked_at, t.attempts,
      coalesce(t.plaintext, case when k.channel = 'email' and t.kind = 'manage' then k.plaintext end),
      coalesce(k.locale, t.language),
      exists (select from holds h where h.key = t.key and h.scope = 0 and h.until > p_now),
      exists (select from holds h where h.key = t.key and h.cause = 'complaint' and h.scope = (t.scope / 256) * 256 + 1)
    from taken t
    left join known k on k.key = t.key;
  end loop;
end $$;

-- True where the ledger lies on the servers of a Citus cluster. They have no one order of commits, so nothing can be read in one.
create function is_spread() returns boolean language plpgsql stable as $$
begin
  if to_regclass('pg_dist_partition') is null then
    return false;
  end if;
  return exists (select from pg_dist_partition where logicalrelid = 'consent'::regclass);
end $$;
