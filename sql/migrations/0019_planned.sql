-- What a Citus cluster plans as well, with the same answers on one server: a modification sets nothing that is computed by what depends on
-- the session or on chance, but what was computed before it; and what reads the ledger is asked beside no table of one bucket.

-- `lease` and `settle` as before; made of their own texts, so that what is not named here is what it was.
do $$
declare
  step text[];
  body text;
begin
  foreach step slice 1 in array array[
    ['lease', $was$  lacking int := p_most;
$was$, $is$  lacking int := p_most;
  landed timestamptz := p_now + p_settle;
$is$],
    ['lease', $was$greatest(p.unsure_until, p_now + p_settle)$was$, $is$greatest(p.unsure_until, landed)$is$],
    ['settle', $was$  sent record;
$was$, $is$  sent record;
  landed timestamptz := p_now + p_settle;
  after_that timestamptz := p_now + p_settle + interval '1 millisecond';
  tomorrow timestamptz := p_now + interval '1 day';
  later timestamptz[] := array[p_now + interval '15 minutes', p_now + interval '1 hour', p_now + interval '6 hours', tomorrow];
$is$],
    ['settle', $was$      select from push p
      where$was$, $is$      select p.key from push p
      where$is$],
    ['settle', $was$a.plaintext is null textless,
$was$, $is$a.plaintext is null textless,
        p_now + random() * least(p_cap, interval '1 second' * 2 ^ least(p.attempts, 20)) retried_at,
$is$],
    ['settle', $was$          then greatest(p.unsure_until, p_now + p_settle) else p.unsure_until end,
$was$, $is$          then greatest(p.unsure_until, landed) else p.unsure_until end,
$is$],
    ['settle', $was$then p_now + p_settle + interval '1 millisecond'
$was$, $is$then after_that
$is$],
    ['settle', $was$then p_now + case when w.outcome = 'refused'
            then (array['15 minutes', '1 hour', '6 hours', '1 day']::interval[])[least(w.refusals, 4)] else interval '1 day' end
$was$, $is$then
            case when w.outcome = 'refused' then later[least(w.refusals, 4)] else tomorrow end
$is$],
    ['settle', $was$then p_now + random() * least(p_cap, interval '1 second' * 2 ^ least(p.attempts, 20))
$was$, $is$then w.retried_at
$is$]
  ] loop
    body := pg_get_functiondef(step[1]::regproc);
    if cardinality(string_to_array(body, step[2])) <> 2 then
      raise '% is not what it was: %', step[1], step[2];
    end if;
    execute replace(body, step[2], step[3]);
  end loop;
end $$;

-- The buckets that anybody is in, one index look each, however many people there are.
create function buckets() returns setof smallint language sql stable as $$
  with recursive next (bucket) as (
    select min(a.bucket) from address a
    union all
    select (select min(a.bucket) from address a where a.bucket > n.bucket) from next n where n.bucket is not null)
  select n.bucket from next n where n.bucket is not null
$$;

-- Folds every ledger of one bucket anew and counts the summaries that are not what their ledger says.
create function differing(p_bucket smallint) returns bigint language plpgsql stable set plan_cache_mode = force_custom_plan as $$
declare
  keys uuid[] := array(select a.key from address a where a.bucket = p_bucket);
begin
  return (
    select count(*)
    from summary(array_fill(p_bucket, array[cardinality(keys)]), keys) f
    join address a on a.bucket = f.bucket and a.key = f.key
    where (a.stops, a.goes, a.grants, a.claims, a.goes_below, a.pauses) is distinct from
      (f.stops, f.goes, f.grants, f.claims, f.goes_below, f.pauses));
end $$;

-- Everything that is on hold for good in one bucket, the oldest first for each address: its text, null where nobody told it, the scope,
-- the cause, since when, and the evidence of that stop.
create function held_in(p_bucket smallint, p_now timestamptz)
returns table (key uuid, plaintext text, scope int, cause text, off_at timestamptz, evidence text)
language plpgsql stable set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
  keys uuid[] := array(select h.key from address h where h.bucket = p_bucket and (h.stops is not null or h.pauses is not null));
begin
  return query
  select a.key, a.plaintext, f.scope, f.cause, f.off_at, min(c.evidence)
  from fold(array_fill(p_bucket, array[cardinality(keys)]), keys) f
  join address a on a.bucket = f.bucket and a.key = f.key
  join consent c on c.bucket = f.bucket and c.key = f.key and c.scope = f.scope and c.cause = f.cause and c.effect = 'stop' and c.at = f.off_at
  where f.held and f.until > p_now
  group by a.key, a.plaintext, f.scope, f.cause, f.off_at
  order by a.key, f.off_at, f.scope, f.cause;
end $$;

-- The rule for each (address, topic) asked. An address we never met has nothing on hold; one whose channel neither the asker nor we know is
-- asked for the stricter consent.
create function decided(p_bucket smallint[], p_key uuid[], p_channel text[], p_scope int[], p_now timestamptz)
returns table (n bigint, allowed boolean, consented boolean) language sql stable as $$
  select q.n, allowed(a.stops, a.goes, a.grants, a.claims, a.pauses, s.path, w.wants, p_now), consented(a.grants, a.claims, s.scope, w.wants)
  from unnest(p_bucket, p_key, p_channel, p_scope) with ordinality q(bucket, key, channel, scope, n)
  join scope s on s.scope = q.scope
  left join address a on a.bucket = q.bucket and a.key = q.key
  cross join lateral (select case when coalesce(q.channel, a.channel::text) = 'email' then s.wants_email else s.wants_sms end wants) w
$$;
