-- name: claim$
-- One comparison of an account at a time; true if it is ours.
select pg_try_advisory_lock(:lock::int, :account::int);

-- name: release$
select pg_advisory_unlock(:lock::int, :account::int);

-- name: clear!
with left_over as (delete from drift where account = :account and scope = :scope)
delete from listing where account = :account and scope = :scope;

-- name: last_listed$
-- How many the provider listed the last time, null if it was never asked.
select listed from reconciliation where account = :account and scope = :scope order by began_at desc limit 1;

-- name: listed^
-- How many entries the provider listed, and how many of them are the same person again.
select coalesce(sum(l.times), 0)::bigint listed, coalesce(sum(l.times - 1), 0)::bigint twice
from (select count(*) times from listing where account = :account and scope = :scope group by bucket, key) l;

-- name: measure!
-- Both sides were perhaps filled a moment ago, and nobody has counted them yet: plans go by these counts.
analyze listing, address;

-- name: compare!
insert into drift (account, scope, bucket, key, kind, cause, at)
select :account, :scope, d.bucket, d.key, d.kind, d.cause, d.at from differ(:account, :scope, :began, :settle, :now) d;

-- name: found
select kind, count(*) people from drift where account = :account and scope = :scope group by kind order by kind;

-- name: stops_of_theirs
-- Those whom the provider stopped and we did not, a page at a time.
select bucket, key, cause, at
from drift
where account = :account and scope = :scope and kind in ('theirs', 'stranger') and (bucket, key) > (:bucket::smallint, :key::uuid)
order by bucket, key
limit :most;

-- name: owe!
-- The provider lacks what it was told: it is owed again, since it was first asked for it after it last let them go. Since nobody knows which
-- of the two it believes by the time that they change their mind, a go is told as well.
insert into push (bucket, account, key, scope, stop, since, due_at, unsure_until)
select d.bucket, d.account, d.key, d.scope, true, least(coalesce(asked.at, :now), :now), :now, 'epoch'
from drift d
left join (
  select e.bucket, e.key, min(t.asked_at) at
  from drift e
  join told t on t.bucket = e.bucket and t.key = e.key and t.account = e.account and t.scope = e.scope
  where e.account = :account and e.scope = :scope and e.kind = 'ours' and t.stop
    and not exists (
      select from told g
      where g.bucket = t.bucket and g.key = t.key and g.account = t.account and g.scope = t.scope and not g.stop and g.sent_at > t.sent_at)
  group by e.bucket, e.key) asked on asked.bucket = d.bucket and asked.key = d.key
where d.account = :account and d.scope = :scope and d.kind = 'ours'
order by d.bucket, d.account, d.key, d.scope
on conflict (bucket, account, key, scope) do nothing;

-- name: remember!
-- What was found, and whom the listing named although nothing holds them here: later none of them passes for one who left there again.
with named as (
  insert into echo (bucket, account, scope, key, seen_at)
  select distinct d.bucket, d.account, d.scope, d.key, :began::timestamptz
  from drift d
  join listing l on l.account = d.account and l.scope = d.scope and l.bucket = d.bucket and l.key = d.key
  where d.account = :account and d.scope = :scope and d.kind in ('stale', 'unsettled')
  order by d.bucket, d.account, d.scope, d.key
  on conflict (bucket, account, scope, key) do update set seen_at = excluded.seen_at)
insert into reconciliation (account, scope, began_at, ended_at, listed, found, healed, whole)
values (:account, :scope, :began, :now, :listed, :found::jsonb, :healed, :whole)
on conflict do nothing;

-- name: due
select s.scope
from unnest(:scopes::int[]) s(scope)
where not exists (
  select from reconciliation r where r.account = :account and r.scope = s.scope and r.began_at >= :before and r.healed)
order by s.scope;
