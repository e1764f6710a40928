-- name: ask!
-- Asks for an export; the worker makes it.
insert into export (id, scope, channel, wants, columns, format, packing, spreadsheet, purpose, requester, asked_at, expires_at)
values (:id, :scope, :channel::text::channel, :wants, :columns, :format, :packing, :spreadsheet, :purpose, :requester, :now, :expires_at);

-- name: find^
select id, scope, channel::text channel, wants, columns, format, packing, spreadsheet, purpose, requester, asked_at, expires_at, refused,
  as_of, snapshot, file, manifest
from export where id = :id;

-- name: every
-- The latest exports, by when they were asked for.
select id, scope, channel::text channel, wants, columns, format, packing, spreadsheet, purpose, requester, asked_at, expires_at, refused,
  as_of, snapshot, file, manifest
from export
order by asked_at desc, id
limit :most;

-- name: next^
-- The export that has waited longest, and counts the attempt. Whoever asks holds the lock of those that make exports.
update export set attempts = attempts + 1
where id = (select id from export where manifest is null and refused is null and expires_at > :now order by attempts, asked_at, id limit 1)
returning id, scope, channel::text channel, wants, columns, format, packing, spreadsheet, purpose, requester, asked_at, expires_at, refused,
  as_of, snapshot, file, manifest;

-- name: take_turn$
-- True while no other session makes exports. It lasts as long as the session, or until it is given back.
select pg_try_advisory_lock(:lock::bigint);

-- name: leave_turn$
select pg_advisory_unlock(:lock::bigint);

-- name: snapshot^
-- What this transaction sees of the ledger, and by whose time a commit counts; false for a standby, whose view may be stale.
select pg_current_snapshot()::text snapshot, not pg_is_in_recovery() is_primary;

-- name: denied
-- How many of those whose text is known may not be sent a topic, and why: each reason on the path for itself, so that one person may count
-- more than once. The row without a reason is the people.
with denied as (
  select a.bucket, a.key, consented(a.grants, a.claims, (:path::int[])[cardinality(:path::int[])], :wants) consented
  from address a
  where a.channel = :channel::text::channel and a.plaintext is not null
    and not allowed(a.stops, a.goes, a.grants, a.claims, a.pauses, :path, :wants, :now)),
grouped as (
  select array_agg(d.bucket) buckets, array_agg(d.key) keys from denied d group by d.bucket),
holds as (
  select f.scope, f.cause, count(*) people
  from grouped g cross join lateral fold(g.buckets, g.keys) f
  where f.held and f.until > :now and f.scope = any(:path)
  group by f.scope, f.cause)
select h.scope, h.cause, h.people from holds h
union all
select null, 'consent_missing', count(*) from denied d where not d.consented
union all
select null, null, count(*) from denied d;

-- name: made$
-- An export is there: its file, what was signed of it, and the consent that the topic wanted when it was made.
update export set wants = :wants, as_of = :as_of, snapshot = :snapshot, file = :file, manifest = :manifest
where id = :id and manifest is null
returning true;

-- name: refuse!
update export set refused = :why where id = :id and manifest is null;

-- name: expire!
-- What has expired has no file any more; its manifest stays, as the record of who took what.
update export set file = null where file is not null and expires_at <= :now;

-- name: files
-- The files that are kept.
select file from export where file is not null;

-- name: horizon$
-- What is seen of the ledger now.
select pg_current_snapshot()::text;

-- name: left
-- What was recorded between two snapshots, from a place on, and whom of the export it stopped: `gone` where it is a stop on the topic's path,
-- or takes back what ended one sooner, for somebody who was allowed then (`seen`, `as_of`); `back` where they may be sent again now.
-- Given are those, and the last row that was looked at. A stop that commits late is in the window in which it becomes visible.
with recorded as materialized (
  select c.position, c.bucket, c.key, c.evidence, c.received_at, c.scope = any(:path::int[]) and c.effect in ('stop', 'withdraw') matters
  from consent c
  where c.position >= pg_snapshot_xmin(:after::text::pg_snapshot)
    and (c.position, c.bucket, c.key, c.evidence) > (:position::text::xid8, :bucket::smallint, :key::uuid, :evidence::text)
    and not pg_visible_in_snapshot(c.position, :after::text::pg_snapshot)
    and pg_visible_in_snapshot(c.position, :upto::text::pg_snapshot)
  order by c.position, c.bucket, c.key, c.evidence
  limit :most),
whom as (
  select array_agg(r.bucket) buckets, array_agg(r.key) keys from recorded r where r.matters),
was as materialized (
  select s.* from whom cross join lateral summary_at(whom.buckets, whom.keys, :seen::text::pg_snapshot) s where whom.keys is not null),
told as (
  select r.position, r.bucket, r.key, r.evidence, r.received_at, a.plaintext,
    r.matters and coalesce(a.channel, :channel::text::channel) = :channel::text::channel
      and coalesce(allowed(w.stops, w.goes, w.grants, w.claims, w.pauses, :path, :wants, :as_of), false) gone,
    coalesce(allowed(a.stops, a.goes, a.grants, a.claims, a.pauses, :path, :wants, :now), false) back,
    row_number() over (order by r.position desc, r.bucket desc, r.key desc, r.evidence desc) = 1 is_last
  from recorded r
  left join was w on w.bucket = r.bucket and w.key = r.key
  left join address a on a.bucket = r.bucket and a.key = r.key)
select t.position::text position, t.bucket, t.key, t.evidence, t.received_at, t.plaintext, t.gone, t.back
from told t
where t.gone or t.is_last
order by t.position, t.bucket, t.key, t.evidence;
