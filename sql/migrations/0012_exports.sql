-- Kept exports: an audience made once, from one snapshot, with a signed manifest; and what was recorded since, read by snapshots.

create table export (
  id uuid primary key,
  scope int not null references scope,
  channel channel not null,
  wants smallint not null check (wants between 0 and 2),  -- the consent the topic wanted when it was made
  columns text[] not null,
  format text not null check (format in ('csv', 'ndjson', 'parquet')),
  packing text not null check (packing in ('none', 'gzip', 'zstd')),
  spreadsheet boolean not null,
  purpose text not null,
  requester text not null,                 -- a key's id, or an operator's name
  asked_at timestamptz not null,
  expires_at timestamptz not null,
  attempts int not null default 0,
  refused text,                            -- why it can never be made
  as_of timestamptz,                       -- the time the rule was asked about; null until it is made
  snapshot text,                           -- what of the ledger was seen, as pg_snapshot writes it
  file text,                               -- its name among the kept files; null until it is made, and again when it has expired
  manifest text,                           -- as it was signed, with its signature
  check ((manifest is null) = (as_of is null) and (manifest is null) = (snapshot is null)));
create index export_waiting on export (asked_at) where manifest is null and refused is null;

-- The fold and the summary over what a snapshot saw of the ledger. Made from the text of `fold` and `summary`: whoever replaces those
-- makes these anew, and tests/test_exports.py compares.
do $$
declare
  folding text := replace(replace(replace(pg_get_functiondef('fold'::regproc),
    'fold(p_bucket smallint[], p_key uuid[])', 'fold_at(p_bucket smallint[], p_key uuid[], p_seen pg_snapshot)'),
    'join consent c on', 'join consent c on pg_visible_in_snapshot(c.position, p_seen) and'),
    'left join consent w on', 'left join consent w on pg_visible_in_snapshot(w.position, p_seen) and');
  summing text := replace(replace(pg_get_functiondef('summary'::regproc),
    'summary(p_bucket smallint[], p_key uuid[])', 'summary_at(p_bucket smallint[], p_key uuid[], p_seen pg_snapshot)'),
    'fold(p_bucket, p_key)', 'fold_at(p_bucket, p_key, p_seen)');
begin
  if folding not like '%fold_at(%p_seen pg_snapshot)%(c.position, p_seen)%(w.position, p_seen)%'
    or summing not like '%summary_at(%p_seen pg_snapshot)%fold_at(p_bucket, p_key, p_seen)%' then
    raise 'fold_at or summary_at would not be what fold and summary are';
  end if;
  execute folding;
  execute summing;
end $$;

-- As `audience`, with the key of each.
create function reached(path int[], wants smallint, reach channel, now timestamptz)
returns table (key uuid, address text, locale text, region text, party text) language sql stable parallel safe as
$$
  select a.key, a.plaintext, a.locale, a.region, a.party
  from address a
  where a.channel = reach and a.plaintext is not null
    and allowed(a.stops, a.goes, a.grants, a.claims, a.pauses, path, wants, now)
$$;

-- The same by the ledger alone, as a snapshot saw it: no summary is asked. Texts are as they are known now.
create function reached_at(path int[], wants smallint, reach channel, now timestamptz, seen pg_snapshot)
returns table (key uuid, address text, locale text, region text, party text) language sql stable as
$$
  select a.key, a.plaintext, a.locale, a.region, a.party
  from (
    select array_agg(r.bucket) buckets, array_agg(r.key) keys
    from address r
    where r.channel = reach and r.plaintext is not null
    group by r.bucket) g
  cross join lateral summary_at(g.buckets, g.keys, seen) s
  join address a on a.bucket = s.bucket and a.key = s.key
  where allowed(s.stops, s.goes, s.grants, s.claims, s.pauses, path, wants, now)
$$;

-- One row of an audience as JSON, of the columns named; what is not known is left out. The planner folds the choice away.
create function described(columns text[], address text, locale text, region text, party text) returns text
language sql stable parallel safe as
$$
  select '{' || substr(concat(
    case when 'address' = any(columns) then ',"address":' || to_json(address)::text end,
    case when 'locale' = any(columns) then ',"locale":' || to_json(locale)::text end,
    case when 'region' = any(columns) then ',"region":' || to_json(region)::text end,
    case when 'party' = any(columns) then ',"party":' || to_json(party)::text end), 2) || '}'
$$;
