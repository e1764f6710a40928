-- name: written^
-- Which cluster this is, and how far its log is written.
select (select system_identifier from pg_control_system()) system, pg_current_wal_lsn()::text written;

-- name: replayed^
-- How far a standby is. It is behind if it lacks something that was written, and the last commit that it has is not recent.
-- Span: how many transactions it sees beyond the oldest one that was under way.
select (select system_identifier from pg_control_system()) system,
  pg_is_in_recovery() is_standby,
  not coalesce(pg_last_wal_replay_lsn() >= :written::text::pg_lsn, false)
    and not coalesce(pg_last_xact_replay_timestamp() >= :recent::timestamptz, false) is_behind,
  pg_snapshot_xmax(s)::text::bigint - pg_snapshot_xmin(s)::text::bigint span
from pg_current_snapshot() s;
