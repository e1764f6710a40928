-- The outbox, mended: refusals are counted apart, what is due is found by its scope, and everybody locks in one order.

-- What the provider refused of this very wish, until one is taken; it counts for nothing while `refused` is null.
alter table push add refusals int not null default 0;
update push set refusals = greatest(attempts, 1) where refused is not null;

-- What is due is asked for by scope: a scope that is closed, however much of it waits, costs the others nothing (two million such rows in
-- front made each lease of a thousand take 6 s, and it takes 0.04). It has nothing of addresses that are known by key only, nor is it ever
-- taken for the key, whatever the planner believes of an empty table. The indexes are made in the migration's transaction, so that there is
-- never half a schema; CONCURRENTLY cannot be. Meanwhile writers of that table wait, and presses with them: `push` holds what is owed and no
-- more, usually nothing, and takes half a second for each million rows.
create index push_due_by_scope on push (account, stop, scope, due_at) where due_at < 'infinity';
drop index push_due;

-- What is kept for a time is found by its time when that is over.
create index event_received on event (received_at);
create index once_received on once (received_at);
create index soft_bounce_at on soft_bounce (at);

-- Leases what is due the longest in one direction and says what it leased: one statement for each bucket, all in the caller's transaction.
-- A go never stands in a batch with stops, and waits until nobody has spoken for its address for a while. Of goes the thousand that are due
-- the longest are looked at; one that must wait becomes due when it will be quiet, so that none stands before others.
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
  lacking int := p_most;
  taken int;
  due record;
begin
  for due in
    select d.bucket, array_agg(d.key) keys, array_agg(d.scope) scopes
    from (
      select f.bucket, f.key, f.scope, f.due_at
      from (
        select e.bucket, e.key, s.scope, e.due_at
        from unnest(tellable) s(scope)
        cross join lateral (
          select p.bucket, p.key, p.due_at
          from push p
          where p.account = p_account and p.stop = p_stop and p.scope = s.scope and p.due_at < 'infinity' and p.due_at <= p_now
            and p.lease_until <= p_now
          order by p.due_at
          limit greatest(p_most, 1000)) e
        order by e.due_at
        limit greatest(p_most, 1000)) f
      where p_stop or spoken(f.bucket, f.key) <= p_now - p_quiet
      limit p_most) d
    group by d.bucket
  loop
    return query
    with free as materialized (
      select p.ctid
      from unnest(due.keys, due.scopes) u(key, scope)
      cross join lateral (  -- one look-up for each by its whole key, whatever the planner believes of the table
        select p.ctid, p.stop, p.due_at, p.lease_until
        from push p
        where p.bucket = due.bucket and p.account = p_account and p.key = u.key and p.scope = u.scope
        for update skip locked) p
      where p.stop = p_stop and p.due_at <= p_now and p.lease_until <= p_now)
    update push p
    set lease = p_lease, lease_until = p_until, attempts = p.attempts + 1,
      unsure_until = case when p.lease is null then p.unsure_until else greatest(p.unsure_until, p_now + p_settle) end
    from free f
    where p.ctid = f.ctid
    returning p.*;
    get diagnostics taken = row_count;
    lacking := lacking - taken;
  end loop;

  for looked in 1 .. case when p_stop or lacking = 0 then 0 else 3 end loop
    update push p set due_at = w.until
    from (
      select o.ctid, d.until
      from (
        select e.*, spoken(e.bucket, e.key) + p_quiet until
        from unnest(tellable) s(scope)
        cross join lateral (
          select p.bucket, p.key, p.scope
          from push p
          where p.account = p_account and not p.stop and p.scope = s.scope and p.due_at < 'infinity' and p.due_at <= p_now
            and p.lease_until <= p_now
          order by p.due_at
          limit 1000) e
        offset 0) d
      join push o on o.bucket = d.bucket and o.account = p_account and o.key = d.key and o.scope = d.scope
      where d.until > p_now
      for update of o skip locked) w
    where p.ctid = w.ctid;
    get diagnostics taken = row_count;
    exit when taken = 0;
  end loop;
end $$;

-- Settles what one request was about, where the lease still holds, and returns the verdict on each row; a row of another lease is left alone.
--   done      the provider confirmed `p_stop` for the `want` it was read with
--   unknown   it may or may not land: assert again
--   refused   the provider refuses this very one
--   cut       the request was broken off: not an attempt, but a part of it may still land
--   unsent    it never left
-- Sure is what was sent after everything that could still have landed: requests of unknown outcome, and answered ones too, unless they
-- said the same and were sure, since somebody on the way may repeat them.
-- Who is refused is tried again after a quarter of an hour, an hour, six hours, then once a day. Refusals are counted apart from attempts,
-- and only while `refused` is set: neither an unknown outcome nor a go that ran out of patience is one, and a new wish begins anew.
-- The mappings come first, as in a release that maps anew, which then waits for us or we for it; then rows are locked in key order, as the
-- ledger does, and looked at only then: nothing about them can move any more.
create or replace function settle(p_account smallint, p_lease uuid, p_stop boolean, p_bucket smallint[], p_key uuid[], p_scope int[], p_want bigint[],
  p_outcome text[], p_detail text[], p_sent timestamptz, p_settle interval, p_cap interval, p_patience interval, p_now timestamptz)
