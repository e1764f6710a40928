-- name: durability^
-- The settings that decide whether a commit survives a crash, as this very session has them.
select current_setting('fsync') fsync,
  current_setting('full_page_writes') full_page_writes,
  current_setting('synchronous_commit') synchronous_commit,
  current_setting('server_version_num') server_version_num;

-- name: is_spread$
select is_spread();

-- name: try_lock$
-- Takes the lock of migrations if it is free, for this session.
select pg_try_advisory_lock(:lock::bigint);

-- name: unlock$
select pg_advisory_unlock(:lock::bigint);

-- name: wait_for_locks$
-- How long a statement waits for a lock: here in this transaction, or in the whole session.
select set_config('lock_timeout', :most, :here);

-- name: create_ledger_of_migrations#
create table if not exists migration (
  name text primary key,
  digest text not null,
  applied_at timestamptz not null default now());

-- name: has_migrations$
select to_regclass('migration') is not null;

-- name: applied
select name, digest from migration order by name;

-- name: remember!
insert into migration (name, digest) values (:name, :digest);
