-- name: after
-- What was recorded after a place, in order, and how the scope stands now. Only what no transaction in flight can still slip in front of:
-- what this server has ended or, from a place that it has not come to, what another one had, whose database was restored into this.
select c.position::text position, c.bucket, c.key, c.evidence, c.scope, c.cause, c.effect, c.door, c.at, c.received_at,
  nullif(c.until, 'infinity') until, a.plaintext, a.channel::text channel, a.party,
  coalesce(held(a.stops, a.goes, a.pauses, s.path, :now), false) stopped
from consent c
join scope s on s.scope = c.scope
left join address a on a.bucket = c.bucket and a.key = c.key
where c.position >= :position::text::xid8
  and c.position < case
    when :position::text::xid8 <= pg_snapshot_xmax(pg_current_snapshot()) then pg_snapshot_xmin(pg_current_snapshot())
    else '18446744073709551615'::xid8 end
  and (c.position, c.bucket, c.key, c.evidence) > (:position::text::xid8, :bucket::smallint, :key::uuid, :evidence::text)
  and c.received_at >= :since::timestamptz
order by c.position, c.bucket, c.key, c.evidence
limit :most;

-- name: first_since$
-- The first transaction of this server that recorded anything at or after a time; null if none did.
select min(position)::text from consent where received_at >= :since and position <= pg_snapshot_xmax(pg_current_snapshot());
