-- Of what a call records, only that is planned and done which its Changes can ask for.

-- `record_many` as before, with the same answer; made of its own text, so that what is not named here is what it was.
--   concerned  whether any account is told of a scope that the call names. What a Change does to an answer, it does to those on whose path its
--              scope lies: a bounce that is shared with nobody leaves no push, and neither the answers of before nor those of after are asked
--              for. They were a third of such a delivery. Asked before any row is locked: a release that maps anew waits for us, or we for it.
--   acts       whether any Change is somebody's own act. Clocks and repeated presses are looked at for those alone.
-- Who is new comes with the holds that the call's Changes come to if nothing else is known of them, which is nearly always so: where nobody has
-- to know how they stood before, their row is not written a second time. The fold has the last word, as before.
do $$
declare
  slow text := pg_get_functiondef('record_many'::regproc);
  quick text;
  step text[];
begin
  foreach step slice 1 in array array[
    [$was$  added int[];
$was$,
     $is$  added int[];
  acts boolean := true = any(p_own);
  concerned boolean := exists (select from mapping m where m.path && p_scope);
$is$],
    [$was$  insert into address as a (bucket, key, channel)
  select distinct on (u.b, u.k) u.b, u.k, u.c::channel
  from unnest(p_bucket, p_key, p_channel) u(b, k, c)
  order by u.b, u.k, u.c nulls last
$was$,
     $is$  insert into address as a (bucket, key, channel, stops)
  select u.b, u.k, min(u.c)::channel, array_agg(distinct u.s order by u.s) filter (where u.e = 'stop' and u.t is null and not concerned)
  from unnest(p_bucket, p_key, p_channel, p_scope, p_effect, p_until) u(b, k, c, s, e, t)
  group by u.b, u.k
  order by u.b, u.k
$is$],
    [$was$select distinct bucket, key from change where own$was$,
     $is$select distinct bucket, key from change where acts and own$is$],
    [$was$where c.own and c.door <> 'sms'$was$,
     $is$where acts and c.own and c.door <> 'sms'$is$],
    [$was$where o.stop <> o.believed or o.stop and o.turns_at is not null$was$,
     $is$where concerned and (o.stop <> o.believed or o.stop and o.turns_at is not null)$is$]
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
