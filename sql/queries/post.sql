-- name: ask$
-- Owes a mail, unless as many as :most were granted to this address since :since. The same statement whoever it is about, and a row is
-- written either way.
with counted as (
  insert into asking as k (bucket, key, times, granted, asked_at)
  select :bucket::smallint, :key::uuid, array[:now::timestamptz], true, :now::timestamptz
  on conflict (bucket, key) do update
  set asked_at = :now,
    granted = (select count(*) < :most::int from unnest(k.times) t where t > :since::timestamptz),
    times = array(select t from unnest(k.times) t where t > :since::timestamptz)
      || case when (select count(*) < :most::int from unnest(k.times) t where t > :since::timestamptz) then array[:now::timestamptz] end
  returning granted),
owed as (
  insert into mail (bucket, key, id, kind, scope, plaintext, language, asked_at, due_at)
  select :bucket, :key, :id, :kind, :scope, :plaintext, :language, :now, :now from counted where granted)
select granted from counted;

-- name: lease
-- The mails that are due, the oldest first, for nobody else until then (sql/migrations/0016_buckets.sql).
select key, id, kind, scope, asked_at, attempts, plaintext, language, unreachable, complained from lease_mails(:most, :until, :now);

-- name: postpone!
-- It is tried again then.
update mail set due_at = :until where bucket = :bucket and key = :key and id = :id;

-- name: sent!
-- It was sent, and its answer is awaited.
update mail set due_at = 'infinity' where bucket = :bucket and key = :key and id = :id;

-- name: done!
delete from mail where bucket = :bucket and key = :key and id = :id;

-- name: awaited$
-- Where a question was mailed to that is not answered yet.
select plaintext from mail where bucket = :bucket and key = :key and id = :id and kind = 'confirm';

-- name: close!
insert into closed_pass (bucket, key, id, closed_at) values (:bucket, :key, :id, :now) on conflict do nothing;

-- name: is_closed$
select exists (select from closed_pass where bucket = :bucket and key = :key and id = :id);

-- name: forget_mails$
-- What nobody will answer any more, and what could not be sent for too long: how many of these there were.
with gone as (delete from mail where asked_at < :before returning due_at)
select count(*) from gone where due_at < 'infinity';

-- name: forget_askings!
delete from asking where asked_at < :before;

-- name: forget_closings!
delete from closed_pass where closed_at < :before;

-- name: oldest$
-- Since when the oldest mail waits that nobody has sent; null if none does.
select min(asked_at) from mail where due_at < 'infinity';
