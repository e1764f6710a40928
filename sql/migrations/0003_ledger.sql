-- The fold and the one write path.

-- The registers of each (address, scope, cause): its latest stop, its latest go, its grants, over the rows not withdrawn.
-- Registers only rise, so the order and the repetition of rows do not matter. Ties hold.
create function fold(p_bucket smallint[], p_key uuid[])
returns table (bucket smallint, key uuid, scope int, cause text, off_at timestamptz, until timestamptz, on_at timestamptz,
               held boolean, granted boolean, claimed boolean)
language sql stable as $$
  select r.bucket, r.key, r.scope, r.cause, r.off_at, r.until, r.on_at,
    r.off_at is not null and (r.on_at is null or r.off_at >= r.on_at),
    r.granted, r.claimed
  from (
    select c.bucket, c.key, c.scope, c.cause,
      max(c.at) filter (where c.effect = 'stop') off_at,
      (array_agg(c.until order by c.at desc, c.until desc) filter (where c.effect = 'stop'))[1] until,
      max(c.at) filter (where c.effect = 'go') on_at,
      coalesce(bool_or(c.effect = 'grant' and c.door <> 'import'), false) granted,
      coalesce(bool_or(c.effect = 'grant' and c.door = 'import'), false) claimed
    from (select distinct u.b bucket, u.k key from unnest(p_bucket, p_key) u(b, k)) t
    join consent c on c.bucket = t.bucket and c.key = t.key
    left join consent w on w.bucket = c.bucket and w.key = c.key and w.evidence = 'undo:' || c.evidence
      and c.effect = 'stop' and c.door in ('page', 'manage')  -- only a recipient's own press can be taken back
    where c.effect in ('stop', 'go', 'grant') and w.key is null
    group by c.bucket, c.key, c.scope, c.cause) r
$$;

-- The summary that the rule reads, one row for each address asked for, whether or not anything is left in its ledger.
create function summary(p_bucket smallint[], p_key uuid[])
returns table (bucket smallint, key uuid, stops int[], goes int[], grants int[], claims int[], goes_below int[], pauses pause[])
language sql stable as $$
  with register as (
    select f.*, s.path, cardinality(s.path) = 4 is_topic
    from fold(p_bucket, p_key) f join scope s on s.scope = f.scope),
  -- chosen back, unless a choice stop on the path is as late, or another cause holds something on it
  chosen as (
    select r.bucket, r.key, r.scope, bool_or(b.key is not null) closed, coalesce(bool_or(b.scope = any(r.path[3:])), false) closed_below
    from register r
    left join register b on b.bucket = r.bucket and b.key = r.key and b.scope = any(r.path)
      and (b.cause = 'choice' and b.off_at >= r.on_at or b.cause <> 'choice' and b.held and b.until = 'infinity')
    where r.cause = 'choice' and r.is_topic and r.on_at is not null
    group by r.bucket, r.key, r.scope),
  back as (
    select c.bucket, c.key,
      array_agg(c.scope order by c.scope) filter (where not c.closed) goes,
      array_agg(c.scope order by c.scope) filter (where c.closed and not c.closed_below) goes_below
    from chosen c
    group by c.bucket, c.key),
  folded as (
    select r.bucket, r.key,
      array_agg(distinct r.scope order by r.scope) filter (where r.held and r.until = 'infinity') stops,
      array_agg(r.scope order by r.scope) filter (where r.is_topic and r.cause = 'choice' and (r.granted or r.on_at is not null)) grants,
      array_agg(r.scope order by r.scope) filter (where r.is_topic and r.cause = 'choice' and r.claimed and not r.granted and r.on_at is null) claims,
      array_agg(row(r.scope, r.until)::pause order by r.scope, r.until) filter (where r.held and r.until < 'infinity') pauses
    from register r
    group by r.bucket, r.key)
  select t.bucket, t.key, f.stops, b.goes, f.grants, f.claims, b.goes_below, f.pauses
  from (select distinct u.b bucket, u.k key from unnest(p_bucket, p_key) u(b, k)) t
  left join folded f on f.bucket = t.bucket and f.key = t.key
  left join back b on b.bucket = t.bucket and b.key = t.key
$$;

-- For people who look: the standing of every (address, scope, cause).
create view standing as
  select f.* from address a cross join lateral fold(array[a.bucket], array[a.key]) f;

-- Records Changes: locks their addresses in key order, appends to the ledger, renews the summaries, and leaves the pushes that are
-- owed. Several statements on purpose: a single one reads with a snapshot older than the lock it waits for, and loses a concurrent stop.
-- Returns the ordinals (from 1) of the Changes that were added; a fact that was known already adds nothing.
-- `p_sure` is how long a press of a page may still be taken back, with a margin for clocks and queues.
-- For many Changes: planned anew for each call, by how many there are.
create function record_many(
  p_bucket smallint[], p_key uuid[], p_channel text[], p_scope int[], p_cause text[], p_effect text[], p_door text[], p_teller text[],
  p_own boolean[], p_happened timestamptz[], p_until timestamptz[], p_evidence text[], p_now timestamptz, p_sure interval)
