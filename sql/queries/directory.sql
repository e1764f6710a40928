-- name: know$
-- Remembers addresses, locked in key order; a known text stays as it was first spelled, the rest is renewed where it is given.
with given as (
  select g.bucket, g.key,
    (array_agg(g.channel order by g.n))[1] channel,
    (array_agg(g.plaintext order by g.n))[1] plaintext,
    (array_agg(g.locale order by g.n desc) filter (where g.locale is not null))[1] locale,
    (array_agg(g.region order by g.n desc) filter (where g.region is not null))[1] region,
    (array_agg(g.party order by g.n desc) filter (where g.party is not null))[1] party
  from unnest(:bucket::smallint[], :key::uuid[], :channel::text[], :plaintext::text[], :locale::text[], :region::text[], :party::text[])
    with ordinality g(bucket, key, channel, plaintext, locale, region, party, n)
  group by g.bucket, g.key),
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

-- name: wake_pushes$
-- What waited for these texts is due, and accounts of the other channels are owed nothing (sql/migrations/0011_outbox.sql).
select known(:bucket, :key, :now);

-- name: party
-- The other addresses of the person that an application tied to this one.
select o.key, o.channel::text channel
from address o
where o.party = (select a.party from address a where a.bucket = :bucket and a.key = :key) and o.key <> :key
order by o.bucket, o.key
limit :most;