returns setof text language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  sent record;
begin
  lock table mapping in access share mode;
  for sent in
    select u.bucket, array_agg(u.key) keys, array_agg(u.scope) scopes, array_agg(u.want) wants, array_agg(u.outcome) outcomes,
      array_agg(u.detail) details
    from unnest(p_bucket, p_key, p_scope, p_want, p_outcome, p_detail) u(bucket, key, scope, want, outcome, detail)
    group by u.bucket
    order by u.bucket
  loop
    perform
    from (select u.key, u.scope from unnest(sent.keys, sent.scopes) u(key, scope) order by u.key, u.scope) u
    cross join lateral (
      select from push p
      where p.bucket = sent.bucket and p.account = p_account and p.key = u.key and p.scope = u.scope and p.lease = p_lease
      for update) p;

    return query
    with answer as materialized (
      select p.key, p.scope, p.since, u.outcome, u.detail, r.stop, r.sure, a.plaintext is null textless,
        case when p.refused is null then 0 else p.refusals end + (u.outcome = 'refused' and p.want = u.want)::int refusals,
        case
          when u.outcome in ('cut', 'unsent') then 'released'
          when p.want <> u.want then 'moved'
          when u.outcome = 'done' and p_sent > r.sure then 'settled'
          when u.outcome = 'done' then 'unsure'
          when u.outcome = 'refused' or not p_stop and p.since < p_now - p_patience then 'quarantined'
          else 'postponed' end verdict,
        -- when the account will have to hear otherwise: never, by the end of the latest pause, or already
        case
          when not p_stop then case when r.stop then p_now end
          when not withheld(a.stops, a.goes, a.goes_below, null, m.path, p_now) then
            coalesce((select max(h.until) from unnest(a.pauses) h where h.scope = any(m.path)), p_now) end turns_at
      from unnest(sent.keys, sent.scopes, sent.wants, sent.outcomes, sent.details) u(key, scope, want, outcome, detail)
      cross join lateral (  -- one look-up for each, whatever the planner believes of the table
        select * from push p
        where p.bucket = sent.bucket and p.account = p_account and p.key = u.key and p.scope = u.scope and p.lease = p_lease
        offset 0) p
      join address a on a.bucket = sent.bucket and a.key = p.key
      join mapping m on m.account = p_account and m.scope = p.scope
      cross join lateral (
        select withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, p_now) stop,
          greatest(p.unsure_until, p_settle + (
            select max(t.confirmed_at) from told t
            where t.bucket = sent.bucket and t.key = p.key and t.account = p_account and t.scope = p.scope and t.stop <> p_stop)) sure
        offset 0) r),
    proof as (
      insert into told (bucket, account, key, scope, stop, asked_at, sent_at, confirmed_at)
      select sent.bucket, p_account, w.key, w.scope, p_stop, w.since, p_sent, p_now
      from answer w
      where w.verdict = 'settled'
      order by w.key, w.scope
      on conflict do nothing),
    gone as (
      delete from push p using answer w
      where p.bucket = sent.bucket and p.account = p_account and p.key = w.key and p.scope = w.scope and w.verdict = 'settled' and w.turns_at is null),
    stays as (
      update push p
      set lease = null, lease_until = '-infinity',
        attempts = case
          when w.verdict = 'released' then greatest(p.attempts - 1, 0)
          when w.verdict = 'quarantined' and w.outcome = 'refused' then 1
          when w.verdict in ('postponed', 'quarantined') then p.attempts
          else 0 end,
        refusals = w.refusals,
        unsure_until = case when w.outcome in ('done', 'unknown', 'cut') and w.verdict <> 'settled'
          then greatest(p.unsure_until, p_now + p_settle) else p.unsure_until end,
        stop = case when w.verdict = 'settled' then not p_stop else w.stop end,
        since = case when w.verdict = 'settled' then w.turns_at else p.since end,
        due_at = case
          when w.textless then 'infinity'
          when w.verdict = 'settled' then w.turns_at
          when w.verdict = 'unsure' then p_now + p_settle + interval '1 millisecond'
          when w.verdict = 'quarantined' then p_now + case when w.outcome = 'refused'
            then (array['15 minutes', '1 hour', '6 hours', '1 day']::interval[])[least(w.refusals, 4)] else interval '1 day' end
          when w.verdict = 'postponed' then p_now + random() * least(p_cap, interval '1 second' * 2 ^ least(p.attempts, 20))
          else p.due_at end,
        refused = case when w.verdict = 'quarantined' then coalesce(nullif(w.detail, ''), w.outcome)
          when w.verdict in ('settled', 'unsure') then null else p.refused end
      from answer w
      where p.bucket = sent.bucket and p.account = p_account and p.key = w.key and p.scope = w.scope
        and not (w.verdict = 'settled' and w.turns_at is null))
    select w.verdict from answer w;
  end loop;
end $$;

-- The texts of these addresses are known now: what waited for one is due, and an account that reaches people another way is owed nothing.
create or replace function known(p_bucket smallint[], p_key uuid[], p_now timestamptz) returns void language plpgsql as $$
declare
  b smallint;
begin
  lock table mapping in access share mode;  -- before any row, as `settle` does: what is recorded after it in this transaction reads them
  for b in
    select distinct p.bucket from push p join unnest(p_bucket, p_key) u(bucket, key) on u.bucket = p.bucket and u.key = p.key order by 1
  loop
    perform from push p join unnest(p_bucket, p_key) u(bucket, key) on u.bucket = b and u.key = p.key
    where p.bucket = b
    order by p.account, p.key, p.scope
    for update of p;

    delete from push p using unnest(p_bucket, p_key) u(bucket, key), address a, account n
    where p.bucket = b and u.bucket = b and p.key = u.key and a.bucket = b and a.key = p.key and n.account = p.account
      and a.channel <> n.channel;

    update push p set due_at = greatest(p_now, p.since)
    from unnest(p_bucket, p_key) u(bucket, key), address a
    where p.bucket = b and u.bucket = b and p.key = u.key and a.bucket = b and a.key = p.key
      and p.due_at = 'infinity' and a.plaintext is not null;
  end loop;
end $$;
