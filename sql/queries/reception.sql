-- name: heard
-- What each account was heard to say, by kind.
select account, kind, events, last_at
from heard
where account = any(:accounts::text[])
order by account, kind;

-- name: forged
-- What was refused in the name of each account.
select account, deliveries, last_at
from forgery
where account = any(:accounts::text[])
order by account;

-- name: aside
-- What is kept aside of each account, by reason. Of one that keeps very much, no more than :most is looked at.
select a.account, e.reason, count(*) as kept
from unnest(:accounts::text[]) a(account)
cross join lateral (
  select reason
  from event
  where event.account = a.account
  limit :most::bigint) e
group by a.account, e.reason
order by a.account, e.reason;

-- name: add_forged!
-- Adds what was refused since the last time; one statement, however many there were.
insert into forgery as f (account, deliveries, last_at)
select n.account, n.deliveries, n.last_at
from unnest(:accounts::text[], :deliveries::bigint[], :last_at::timestamptz[]) n(account, deliveries, last_at)
order by n.account
on conflict (account) do update set deliveries = f.deliveries + excluded.deliveries, last_at = greatest(f.last_at, excluded.last_at);

-- name: told_of
-- What this account told of one address.
select evidence, scope, effect
from consent
where bucket = :bucket and key = :key and teller = :account
order by evidence;
