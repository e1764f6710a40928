-- What a provider lists, laid beside what we hold. The two working tables are emptied with each comparison and need not survive a crash.

create unlogged table listing (
  account smallint not null,
  scope int not null,
  bucket smallint not null,
  key uuid not null,
  cause text not null check (cause in ('choice', 'complaint', 'bounce')),  -- why they stand there, as far as the provider says
  stopped_at timestamptz);                 -- null: the provider does not say

create unlogged table drift (
  account smallint not null,
  scope int not null,
  bucket smallint not null,
  key uuid not null,
  kind text not null,
  cause text not null,
  at timestamptz not null,                 -- what the provider's stop counts from
  primary key (bucket, account, scope, key));

-- What each comparison found, and whether it healed.
create table reconciliation (
  account smallint not null,
  scope int not null,
  began_at timestamptz not null,
  ended_at timestamptz not null,
  listed bigint not null,
  found jsonb not null,
  healed boolean not null,
  primary key (account, scope, began_at));

-- Where the listing and we differ about one scope:
--   theirs     they hold a stop, for somebody we know and would write to
--   stranger   they hold a stop, for somebody we never met
--   ours       we hold a stop that they were told or told us, and they do not list it
--   stale      they still list whom we told them to let go, or whose pause has ended
--   unsettled  told, or to be told, while the list was read: nothing can be said
-- A bounce is held at the root, whatever an account is told of bounces; one without a date says nothing, since it may have been corrected.
-- An entry without a date counts from our own last push, so that nobody is stopped again by our own echo; where there was none, from now.
create function differ(p_account smallint, p_scope int, p_began timestamptz, p_now timestamptz)
returns table (bucket smallint, key uuid, kind text, cause text, at timestamptz) language sql stable as $$
  with theirs as (
    select l.bucket, l.key, max(l.stopped_at) stopped_at, (array['choice', 'complaint', 'bounce'])[
      min(array_position(array['choice', 'complaint', 'bounce'], l.cause))] cause
    from listing l
    where l.account = p_account and l.scope = p_scope
    group by l.bucket, l.key),
  theirs_alone as (
    select t.bucket, t.key, t.stopped_at, t.cause, a.key is null unknown
    from theirs t
    cross join (select m.path from mapping m where m.account = p_account and m.scope = p_scope) m
    left join address a on a.bucket = t.bucket and a.key = t.key
    where case t.cause
      when 'bounce' then t.stopped_at is not null and not coalesce(0 = any(a.stops), false)
      else a.key is null or not withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, p_now) end),
  ours_alone as (
    select a.bucket, a.key
    from address a
    join account n on n.account = p_account and n.channel = a.channel
    join mapping m on m.account = p_account and m.scope = p_scope
    where a.plaintext is not null and withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, p_now)
      and not exists (select from theirs t where t.bucket = a.bucket and t.key = a.key)),
  differing as (
    select t.bucket, t.key, t.stopped_at, t.cause, case when t.unknown then 'stranger' else 'theirs' end kind from theirs_alone t
    union all
    select o.bucket, o.key, null, 'choice', 'ours' from ours_alone o)
  select d.bucket, d.key,
    case
      when exists (
        select from push p where p.bucket = d.bucket and p.account = p_account and p.key = d.key and p.scope = p_scope and p.since <= p_now)
        or last.confirmed_at >= p_began
        or exists (  -- somebody spoke for them meanwhile: they may have left there a moment after their page was read
          select from consent c where c.bucket = d.bucket and c.key = d.key and c.received_at >= p_began)
        then 'unsettled'
      when d.kind <> 'ours' and d.cause <> 'bounce' and coalesce(d.stopped_at, last.sent_at) <= last.sent_at then 'stale'
      else d.kind end,
    d.cause,
    least(coalesce(d.stopped_at, last.sent_at, p_now), p_now)
  from differing d
  left join lateral (
    select t.sent_at, t.confirmed_at
    from told t
    where t.bucket = d.bucket and t.key = d.key and t.account = p_account and t.scope = p_scope
    order by t.sent_at desc
    limit 1) last on true
$$;
