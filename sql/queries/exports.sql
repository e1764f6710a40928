-- name: take_asking$
-- Waits until nobody else asks, and has it to the end of the transaction: whoever asks then counts what those before have asked for.
select pg_advisory_xact_lock(:lock::bigint);

-- name: ask$
-- Asks for an export, which the worker makes. Null if as many as may are waiting already.
insert into export (id, scope, channel, wants, columns, format, packing, spreadsheet, purpose, requester, asked_at, expires_at)
select :id::uuid, :scope::int, :channel::text::channel, :wants::smallint, :columns::text[], :format::text, :packing::text,
  :spreadsheet::boolean, :purpose::text, :requester::text, :now::timestamptz, :expires_at::timestamptz
where (select count(*) from export where manifest is null and refused is null and expires_at > :now) < :most
returning true;

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
  as_of, snapshot, file, manifest, attempts;

-- name: take_turn$
-- True while no other session makes exports. It lasts as long as the session, or until it is given back.
select pg_try_advisory_lock(:lock::bigint);

-- name: leave_turn$
select pg_advisory_unlock(:lock::bigint);

-- name: snapshot^
-- What this transaction sees of the ledger. A standby does not say which transactions its snapshots leave out, but the ledger shows which
-- of those from the oldest one on it sees: the others up to the last are left out.
with seen as (
  select distinct c.position::text::bigint n
  from consent c
  where pg_is_in_recovery() and c.position >= pg_snapshot_xmin(pg_current_snapshot()))
select case when pg_is_in_recovery()
    then format('%s:%s:%s', low.n, coalesce(high.n + 1, low.n), (
      select string_agg(g.n::text, ',' order by g.n) from generate_series(low.n, high.n) g(n) left join seen on seen.n = g.n where seen.n is null))
    else pg_current_snapshot()::text end snapshot,
  pg_is_in_recovery() is_standby
from (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint n) low cross join (select max(n) n from seen) high;

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

-- name: horizon^
-- What is seen of the ledger now, and whether all that was written until then is on disk.
select pg_current_snapshot()::text seen, pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn() is_kept;

-- name: keep$
-- Whatever was written before this is on disk once it is committed.
select pg_logical_emit_message(true, 'mailprefs', '')::text;

-- name: left
-- Who of an export left between two snapshots, from a place on; and the last row of the ledger that was looked at.
select at_position::text position, bucket, key, evidence, received_at, plaintext, gone, back
from left_since(:after::text::pg_snapshot, :upto::text::pg_snapshot, :position::text::xid8, :bucket, :key, :evidence, :most,
  :path, :wants, :channel::text::channel, :seen::text::pg_snapshot, :as_of, :now);
