-- name: stranger$
-- What the rule says of an address that we never met.
select allowed(null, null, null, null, null, :path, :wants::smallint, :now);

-- name: differing$
-- The places, from 1, of those keys for which the rule says something else than of a stranger. The keys come as one text of bytes,
-- 16 each, which is a tenth of the work of an array.
select coalesce(array_agg(q.n), '{}')
from (
  select u.n, u.bucket, encode(substr(:keys::bytea, u.n::int * 16 - 15, 16), 'hex')::uuid key
  from unnest(:bucket::smallint[]) with ordinality u(bucket, n)) q
join address a on a.bucket = q.bucket and a.key = q.key
where allowed(a.stops, a.goes, a.grants, a.claims, a.pauses, :path, :wants::smallint, :now) <> :stranger::boolean;

-- name: marked
-- The keys of all for whom the rule says something else than of a stranger, whatever channel they have. Whose ledger comes to nothing
-- is as a stranger; that is looked at first, since most are, and the rule costs a call.
select a.key
from address a
where (a.stops is not null or a.pauses is not null or a.goes is not null or a.grants is not null or a.claims is not null)
  and allowed(a.stops, a.goes, a.grants, a.claims, a.pauses, :path, :wants::smallint, :now) <> :stranger::boolean;