returns int[] language plpgsql set plan_cache_mode = force_custom_plan set random_page_cost = 1 as $$
declare
  added int[];
begin
  -- the wall: by e-mail, no choice and no pause, whoever says so, can land outside marketing and ads; `ledger.entitled` places the rest
  if exists (
    select from unnest(p_channel, p_scope, p_cause, p_effect) c(channel, scope, cause, effect) left join scope s on s.scope = c.scope
    where s.scope is null
      or c.effect = 'stop' and c.cause in ('choice', 'pause') and c.channel is distinct from 'sms'
        and s.stream is distinct from 'marketing' and s.scope & 255 <> 3) then
    raise check_violation using message = 'a scope that is unknown or cannot be stopped this way', constraint = 'wall';
  end if;

  insert into address as a (bucket, key, channel)
  select distinct on (u.b, u.k) u.b, u.k, u.c::channel
  from unnest(p_bucket, p_key, p_channel) u(b, k, c)
  order by u.b, u.k, u.c nulls last
  on conflict (bucket, key) do update set channel = coalesce(a.channel, excluded.channel);

  with change as (
    select * from unnest(p_bucket, p_key, p_scope, p_cause, p_effect, p_door, p_teller, p_own, p_happened, p_until, p_evidence)
      with ordinality u(bucket, key, scope, cause, effect, door, teller, own, happened, until, evidence, n)),
  -- an own act counts from a time later than everything in its address's ledger: no clock step can undo it
  latest as (
    select c.bucket, c.key, max(s.at) at
    from (select distinct bucket, key from change where own) c join consent s on s.bucket = c.bucket and s.key = c.key
    group by c.bucket, c.key),
  -- presses that follow a new go at or under their scope in this very call
  beside as (
    select distinct c.n
    from change c
    join change g on g.bucket = c.bucket and g.key = c.key and g.n < c.n and g.cause = 'choice' and g.effect = 'go'
    join scope t on t.scope = g.scope and c.scope = any(t.path)
    left join consent k on k.bucket = g.bucket and k.key = g.key and k.evidence = g.evidence
    where c.effect = 'stop' and k.key is null),
  -- a press that changes nothing adds no row: held through the same door by a stop later than every go at or under its scope
  -- that can no longer be undone. Not by text: a START that was sent before the second STOP may still be on its way.
  repeated as (
    select distinct c.n
    from change c
    join consent s on s.bucket = c.bucket and s.key = c.key and s.scope = c.scope and s.door = c.door
      and s.cause = 'choice' and s.effect = 'stop'
    left join consent w on w.bucket = s.bucket and w.key = s.key and w.evidence = 'undo:' || s.evidence
    left join beside b on b.n = c.n
    left join (consent g join scope t on t.scope = g.scope)
      on g.bucket = s.bucket and g.key = s.key and g.cause = 'choice' and g.effect = 'go' and c.scope = any(t.path) and g.at >= s.at
    where c.own and c.door <> 'sms' and c.cause = 'choice' and c.effect = 'stop'
      and w.key is null and g.key is null and b.n is null
      and (s.door not in ('page', 'manage') or s.received_at < p_now - p_sure)),
  inserted as (
    insert into consent (bucket, key, evidence, scope, cause, effect, door, teller, happened_at, received_at, at, until)
    select c.bucket, c.key, c.evidence, c.scope, c.cause, c.effect, c.door, c.teller, c.happened, p_now,
      case when c.own
        then greatest(p_now, l.at + interval '1 microsecond')
          + (row_number() over (partition by c.bucket, c.key, c.own order by c.n) - 1) * interval '1 microsecond'
        else least(c.happened, p_now) end,
      coalesce(c.until, 'infinity')
    from change c
    left join latest l on l.bucket = c.bucket and l.key = c.key
    left join repeated r on r.n = c.n
    where r.n is null
    order by c.bucket, c.key, c.evidence
    on conflict do nothing
    returning bucket, key, evidence)
  select array_agg(first.n) into added
  from (
    select min(c.n)::int n
    from change c join inserted i on i.bucket = c.bucket and i.key = c.key and i.evidence = c.evidence
    group by c.bucket, c.key, c.evidence) first;

  if added is null then
    return '{}';
  end if;

  -- `address` is read here as it was before, `fresh` is as it is now; the pushes owed are the difference
  with moved as (
    select array_agg(p_bucket[n]) buckets, array_agg(p_key[n]) keys from unnest(added) n),
  fresh as materialized (
    select s.* from moved cross join lateral summary(moved.buckets, moved.keys) s),
  -- what a provider told us just now is what it believes, whatever the rule said before; unless it is a stop from before we told it go
  said as (
    select distinct on (c.bucket, c.key, c.teller, c.scope) c.bucket, c.key, n.account, c.scope, c.effect = 'stop' stop
    from unnest(p_bucket, p_key, p_scope, p_effect, p_door, p_teller, p_happened)
      with ordinality c(bucket, key, scope, effect, door, teller, happened, n)
    join account n on n.name = c.teller
    where c.door in ('provider', 'sms', 'reconcile') and c.effect in ('stop', 'go', 'note') and c.n = any(added)
      and not (c.effect = 'stop' and exists (
        select from told t
        where t.bucket = c.bucket and t.key = c.key and t.account = n.account and t.scope = c.scope and not t.stop
          and t.confirmed_at >= c.happened))
    order by c.bucket, c.key, c.teller, c.scope, c.happened desc, c.n desc),
  answer as (
    select a.bucket, m.account, a.key, m.scope, a.plaintext is null unknown, y.stop is not null said,
      withheld(f.stops, f.goes, f.goes_below, f.pauses, m.path, p_now) stop,
      coalesce(y.stop, withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, p_now)) believed,
      -- when a stop that is a pause alone will end
      case when not withheld(f.stops, f.goes, f.goes_below, null, m.path, p_now)
        then (select max(h.until) from unnest(f.pauses) h where h.scope = any(m.path)) end turns_at
    from fresh f
    join address a on a.bucket = f.bucket and a.key = f.key
    join account ac on a.channel is null or ac.channel = a.channel
    join mapping m on m.account = ac.account
    left join said y on y.bucket = a.bucket and y.key = a.key and y.account = ac.account and y.scope = m.scope),
  -- owed is what an account does not believe, now; and the end of a pause, then, if it believes the stop already
  owed as (
    select o.*, case when o.stop <> o.believed then p_now else o.turns_at end since
    from answer o
    where o.stop <> o.believed or o.stop and o.turns_at is not null),
  pushed as (
    insert into push as p (bucket, account, key, scope, stop, since, due_at, unsure_until)
    select o.bucket, o.account, o.key, o.scope, o.stop and o.since = p_now, o.since, case when o.unknown then 'infinity' else o.since end,
      case when o.said then 'epoch' else '-infinity' end::timestamptz
    from owed o
    order by o.bucket, o.account, o.key, o.scope
    on conflict (bucket, account, key, scope) do update
    set want = p.want + 1, stop = excluded.stop, since = least(p.since, excluded.since), refused = null,
      -- 'epoch': nothing can land any more, but which of the two it believes is not known
      unsure_until = greatest(p.unsure_until, excluded.unsure_until, case when excluded.stop and not p.stop then 'epoch'::timestamptz end),
      due_at = case
        when p.stop and not excluded.stop and p.attempts = 0 and p.lease is null and greatest(p.unsure_until, excluded.unsure_until) = '-infinity'
          and not coalesce((
            select t.stop from told t
            where t.bucket = p.bucket and t.key = p.key and t.account = p.account and t.scope = p.scope
            order by t.sent_at desc limit 1), false)
          then '-infinity'  -- it was never told to stop
        else least(p.due_at, excluded.due_at) end
    where excluded.since <= p_now)
  update address a
  set stops = f.stops, goes = f.goes, grants = f.grants, claims = f.claims, goes_below = f.goes_below, pauses = f.pauses
  from fresh f
  where a.bucket = f.bucket and a.key = f.key
    and (a.stops, a.goes, a.grants, a.claims, a.goes_below, a.pauses) is distinct from
      (f.stops, f.goes, f.grants, f.claims, f.goes_below, f.pauses);

  -- a stop that was taken back before it was told is told to nobody, and neither is its going: what the provider holds is not ours
  if p_effect && array['go', 'withdraw'] then
    delete from push p using unnest(p_bucket, p_key) u(bucket, key), account n
    where p.bucket = u.bucket and p.account = n.account and p.key = u.key and p.due_at = '-infinity';
  end if;
  return added;
end $$;

-- The same for a few, planned once: every row is looked up by its key, however large the tables have grown since the plan was made.
do $$
declare
  slow text := pg_get_functiondef('record_many'::regproc);
  quick text := replace(
    replace(slow, 'record_many', 'record_few'),
    $set$SET plan_cache_mode TO 'force_custom_plan'$set$,
    $set$SET plan_cache_mode TO 'force_generic_plan' SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off$set$);
begin
  if quick not like '%force_generic_plan%' or quick like '%force_custom_plan%' or quick like '%record_many%' then
    raise 'record_few would be planned as record_many is';
  end if;
  execute quick;
end $$;
