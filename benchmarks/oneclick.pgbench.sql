\set bucket random(0, 1023)
select record_few(array[(:bucket)::smallint], array[gen_random_uuid()], array[null::text], array[272], array['choice'], array['stop'],
  array['link'], array[null::text], array[true], array[now()], array[null::timestamptz], array['link:' || gen_random_uuid()], now(), '1 day');
