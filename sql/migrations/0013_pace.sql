-- Less work for what is done most.

-- As before; but `paused`, which the planner cannot inline, is called only where there is a pause.
create or replace function held(stops int[], goes int[], pauses pause[], path int[], now timestamptz) returns boolean
language sql stable parallel safe as
$$ select not open(stops, goes, path) or pauses is not null and paused(pauses, path, now) $$;

-- Counts what an account said, by kind, so that its silence shows. A function, so that it goes along with what is recorded.
create function tally(p_now timestamptz, p_account text, p_kinds text[], p_events bigint[]) returns void
language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  insert into heard as h (account, kind, events, last_at)
  select p_account, k.kind, k.events, p_now
  from unnest(p_kinds, p_events) k(kind, events)
  order by k.kind
  on conflict (account, kind) do update set events = h.events + excluded.events, last_at = greatest(h.last_at, excluded.last_at);
end $$;
