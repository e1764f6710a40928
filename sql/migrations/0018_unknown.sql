-- Of bounces about people nobody had heard of, nothing is folded: their row says it already.

-- `record_many` as before, with the same answer; made of its own text, so that what is not named here is what it was.
--   plain    whether the call is stops for good alone, and nobody is told of their scopes. Then whoever is new is written with the holds that the
--            call comes to (0017_lean.sql): no ledger of theirs holds anything that could lift, end or take back one of them.
--   held     those in whose row holds stand. Of somebody known, they need not be all: so those are asked for who have a ledger already, in a
--            statement of its own, when they are locked, for it has to see whatever the call waited for. A row that was there before and has no
--            ledger has no holds either.
-- If every Change was then added, the rows of whoever is held and not known are what the fold would make of them, and it is asked for the others
-- alone. It was a quarter of such a delivery.
do $$
declare
  slow text := pg_get_functiondef('record_many'::regproc);
  quick text;
  step text[];
begin
  foreach step slice 1 in array array[
    [$was$  concerned boolean := exists (select from mapping m where m.path && p_scope);
$was$,
     $is$  concerned boolean := exists (select from mapping m where m.path && p_scope);
  plain boolean := not concerned and 'stop' = all(p_effect) and array_remove(p_until, null) = '{}';
  held uuid[];
  known uuid[];
  moving int[];
$is$],
    [$was$  insert into address as a (bucket, key, channel, stops)
$was$,
     $is$  with locked as (
  insert into address as a (bucket, key, channel, stops)
$is$],
    [$was$  on conflict (bucket, key) do update set channel = coalesce(a.channel, excluded.channel);
$was$,
     $is$  on conflict (bucket, key) do update set channel = coalesce(a.channel, excluded.channel)
  returning a.key, a.stops)
  select coalesce(array_agg(l.key), '{}') into held from locked l where plain and l.stops is not null;

  if plain then
    known := array(
      select distinct c.key from unnest(p_bucket, p_key) u(bucket, key) join consent c on c.bucket = u.bucket and c.key = u.key);
  end if;
$is$],
    [$was$    return '{}';
  end if;
$was$,
     $is$    return '{}';
  end if;
  moving := added;
  if plain and cardinality(added) = cardinality(p_key) then
    moving := array(select n from unnest(added) n where p_key[n] <> all(held) or p_key[n] = any(known));
    if moving = '{}' then
      return added;
    end if;
  end if;
$is$],
    [$was$from unnest(added) n),
$was$,
     $is$from unnest(moving) n),
$is$]
  ] loop
    if cardinality(string_to_array(slow, step[1])) <> 2 then
      raise 'record_many is not what it was: %', step[1];
    end if;
    slow := replace(slow, step[1], step[2]);
  end loop;
  quick := replace(
    replace(slow, 'record_many', 'record_few'),
    $set$SET plan_cache_mode TO 'force_custom_plan'$set$,
    $set$SET plan_cache_mode TO 'force_generic_plan' SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off$set$);
  if quick not like '%force_generic_plan%' or quick like '%force_custom_plan%' or quick like '%record_many%' then
    raise 'record_few would be planned as record_many is';
  end if;
  execute slow;
  execute quick;
end $$;
