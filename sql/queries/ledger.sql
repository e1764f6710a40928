-- name: record_few$
-- The one write path (sql/migrations/0003_ledger.sql): the ordinals of the Changes that were added.
select record_few(:bucket::text::smallint[], :key, :channel::text::text[], :scope::text::int[], :cause::text::text[], :effect::text::text[], :door::text::text[], :teller, :own::text::boolean[], :happened, :until::text::timestamptz[], :evidence, :now, :sure);

-- name: record_many$
-- The same, planned for as many as there are.
select record_many(:bucket::text::smallint[], :key, :channel::text::text[], :scope::text::int[], :cause::text::text[], :effect::text::text[], :door::text::text[], :teller, :own::text::boolean[], :happened, :until::text::timestamptz[], :evidence, :now, :sure);

-- name: told_few$
-- As record_few, and then counts what an account said: one statement is one way to the server, and a commit of its own.
select record_few(:bucket::text::smallint[], :key, :channel::text::text[], :scope::text::int[], :cause::text::text[], :effect::text::text[], :door::text::text[], :teller, :own::text::boolean[], :happened, :until::text::timestamptz[], :evidence, :now, :sure), tally(:now, :account, :kinds, :events);

-- name: told_many$
-- The same, planned for as many as there are.
select record_many(:bucket::text::smallint[], :key, :channel::text::text[], :scope::text::int[], :cause::text::text[], :effect::text::text[], :door::text::text[], :teller, :own::text::boolean[], :happened, :until::text::timestamptz[], :evidence, :now, :sure), tally(:now, :account, :kinds, :events);

-- name: overruled$
-- Whether this fact was recorded, and anything was opened or taken back for its address since: then it says no more how things stand.
select exists (
  select from consent s join consent c on c.bucket = s.bucket and c.key = s.key
  where s.bucket = :bucket and s.key = :key and s.evidence = :evidence and c.effect in ('go', 'withdraw') and c.received_at >= s.received_at);

-- name: lately$
-- Whether this stop was recorded after that moment.
select exists (
  select from consent
  where bucket = :bucket and key = :key and evidence = :evidence and effect = 'stop' and received_at >= :since);

-- name: acknowledged$
-- When this stop happened, as it was recorded the first time that it was told of.
select happened_at from consent where bucket = :bucket and key = :key and evidence = :evidence and effect = 'stop';

-- name: buckets
-- The buckets that anybody is in (sql/migrations/0019_planned.sql).
select buckets() bucket;

-- name: differing$
-- Folds every ledger of one bucket anew and counts the summaries that are not what their ledger says.
select differing(:bucket);
