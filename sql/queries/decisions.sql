-- name: decide
-- The rule for each (address, topic) asked (sql/migrations/0019_planned.sql): at which places, from 1, it says yes, and at which consent is
-- missing. Whoever is at no place is denied. Two arrays cost the driver a fifth of what a thousand rows do.
select coalesce(array_agg(d.n) filter (where d.allowed), '{}') allowed,
  coalesce(array_agg(d.n) filter (where not d.consented), '{}') missing
from decided(:bucket::text::smallint[], :key, :channel::text::text[], :scope::text::int[], :now) d;

-- name: holds
-- Everything on hold for these addresses, the oldest first.
select f.key, f.scope, f.cause, f.off_at, nullif(f.until, 'infinity') until
from fold(:bucket, :key) f
where f.held and f.until > :now
order by f.key, f.off_at, f.scope, f.cause;

-- name: history
-- One address's ledger, in the order it counts; with a consent, where it was given and what it said.
select c.at, c.scope, c.cause, c.effect, c.door, c.evidence, p.source, p.notice
from consent c
left join proof p on c.door in ('import', 'manage') and c.effect in ('grant', 'go') and p.digest = split_part(split_part(c.evidence, ':', 2), '-', 1)
where c.bucket = :bucket and c.key = :key
order by c.at, c.evidence;

-- name: told
-- What was told to whom about one address; the unsettled ones have no time of sending.
select n.name account, t.scope, t.asked_at, t.sent_at, t.confirmed_at
from told t join account n on n.account = t.account
where t.bucket = :bucket and t.key = :key
union all
select n.name, p.scope, p.since, null, null
from push p join account n on n.account = p.account
where p.bucket = :bucket and p.key = :key
order by 3, 1, 2;

-- name: is_met$
-- True once an address was imported, heard of or told us anything: every row of the ledger makes one.
select exists (select from address where bucket = :bucket and key = :key);

-- name: is_held$
-- True while a hold keeps this scope from being sent to this address, whatever consent says.
select coalesce(held(a.stops, a.goes, a.pauses, s.path, :now), false)
from scope s left join address a on a.bucket = :bucket and a.key = :key
where s.scope = :scope;
