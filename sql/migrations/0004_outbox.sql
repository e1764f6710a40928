-- The outbox: what is due is leased, what was sent is settled, nothing is given up.

-- In front stands whatever is due soonest in one direction, wherever its bucket. With the bucket before the time, asking what is due took
-- 16 ms among two million waiting rows and 187 ms when a million were due; this way it takes 1 ms and 4 ms, once for every batch and poll.
drop index push_due;
create index push_due on push (account, stop, due_at);

-- A group at a provider that must not be told for now, because asking would do harm. The account's other groups go on.
create table closed (
  account smallint not null,
  scope int not null,
  until timestamptz not null,
  primary key (account, scope));

-- When anybody last spoke for an address; long ago, where nobody did.
create function spoken(p_bucket smallint, p_key uuid) returns timestamptz language sql stable parallel safe as $$
  select coalesce(max(c.received_at), '-infinity')
  from consent c
  where c.bucket = p_bucket and c.key = p_key and c.effect in ('stop', 'go', 'withdraw')
$$;

-- Leases what is due in one direction and says what it leased: one statement for each bucket, all in the caller's transaction. First comes
-- the bucket of whatever is due the longest, and all that is due in it: in a backlog a batch is of few buckets, at half the cost of one
-- that is of many. A go never stands in a batch with stops, and waits until nobody has spoken for its address for a while.
-- A lease found expired is a dead worker: what it sent may still land, so the row is unsure for as long as the account settles.
create function lease(p_account smallint, p_scopes int[], p_called text[], p_stop boolean, p_most int, p_lease uuid, p_until timestamptz,
  p_settle interval, p_quiet interval, p_now timestamptz)
returns setof push language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  tellable int[] := array(
    select s.scope from unnest(p_scopes, p_called) s(scope, called)
    join mapping m on m.account = p_account and m.scope = s.scope and m.called = s.called  -- not what a newer release tells otherwise
    left join closed x on x.account = p_account and x.scope = s.scope and x.until > p_now
    where x.scope is null);
  lacking int := p_most;
  taken int;
  b smallint;
begin
  for b in
    select d.bucket
    from (
      select p.bucket, p.due_at
      from push p
      where p.account = p_account and p.stop = p_stop and p.due_at <= p_now and p.lease_until <= p_now and p.scope = any(tellable)
        and (p_stop or spoken(p.bucket, p.key) <= p_now - p_quiet)
      order by p.due_at
      limit p_most) d
    group by d.bucket
    order by min(d.due_at)
  loop
    return query
    with free as materialized (
      select p.key, p.scope
      from push p
      where p.bucket = b and p.account = p_account and p.stop = p_stop and p.due_at <= p_now and p.lease_until <= p_now
        and p.scope = any(tellable) and (p_stop or spoken(p.bucket, p.key) <= p_now - p_quiet)
      order by p.due_at
      limit lacking
      for update skip locked)
    update push p
    set lease = p_lease, lease_until = p_until, attempts = p.attempts + 1,
      unsure_until = case when p.lease is null then p.unsure_until else greatest(p.unsure_until, p_now + p_settle) end
    from free f
    where p.bucket = b and p.account = p_account and p.key = f.key and p.scope = f.scope
    returning p.*;
    get diagnostics taken = row_count;
    lacking := lacking - taken;
    exit when lacking = 0;
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
-- Rows are locked in key order, as the ledger does, and looked at only then: nothing about them can move any more.
create function settle(p_account smallint, p_lease uuid, p_stop boolean, p_bucket smallint[], p_key uuid[], p_scope int[], p_want bigint[],
  p_outcome text[], p_detail text[], p_sent timestamptz, p_settle interval, p_cap interval, p_patience interval, p_now timestamptz)
returns setof text language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  sent record;
begin
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
        attempts = case when w.verdict = 'released' then greatest(p.attempts - 1, 0)
          when w.verdict in ('postponed', 'quarantined') then p.attempts else 0 end,
        unsure_until = case when w.outcome in ('done', 'unknown', 'cut') and w.verdict <> 'settled'
          then greatest(p.unsure_until, p_now + p_settle) else p.unsure_until end,
        stop = case when w.verdict = 'settled' then not p_stop else w.stop end,
        since = case when w.verdict = 'settled' then w.turns_at else p.since end,
        due_at = case
          when w.textless then 'infinity'
          when w.verdict = 'settled' then w.turns_at
          when w.verdict = 'unsure' then p_now + p_settle + interval '1 millisecond'
          when w.verdict = 'quarantined' then p_now + interval '1 day'
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
create function known(p_bucket smallint[], p_key uuid[], p_now timestamptz) returns void language plpgsql as $$
declare
  b smallint;
begin
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
