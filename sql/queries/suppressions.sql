-- name: held
-- Everything that is on hold for good in one bucket, the oldest first for each address: its text, null where nobody told it, the scope,
-- the cause, since when, and the evidence of that stop.
select a.key, a.plaintext, f.scope, f.cause, f.off_at, (
    select min(c.evidence)
    from consent c
    where c.bucket = a.bucket and c.key = a.key and c.scope = f.scope and c.cause = f.cause and c.effect = 'stop' and c.at = f.off_at) evidence
from (
  select array_agg(h.bucket) buckets, array_agg(h.key) keys
  from address h
  where h.bucket = :bucket::smallint and (h.stops is not null or h.pauses is not null)) g
cross join lateral fold(g.buckets, g.keys) f
join address a on a.bucket = f.bucket and a.key = f.key
where f.held and f.until > :now
order by a.key, f.off_at, f.scope, f.cause;
