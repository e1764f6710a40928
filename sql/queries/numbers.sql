-- name: lock#
-- One registration at a time; readers are not held up.
lock table account in share row exclusive mode;

-- name: scopes
select scope, name, path, wants_email, wants_sms, retired from scope order by scope;

-- name: signing_keys
select id from signing_key order by id;

-- name: keep_signing_keys!
insert into signing_key (id, first_seen_at)
select i, :now from unnest(:ids::smallint[]) i order by i
on conflict (id) do nothing;

-- name: fingerprints
-- Remembers the fingerprints that are new, and returns those of the same ids that came before.
with kept as (
  insert into fingerprint (id, value)
  select f.id, f.value from unnest(:ids::smallint[], :values::bytea[]) f(id, value)
  order by f.id
  on conflict do nothing)
select id, value from fingerprint order by id;

-- name: keep_scope!
-- The number, name and path are for ever; what a topic wants and whether it is retired may change.
insert into scope as s (scope, path, name, stream, wants_email, wants_sms, retired)
values (:scope, :path, :name, :stream, :wants_email, :wants_sms, :retired)
on conflict (scope) do update
set wants_email = excluded.wants_email, wants_sms = excluded.wants_sms, retired = excluded.retired
where (s.wants_email, s.wants_sms, s.retired) is distinct from (excluded.wants_email, excluded.wants_sms, excluded.retired);

-- name: keep_account$
-- An account's number is given once; the caller holds the lock.
insert into account as a (account, name, channel)
select coalesce(max(e.account), 0) + 1, :name, :channel::text::channel
from account e
on conflict (name) do update set channel = excluded.channel
returning account;

-- name: drop_mappings!
-- Forgets what is mapped no longer, and the pushes that nobody is there to hear.
with gone as (
  delete from mapping m
  where not exists (select from unnest(:accounts::smallint[], :scopes::int[]) w(account, scope) where w.account = m.account and w.scope = m.scope)
  returning m.account, m.scope)
delete from push p using gone g where p.account = g.account and p.scope = g.scope;

-- name: drop_unreachable!
-- Forgets what is owed to accounts that reach people another way now.
delete from push p using address a, account n
where a.bucket = p.bucket and a.key = p.key and n.account = p.account and a.channel <> n.channel;

-- name: mappings
select account, scope, path, called, filled from mapping order by account, scope;

-- name: lock_mappings#
-- Waits for the writers that read the mappings as they were; those that come see them as they will be. Held for a moment alone.
lock table mapping in access exclusive mode;

-- name: keep_mapping!
insert into mapping as m (account, scope, path, called)
values (:account, :scope, :path, :called)
on conflict (account, scope) do update set path = excluded.path, called = excluded.called, filled = false
where (m.path, m.called) is distinct from (excluded.path, excluded.called);

-- name: unfilled
select account, scope from mapping where not filled order by account, scope;

-- name: owe_everything_held!
-- Every address that the rule holds back from a newly mapped scope is owed a push, and so is everyone whom the account was once told
-- to stop there and who has come back since.
with believed as (
  select distinct on (t.bucket, t.key) t.bucket, t.key, t.stop
  from told t
  where t.account = :account and t.scope = :scope
  order by t.bucket, t.key, t.sent_at desc)
insert into push (bucket, account, key, scope, stop, since, due_at)
select w.bucket, w.account, w.key, w.scope, w.stop, :now::timestamptz, case when w.plaintext is null then 'infinity' else :now::timestamptz end
from (
  select a.bucket, m.account, a.key, m.scope, a.plaintext,
    withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, :now::timestamptz) stop
  from mapping m
  join account c on c.account = m.account
  join address a on a.channel is null or a.channel = c.channel
  where m.account = :account and m.scope = :scope) w
left join believed b on b.bucket = w.bucket and b.key = w.key
where w.stop or b.stop
order by 1, 2, 3, 4
on conflict (bucket, account, key, scope) do update  -- what was refused under the old id is tried under the new one, at once
set want = push.want + 1, stop = excluded.stop, attempts = 0, refused = null, due_at = least(push.due_at, excluded.due_at);

-- name: filled!
update mapping set filled = true where account = :account and scope = :scope;

-- name: accounts
select account, name, channel from account order by account;

-- name: knows_nobody$
-- True while nothing is recorded of anybody.
select a.rows = 0 and c.rows = 0
from (select count(*) rows from (select a.bucket from address a limit 1) l) a
cross join (select count(*) rows from (select c.bucket from consent c limit 1) l) c;
