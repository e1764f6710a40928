-- name: ask$
-- Owes a mail, unless as many as :most were granted to this address since :since. The same statement whoever it is about, and a row is
-- written either way.
with counted as (
  insert into asking as k (bucket, key, times, granted, asked_at)
  values (:bucket, :key, array[:now::timestamptz], true, :now)
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
-- The mails that are due, the oldest first, for nobody else until then; with where each goes, and what speaks against writing there.
-- A link to somebody's choices goes to the text that we know of that very address, whatever was typed.
with next as (
  select bucket, key, id from mail where due_at <= :now order by due_at, bucket, key, id limit :most for update skip locked)
update mail m
set due_at = :until, attempts = m.attempts + 1
from next n
where m.bucket = n.bucket and m.key = n.key and m.id = n.id
returning m.key, m.id, m.kind, m.scope, m.asked_at, m.attempts,
  coalesce(m.plaintext, (
    select a.plaintext from address a where a.bucket = m.bucket and a.key = m.key and a.channel = 'email' and m.kind = 'manage')) plaintext,
  coalesce((select a.locale from address a where a.bucket = m.bucket and a.key = m.key), m.language) language,
  exists (select from fold(array[m.bucket], array[m.key]) f where f.held and f.scope = 0 and f.until > :now) unreachable,
  exists (
    select from fold(array[m.bucket], array[m.key]) f
    where f.held and f.cause = 'complaint' and f.scope = (m.scope / 256) * 256 + 1) complained;

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
