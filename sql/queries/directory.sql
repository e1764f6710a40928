-- name: know$
-- Remembers addresses, locked in key order; a known text stays as it was first spelled, the rest is renewed where it is given.
with given as (
  select distinct on (g.bucket, g.key) g.*
  from unnest(:bucket::smallint[], :key::uuid[], :channel::text[], :plaintext::text[], :locale::text[], :region::text[], :party::text[])
    with ordinality g(bucket, key, channel, plaintext, locale, region, party, n)
  order by g.bucket, g.key, g.n desc),
kept as (
  insert into address as a (bucket, key, channel, plaintext, locale, region, party)
  select g.bucket, g.key, g.channel::channel, g.plaintext, g.locale, g.region, g.party
  from given g
  order by g.bucket, g.key
  on conflict (bucket, key) do update
  set channel = excluded.channel,
    plaintext = coalesce(a.plaintext, excluded.plaintext),
    locale = coalesce(excluded.locale, a.locale),
    region = coalesce(excluded.region, a.region),
    party = coalesce(excluded.party, a.party)
  where (a.channel, a.plaintext, a.locale, a.region, a.party) is distinct from
    (excluded.channel, coalesce(a.plaintext, excluded.plaintext), coalesce(excluded.locale, a.locale),
     coalesce(excluded.region, a.region), coalesce(excluded.party, a.party))
  returning xmax = 0 is_new)
select count(*) filter (where is_new) from kept;

-- name: drop_pushes_of_other_channels!
-- While only a key was known, accounts of every channel were owed; now we know which can be meant.
delete from push p
using unnest(:bucket::smallint[], :key::uuid[]) g(bucket, key), address a, account c
where p.bucket = g.bucket and p.key = g.key and p.due_at = 'infinity'
  and a.bucket = g.bucket and a.key = g.key and c.account = p.account and c.channel <> a.channel;

-- name: wake_pushes!
update push p
set due_at = :now::timestamptz
from unnest(:bucket::smallint[], :key::uuid[]) g(bucket, key)
where p.bucket = g.bucket and p.key = g.key and p.due_at = 'infinity';
