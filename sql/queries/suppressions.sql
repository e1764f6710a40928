-- name: held
-- Everything that is on hold for good in one bucket, the oldest first for each address (sql/migrations/0019_planned.sql).
select key, plaintext, scope, cause, off_at, evidence from held_in(:bucket, :now);
