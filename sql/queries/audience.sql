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
select json_strip_nulls(json_build_object(
  'address', case when 'address' = any(:columns::text[]) then address end,
  'locale', case when 'locale' = any(:columns::text[]) then locale end,
  'region', case when 'region' = any(:columns::text[]) then region end,
  'party', case when 'party' = any(:columns::text[]) then party end))
from audience(:path, :wants, :channel::text::channel, :now);
