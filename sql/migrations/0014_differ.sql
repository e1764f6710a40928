-- A long list is laid beside a long one in one go, whatever is believed of their lengths.

-- As before, with the same answer. But whoever is listed is found among everybody, and everybody among those who are listed, by one full join,
-- for which there is no plan that goes row by row: it is hashed or merged. The anti join of before was planned as a nested loop where it was
-- believed that hardly anybody was left over: 20,000 beside as many were two hundred million comparisons, and 500,000 did not end.
create or replace function differ(p_account smallint, p_scope int, p_began timestamptz, p_now timestamptz)
returns table (bucket smallint, key uuid, kind text, cause text, at timestamptz) language sql stable as $$
  with theirs as (
    select l.bucket, l.key, max(l.stopped_at) stopped_at, (array['choice', 'complaint', 'bounce'])[
      min(array_position(array['choice', 'complaint', 'bounce'], l.cause))] cause
    from listing l
    where l.account = p_account and l.scope = p_scope
    group by l.bucket, l.key),
  differing as (
    select coalesce(t.bucket, a.bucket) bucket, coalesce(t.key, a.key) key, t.stopped_at, coalesce(t.cause, 'choice') cause,
      case when t.key is null then 'ours' when a.key is null then 'stranger' else 'theirs' end kind
    from theirs t
    full join address a on a.bucket = t.bucket and a.key = t.key
    cross join (
      select m.path, n.channel
      from mapping m
      join account n on n.account = m.account
      where m.account = p_account and m.scope = p_scope) m
    where case
      when t.key is null then a.channel = m.channel and a.plaintext is not null
        and withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, p_now)
      when t.cause = 'bounce' then t.stopped_at is not null and not coalesce(0 = any(a.stops), false)
      else a.key is null or not withheld(a.stops, a.goes, a.goes_below, a.pauses, m.path, p_now) end)
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
