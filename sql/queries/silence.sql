-- name: learn!
-- Takes note of what each account said since the last look. The silence that it broke counts for as long as somebody saw it last: less
-- than it was by the time between two looks, and never more, however long nobody looked. Two workers that look at once learn the same:
-- the rows of silence are taken in the order of their accounts, before those of gap.
with spoke as (
  select account, max(last_at) as last_at
  from heard
  where account = any(:accounts::text[])
  group by account),
before as (
  select account, last_at, looked_at
  from silence
  where account = any(:accounts::text[])),
ended as (
  insert into gap as g (account, day, longest)
  select b.account, (k.last_at at time zone 'UTC')::date, greatest(b.looked_at - b.last_at, interval '0')
  from before b join spoke k using (account)
  where k.last_at > b.last_at
  on conflict (account, day) do update set longest = greatest(g.longest, excluded.longest)),
forgotten as (
  delete from gap g
  using before b
  where g.account = b.account and g.day < ((b.last_at - :window::interval) at time zone 'UTC')::date)
insert into silence as s (account, since, last_at, looked_at)
select account, last_at, last_at, :now::timestamptz
from spoke
order by account
on conflict (account) do update set
  last_at = greatest(s.last_at, excluded.last_at),
  looked_at = greatest(s.looked_at, excluded.looked_at),
  alarmed = s.alarmed and excluded.last_at <= s.last_at;

-- name: known
-- How each account was heard. Usual is what happened twice: the second longest silence of the window before it was last heard.
select s.account, s.since, s.last_at, coalesce(u.longest, interval '0') as usual
from silence s
left join lateral (
  select g.longest
  from gap g
  where g.account = s.account and g.day >= ((s.last_at - :window::interval) at time zone 'UTC')::date
  order by g.longest desc
  offset 1
  limit 1) u on true
where s.account = any(:accounts::text[])
order by s.account;

-- name: alarmed
-- Marks the silences of which somebody is told now; returns those of which nobody was.
update silence
set alarmed = true
where account = any(:accounts::text[]) and not alarmed
returning account;
