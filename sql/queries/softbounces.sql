-- name: count
-- Remembers soft bounces and returns, for each address that has enough of them within the window that ends with its latest, that latest.
with kept as (
  insert into soft_bounce (bucket, key, id, at)
  select distinct on (b.bucket, b.key, b.id) b.bucket, b.key, b.id, b.at
  from unnest(:bucket::smallint[], :key::uuid[], :id::text[], :at::timestamptz[]) b(bucket, key, id, at)
  order by b.bucket, b.key, b.id, b.at
  on conflict do nothing
  returning bucket, key, id, at),
-- a statement does not see its own rows, so the new ones are put beside the old
every as (
  select k.bucket, k.key, k.id, k.at from kept k
  union  -- not all: on a cluster it does see them
  select s.bucket, s.key, s.id, s.at
  from soft_bounce s join (select distinct bucket, key from kept) k on k.bucket = s.bucket and k.key = s.key),
latest as (
  select distinct on (e.bucket, e.key) e.bucket, e.key, e.id, e.at
  from every e
  order by e.bucket, e.key, e.at desc, e.id desc)
select l.key, l.id, l.at
from latest l join every e on e.bucket = l.bucket and e.key = l.key and e.at > l.at - :window::interval
group by l.bucket, l.key, l.id, l.at
having count(*) >= :threshold
order by l.bucket, l.key;

-- name: forget!
delete from soft_bounce where at < :before;
