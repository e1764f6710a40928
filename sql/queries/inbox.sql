-- name: set_aside!
-- Keeps what could not be read or placed; the same bytes twice are one row.
insert into event (account, id, received_at, reason, raw)
select distinct on (e.id) :account, e.id, :now::timestamptz, e.reason, e.raw
from unnest(:id::text[], :reason::text[], :raw::bytea[]) e(id, reason, raw)
order by e.id
on conflict do nothing;

-- name: tally$
-- Counts what an account said, by kind, so that its silence shows.
select tally(:now, :account, :kinds, :events);

-- name: first_use$
-- Remembers a proof that counts once; true unless it came before with another body.
with kept as (
  insert into once (account, nonce, digest, received_at)
  values (:account, :nonce, :digest, :now)
  on conflict do nothing
  returning 1)
select exists (select from kept) or exists (select from once where account = :account and nonce = :nonce and digest = :digest);

-- name: hold_still!
-- Locks the addresses in key order, as the ledger does: what `lifting` sees of them stays true until it is recorded.
insert into address as a (bucket, key)
select distinct u.bucket, u.key from unnest(:bucket::smallint[], :key::uuid[]) u(bucket, key)
order by u.bucket, u.key
on conflict (bucket, key) do update set channel = a.channel;

-- name: lifting
-- Of these STARTs, by their ordinals, those whose number is held there by its own STOP to this account, and by no other choice on the
-- path: neither a page nor another number of ours is answered by a text.
select s.n
from unnest(:bucket::smallint[], :key::uuid[], :scope::int[]) with ordinality s(bucket, key, scope, n)
join scope t on t.scope = s.scope
join fold(:bucket, :key) f on f.bucket = s.bucket and f.key = s.key
join consent c on c.bucket = s.bucket and c.key = s.key and c.scope = f.scope and c.cause = f.cause and c.effect = 'stop'
  and (f.on_at is null or c.at >= f.on_at)
left join consent w on w.bucket = c.bucket and w.key = c.key and w.evidence = 'undo:' || c.evidence
where f.cause = 'choice' and f.held and f.scope = any(t.path) and w.key is null
group by s.n
having bool_and(c.scope = s.scope and c.door = 'sms' and c.teller = :account);

-- name: forget!
-- Drops what was kept aside, and the proofs that counted once, when nobody sends them again.
with old as (delete from once where received_at < :before)
delete from event where received_at < :before;

-- name: kept
-- What was set aside, the newest first.
select account, id, received_at, reason, octet_length(raw) bytes
from event
where :account::text is null or account = :account
order by received_at desc, id
limit 200;

-- name: kept_raw$
select raw from event where account = :account and id like :id || '%';
