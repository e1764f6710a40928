-- name: own^
-- What we know of one address, and whether an application tied it to others.
select channel::text channel, plaintext, locale, party is not null tied from address where bucket = :bucket and key = :key;

-- name: standings
-- How each scope stands for each of these addresses, in the words of the rule (sql/migrations/0002_rule.sql), but with what sits on the
-- root left out: that is no choice, and hides none.
select w.key, s.scope,
  not open(array_remove(w.stops, 0), case when s.path[2] = any(w.stops) then w.goes else w.goes || w.goes_below end, s.path) stopped,
  (select max(p.until) from unnest(w.pauses) p where p.scope = any(s.path[2:]) and p.until > :now::timestamptz) paused_until,
  coalesce(0 = any(w.stops), false) or exists (select from unnest(w.pauses) p where p.scope = 0 and p.until > :now::timestamptz) unreachable,
  consented(w.grants, w.claims, s.scope, case when w.channel = 'sms' then s.wants_sms else s.wants_email end) consented
from unnest(:buckets::smallint[], :keys::uuid[]) with ordinality u(bucket, key, n)
join address w on w.bucket = u.bucket and w.key = u.key
cross join scope s
where s.scope = any(:scopes::int[]);

-- name: holds
-- Everything on hold for these addresses, and through which door it last came.
select f.key, f.scope, f.cause, f.off_at, nullif(f.until, 'infinity') until, min(c.door) door
from fold(:buckets::smallint[], :keys::uuid[]) f
join consent c on c.bucket = f.bucket and c.key = f.key and c.scope = f.scope and c.cause = f.cause and c.effect = 'stop' and c.at = f.off_at
where f.held and f.until > :now::timestamptz
group by f.key, f.scope, f.cause, f.off_at, f.until;
