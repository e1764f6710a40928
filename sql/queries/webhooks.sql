-- name: introduce!
-- Whoever is new hears what is recorded from now on.
insert into webhook (name, position, introduced_at)
select w.name, pg_snapshot_xmin(pg_current_snapshot()), :now from unnest(:names::text[]) w(name)
order by w.name
on conflict do nothing;

-- name: own^
-- This worker tells the system until then, unless another one does, or it is not due: no row.
update webhook
set owner = :owner, owned_until = :until
where name = :name and due_at <= :now and (owner = :owner or owned_until <= :now)
returning position::text position, bucket, address as key, evidence, since, attempts;

-- name: look^
-- Where it stands, without writing anything. Beyond is a place that this server has not come to: it is another one's.
select position::text position, bucket, address as key, evidence, since, attempts,
  due_at > :now::timestamptz or (owner <> :owner and owned_until > :now::timestamptz) away,
  position > pg_snapshot_xmax(pg_current_snapshot()) beyond
from webhook
where name = :name;

-- name: restart!
-- Whoever stands beyond what this server has come to goes on with what it recorded itself: from the moment that the row was recorded behind
-- which it stood, and an hour more, since two machines may not agree what time it is.
update webhook w
set since = m.moment,
  position = coalesce(
    (select min(c.position) from consent c where c.received_at >= m.moment and c.position < pg_snapshot_xmax(pg_current_snapshot())),
    pg_snapshot_xmin(pg_current_snapshot())),
  bucket = 0, address = '00000000-0000-0000-0000-000000000000', evidence = '', owner = null, owned_until = '-infinity'
from (
  select h.name, coalesce(c.received_at, h.delivered_at, h.introduced_at, :now) - interval '1 hour' as moment
  from webhook h
  left join consent c on c.bucket = h.bucket and c.key = h.address and c.evidence = h.evidence) m
where w.name = :name and m.name = w.name and w.position > pg_snapshot_xmax(pg_current_snapshot());

-- name: acknowledged!
update webhook
set position = :position::text::xid8, bucket = :bucket, address = :key, evidence = :evidence, delivered_at = :now
where name = :name and owner = :owner;

-- name: settle!
-- Nothing failed, or it is tried again then.
update webhook
set attempts = :attempts, due_at = :now::timestamptz + random() * :wait::interval, failing_since = case when :attempts::int > 0 then coalesce(failing_since, :now) end,
  failure = coalesce(:failure, failure), failed_at = case when :failure::text is null then failed_at else :now::timestamptz end,
  owned_until = '-infinity'
where name = :name and owner = :owner;

-- name: known
-- Where each stands, and how much it has not heard yet, counted up to a limit.
select w.name, w.attempts, w.due_at, w.failing_since, w.failed_at, w.failure, w.delivered_at, w.position::text position, b.behind, b.oldest_at,
  w.position > pg_snapshot_xmax(pg_current_snapshot()) beyond
from webhook w
cross join lateral (
  select count(*) behind, min(c.received_at) oldest_at
  from (
    select c.received_at
    from consent c
    where c.position >= w.position and (c.position, c.bucket, c.key, c.evidence) > (w.position, w.bucket, w.address, w.evidence)
      and c.received_at >= w.since and (c.position <= pg_snapshot_xmax(pg_current_snapshot()) or w.position > pg_snapshot_xmax(pg_current_snapshot()))
    limit :most) c) b
where w.name = any(:names::text[])
order by w.name;

-- name: replay!
-- Hears everything once more from there, and at once. Whoever tells it now has lost it, so that what it acknowledges moves nothing.
update webhook
set position = :position::text::xid8, bucket = 0, address = '00000000-0000-0000-0000-000000000000', evidence = '',
  since = case when since = '-infinity' then since else :since::timestamptz - interval '1 hour' end,
  attempts = 0, due_at = '-infinity', failing_since = null, owner = null, owned_until = '-infinity'
where name = :name and :position::text::xid8 <= pg_snapshot_xmax(pg_current_snapshot());
