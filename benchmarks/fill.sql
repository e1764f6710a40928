-- People from $1 to $2: of each ten one has left, of each two hundred one pauses, of each two one was granted what wants consent.
insert into address (bucket, key, channel, stops, grants, pauses, plaintext)
select ('x' || left(h, 4))::bit(16)::int % 1024, h::uuid, 'email',
  case when i % 10 = 0 then array[272] end,
  case when i % 2 = 1 then array[274] end,
  case when i % 200 = 1 then array[row(272, '2100-01-01')::pause] end,
  'person.' || i || '@example.com'
from generate_series($1::int, $2::int) i cross join lateral md5(i::text) h
order by 1, 2;

insert into consent (bucket, key, evidence, scope, cause, effect, door, happened_at, received_at, at)
select ('x' || left(h, 4))::bit(16)::int % 1024, h::uuid, 'import:' || i, 272, 'choice', 'stop', 'import', now(), now(), now()
from generate_series($1::int, $2::int) i cross join lateral md5(i::text) h
where i % 10 = 0
order by 1, 2;
