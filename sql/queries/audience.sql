-- name: csv_1
-- Everyone who may be sent a topic, one column of the caller's choice. One statement is one snapshot.
select chosen(:first, address, locale, region, party)
from audience(:path, :wants, :channel::text::channel, :now);

-- name: csv_2
select chosen(:first, address, locale, region, party), chosen(:second, address, locale, region, party)
from audience(:path, :wants, :channel::text::channel, :now);

-- name: csv_3
select chosen(:first, address, locale, region, party), chosen(:second, address, locale, region, party),
  chosen(:third, address, locale, region, party)
from audience(:path, :wants, :channel::text::channel, :now);

-- name: csv_4
select chosen(:first, address, locale, region, party), chosen(:second, address, locale, region, party),
  chosen(:third, address, locale, region, party), chosen(:fourth, address, locale, region, party)
from audience(:path, :wants, :channel::text::channel, :now);

-- name: ndjson
-- The same as one JSON object a row, of the columns named; what is not known is left out.
select described(:columns::text[], address, locale, region, party)
from audience(:path, :wants, :channel::text::channel, :now);

-- name: keyed
-- The same with each one's key before it, for what is still to be added or changed. `columns` is null for CSV; what is not chosen is null.
select key, case when :columns::text[] is null then chosen(:first, address, locale, region, party)
    else described(:columns::text[], address, locale, region, party) end,
  chosen(:second, address, locale, region, party), chosen(:third, address, locale, region, party),
  chosen(:fourth, address, locale, region, party)
from reached(:path, :wants, :channel::text::channel, :now);

-- name: ordered
-- The same in the order of the addresses, byte by byte: whoever asks again for what was seen then gets the same bytes.
select key, case when :columns::text[] is null then chosen(:first, address, locale, region, party)
    else described(:columns::text[], address, locale, region, party) end,
  chosen(:second, address, locale, region, party), chosen(:third, address, locale, region, party),
  chosen(:fourth, address, locale, region, party)
from reached(:path, :wants, :channel::text::channel, :now)
order by address collate "C", key;

-- name: recomputed
-- The same once more, by the ledger alone and as a snapshot saw it.
select key, case when :columns::text[] is null then chosen(:first, address, locale, region, party)
    else described(:columns::text[], address, locale, region, party) end,
  chosen(:second, address, locale, region, party), chosen(:third, address, locale, region, party),
  chosen(:fourth, address, locale, region, party)
from reached_at(:path, :wants, :channel::text::channel, :now, :seen::text::pg_snapshot)
order by address collate "C", key;

-- name: by_two$
-- Let one process more look at the rows of a large table, for as long as this session lasts: on two cores a scan is half as quick again, and a
-- third process would only take from them. PostgreSQL thinks handing a row over dearer than looking whether it may be sent.
select set_config('max_parallel_workers_per_gather', '1', false) || set_config('parallel_setup_cost', '0', false)
  || set_config('parallel_tuple_cost', '0', false);

-- name: about$
-- About how many addresses there are: what the server last counted.
select greatest(reltuples, 0)::bigint from pg_class where oid = 'address'::regclass;
