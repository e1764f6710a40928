-- A list without dates, read twice, says who has left there since they were let go: whoever a whole listing lacked after they were let go,
-- and a later one names, left in between. Everybody else on it may be our own echo.

-- Whom a listing still named although we would write to them, and when one last did. Of these nobody can say whether they left again.
create table echo (
  bucket smallint not null,
  account smallint not null,
  scope int not null,
  key uuid not null,
  seen_at timestamptz not null,
  primary key (bucket, account, scope, key));

-- True: who was not named in it was not listed, and who was named without need is in `echo`. Nothing of before is known to be so.
alter table reconciliation add whole boolean not null default false;

-- When the latest whole listing before this one was begun; null if there was none.
create function looked(p_account smallint, p_scope int, p_began timestamptz) returns timestamptz language sql stable as $$
  select case when r.whole then r.began_at end
  from reconciliation r
  where r.account = p_account and r.scope = p_scope and r.began_at < p_began
  order by r.began_at desc
  limit 1
$$;

-- As `differ` of four, which releases of before go on asking. Besides, an entry without a date is no echo but theirs, from that listing on, if
--   the last that the account confirmed is a go, and no request of before it can land any more (p_settle),
--   the listing before this one began after that, was whole, and did not name them, and
--   nobody has spoken for them since.
create function differ(p_account smallint, p_scope int, p_began timestamptz, p_settle interval, p_now timestamptz)
returns table (bucket smallint, key uuid, kind text, cause text, at timestamptz) language sql stable as $$
  select d.bucket, d.key, case when again.since is null then d.kind else 'theirs' end, d.cause, coalesce(again.since, d.at)
  from (select looked(p_account, p_scope, p_began) at offset 0) before
  cross join differ(p_account, p_scope, p_began, p_now) d
  left join lateral (
    select before.at since
    from (
      select t.stop, t.sent_at, t.confirmed_at
      from told t
      where d.kind = 'stale' and t.bucket = d.bucket and t.key = d.key and t.account = p_account and t.scope = p_scope
      order by t.sent_at desc
      limit 1) last
    where not last.stop and last.confirmed_at + p_settle < before.at
      and d.at = last.sent_at  -- what has no date of its own counts from there
      and not exists (
        select from echo e
        where e.bucket = d.bucket and e.account = p_account and e.scope = p_scope and e.key = d.key and e.seen_at >= last.confirmed_at)
      and not exists (select from consent c where c.bucket = d.bucket and c.key = d.key and c.received_at >= before.at)) again on true
$$;

-- What an operator asks about an endpoint of the sender's own, and how one goes on after its database was restored into another server, whose
-- transactions are numbered anew.
alter table webhook
  add introduced_at timestamptz,                            -- null: before this was written down
  add since timestamptz not null default '-infinity',       -- what was recorded before that is not told: numbers of two servers are mixed
  add failed_at timestamptz,
  add failure text;                                         -- a status, or what came instead of one
