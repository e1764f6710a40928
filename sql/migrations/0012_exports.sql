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

-- What was recorded between two snapshots, from a place on, and whom of an export it stopped: `gone` where it is a stop on the topic's path,
-- or takes back what ended one sooner, for somebody who was allowed when the export was made (p_seen, p_as_of); `back` where they may be
-- sent again now. Given are those, and the last row that was looked at. A stop that commits late is in the window in which it becomes
-- visible. Every row is looked up by its key, however large the tables are.
create function left_since(
  p_after pg_snapshot, p_upto pg_snapshot, p_position xid8, p_bucket smallint, p_key uuid, p_evidence text, p_most int,
  p_path int[], p_wants smallint, p_channel channel, p_seen pg_snapshot, p_as_of timestamptz, p_now timestamptz)
returns table (at_position xid8, bucket smallint, key uuid, evidence text, received_at timestamptz, plaintext text, gone boolean, back boolean)
language sql stable set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
  with recorded as materialized (
    select c.position, c.bucket, c.key, c.evidence, c.received_at, c.scope = any(p_path) and c.effect in ('stop', 'withdraw') matters
    from consent c
    where c.position >= greatest(pg_snapshot_xmin(p_after), p_position)
      and (c.position, c.bucket, c.key, c.evidence) > (p_position, p_bucket, p_key, p_evidence)
      and not pg_visible_in_snapshot(c.position, p_after)
      and pg_visible_in_snapshot(c.position, p_upto)
    order by c.position, c.bucket, c.key, c.evidence
    limit p_most),
  whom as (
    select array_agg(r.bucket) buckets, array_agg(r.key) keys from recorded r where r.matters),
  was as materialized (
    select s.* from whom cross join lateral summary_at(whom.buckets, whom.keys, p_seen) s where whom.keys is not null),
  told as (
    select r.position, r.bucket, r.key, r.evidence, r.received_at, a.plaintext,
      r.matters and coalesce(a.channel, p_channel) = p_channel
        and coalesce(allowed(w.stops, w.goes, w.grants, w.claims, w.pauses, p_path, p_wants, p_as_of), false) gone,
      coalesce(allowed(a.stops, a.goes, a.grants, a.claims, a.pauses, p_path, p_wants, p_now), false) back,
      row_number() over (order by r.position desc, r.bucket desc, r.key desc, r.evidence desc) = 1 is_last
    from recorded r
    left join was w on w.bucket = r.bucket and w.key = r.key
    left join address a on a.bucket = r.bucket and a.key = r.key)
  select t.position, t.bucket, t.key, t.evidence, t.received_at, t.plaintext, t.gone, t.back
  from told t
  where t.gone or t.is_last
  order by t.position, t.bucket, t.key, t.evidence
$$;
