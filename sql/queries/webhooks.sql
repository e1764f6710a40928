-- name: introduce!
-- Whoever is new hears what is recorded from now on.
insert into webhook (name, position)
select w.name, pg_snapshot_xmin(pg_current_snapshot()) from unnest(:names::text[]) w(name)
order by w.name
on conflict do nothing;

-- name: own^
-- This worker tells the system until then, unless another one does, or it is not due: no row.
update webhook
set owner = :owner, owned_until = :until
where name = :name and due_at <= :now and (owner = :owner or owned_until <= :now)
returning position::text position, bucket, address as key, evidence, attempts, failing_since;

-- name: look^
-- Where it stands, without writing anything.
select position::text position, bucket, address as key, evidence, attempts, failing_since,
  due_at > :now::timestamptz or (owner <> :owner and owned_until > :now::timestamptz) away
from webhook
where name = :name;

-- name: acknowledged!
update webhook
set position = :position::text::xid8, bucket = :bucket, address = :key, evidence = :evidence, delivered_at = :now
where name = :name and owner = :owner;

-- name: settle!
-- Nothing failed, or it is tried again then.
update webhook
set attempts = :attempts, due_at = :now::timestamptz + random() * :wait::interval, failing_since = case when :attempts::int > 0 then coalesce(failing_since, :now) end,
  owned_until = '-infinity'
where name = :name and owner = :owner;

-- name: known
select name, attempts, due_at, failing_since, delivered_at, position::text position, bucket, address as key, evidence from webhook order by name;

-- name: replay!
-- Hears everything once more from there, and at once. Whoever tells it now has lost it, so that what it acknowledges moves nothing.
update webhook
set position = :position::text::xid8, bucket = 0, address = '00000000-0000-0000-0000-000000000000', evidence = '',
  attempts = 0, due_at = '-infinity', failing_since = null, owner = null, owned_until = '-infinity'
where name = :name;
