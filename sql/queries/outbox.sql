-- name: accounts
select account, name from account order by account;

-- name: look^
-- Asked every second of every account, by every worker: it writes nothing and locks nothing, as `own` does even where it is refused.
select coalesce(g.owner <> :owner and g.owned_until > :now::timestamptz, false) taken,
  coalesce(g.owner is distinct from :owner or g.owned_until <= :lapsing, true) lapsing,
  coalesce(g.not_before > :now::timestamptz, false) shut,
  coalesce(g.barred, false) barred
from (select :account::smallint account) a
left join gate g on g.account = a.account;

-- name: own^
-- This worker owns the account until then, unless another one does: no row. What the account's gate says comes with it.
insert into gate as g (account, owner, owned_until)
values (:account, :owner, :until)
on conflict (account) do update set owner = excluded.owner, owned_until = excluded.owned_until
where g.owner = excluded.owner or g.owned_until <= :now::timestamptz
returning g.not_before > :now::timestamptz shut, g.barred;

-- name: disown!
-- Whoever asks next may own the account.
update gate set owner = null, owned_until = '-infinity' where account = :account and owner = :owner;

-- name: wait!
-- Nothing is sent for the account before that time; a wait that was asked for earlier is not shortened.
insert into gate as g (account, not_before, barred) values (:account, :until, :barred)
on conflict (account) do update set not_before = greatest(g.not_before, excluded.not_before), barred = g.barred or excluded.barred;

-- name: admitted!
-- The credential was accepted.
update gate set barred = false where account = :account and barred;

-- name: close_group!
insert into closed as c (account, scope, until) values (:account, :scope, :until)
on conflict (account, scope) do update set until = excluded.until;

-- name: reopen_groups!
delete from closed where account = :account;

-- name: reopen_gate!
-- A credential that was refused is tried again now; a provider that asked us to wait is not.
update gate set not_before = '-infinity', barred = false where account = :account and barred;

-- name: lease
-- What is due in one direction, now leased (sql/migrations/0016_buckets.sql).
select bucket, key, scope
from lease(:account, :scopes, :called, :stop, :most, :lease, :until, :settle, :quiet, :now)
order by due_at, bucket, key, scope;

-- name: read
-- What must be sent for the rows that are still ours until then: state and text as they are now, and the want that they stand for.
-- Nothing about a scope that is mapped no longer, or under another id than the asker's, and nobody whom the account, which may have changed its provider, reaches no longer.
select p.bucket, p.key, p.scope, p.want, withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, :now) stop, a.plaintext text,
  p.refused is not null and p.refusals > 0 refused
from unnest(:bucket::smallint[], :key::uuid[], :scope::int[], :called::text[]) with ordinality u(bucket, key, scope, called, n)
join push p on p.bucket = u.bucket and p.account = :account and p.key = u.key and p.scope = u.scope
join account n on n.account = p.account
join mapping m on m.account = p.account and m.scope = p.scope and m.called = u.called
join address a on a.bucket = p.bucket and a.key = p.key and a.channel = n.channel
where p.lease = :lease and p.lease_until > :until
order by u.n;

-- name: settle
-- The verdict on each row, one row each (sql/migrations/0011_outbox.sql).
select settle verdict
from settle(:account, :lease, :stop, :bucket, :key, :scope, :want, :outcome, :detail, :sent, :settle, :cap, :patience, :now);

-- name: tell_again
-- Owes the stops of one bucket anew that an account heard of before a time, the longest ago first, where nobody could lay its list beside
-- ours since: it may have lost or forgotten them. It heard when it last confirmed the stop, or told us itself; else when it was spoken of.
with stopped as (
  select a.bucket, m.account, a.key, m.scope, coalesce(greatest(
    (select max(t.confirmed_at) from told t
      where t.bucket = :bucket and t.key = a.key and t.account = m.account and t.scope = m.scope and t.stop),
    (select max(c.at) from consent c
      where c.bucket = :bucket and c.key = a.key and c.teller = n.name and c.effect = 'stop' and c.scope = any(m.path))),
    (select max(c.received_at) from consent c
      where c.bucket = :bucket and c.key = a.key and c.effect in ('stop', 'go', 'withdraw')), '-infinity') heard_at
  from mapping m
  join account n on n.account = m.account
  join unnest(:scopes::int[], :called::text[]) s(scope, called) on s.scope = m.scope and s.called = m.called
  join address a on a.bucket = :bucket and a.channel = n.channel and a.plaintext is not null
  where m.account = :account
    and not exists (
      select from reconciliation r where r.account = m.account and r.scope = m.scope and r.healed and r.began_at > :compared)
    and withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, :now)),
chosen as (
  select * from stopped w
  where w.heard_at < :before
    and not exists (select from push p where p.bucket = w.bucket and p.account = w.account and p.key = w.key and p.scope = w.scope)
  order by w.heard_at
  limit :most)
insert into push (bucket, account, key, scope, stop, since, due_at, unsure_until)
select w.bucket, w.account, w.key, w.scope, true, :now, :now, 'epoch' from chosen w  -- 'epoch': it may believe it, so a go is told as well
order by w.bucket, w.account, w.key, w.scope
on conflict do nothing
returning key;

-- name: sync
-- What each account has still to hear, counting everything: what is leased, backs off or is refused, but nothing that begins later.
-- An address known by its key alone cannot be told; it is counted apart, and not what is oldest. Nothing is owed about what is not mapped.
-- Late are the stops that were asked for by when the law and the mailbox providers call it too late; a go has no deadline.
-- The rows are added up before anything is joined to them: two million take 1.1 s, 0.6 s with two workers beside; joined one by one 2.4 s.
with owed as (
  select p.account, p.scope, p.stop, p.due_at = 'infinity' textless, p.refused is not null dead, count(*) pushes, min(p.since) since,
    count(*) filter (where p.since <= :mail::timestamptz) by_mail, count(*) filter (where p.since <= :texts::timestamptz) by_text,
    count(*) filter (where p.since <= :ads::timestamptz) by_ads
  from push p
  where p.since <= :now
  group by 1, 2, 3, 4, 5)
select n.name account, n.channel::text channel,
  coalesce(sum(o.pushes) filter (where not o.textless), 0)::bigint waiting,
  coalesce(sum(o.pushes) filter (where o.textless), 0)::bigint no_address,
  min(o.since) filter (where not o.textless) oldest_at,
  coalesce(sum(o.pushes) filter (where not o.textless and o.dead), 0)::bigint dead,
  min(o.since) filter (where not o.textless and o.stop and o.scope & 255 <> 3) oldest_stop,
  min(o.since) filter (where not o.textless and o.stop and o.scope & 255 = 3) oldest_ads,
  coalesce(sum(case when o.scope & 255 = 3 then o.by_ads when n.channel = 'sms' then o.by_text else o.by_mail end)
    filter (where not o.textless and o.stop), 0)::bigint late
from account n
left join (owed o join mapping m on m.account = o.account and m.scope = o.scope) on o.account = n.account
group by n.name, n.channel
order by n.name;
