-- The rule: one definition of "may be sent", for decisions, audience, export, guard, page and the pushes that are owed.
-- Plain SQL functions: the planner inlines them, so each costs what its expression costs.

-- Nothing on the path is on hold for ever, or the person chose this very topic back.
create function open(stops int[], goes int[], path int[]) returns boolean language sql immutable parallel safe as
$$ select stops is null or not stops && path or coalesce(path[cardinality(path)] = any(goes), false) $$;

-- A timed hold on the path has not ended yet. Nothing must run for it to end.
create function paused(pauses pause[], path int[], now timestamptz) returns boolean language sql stable parallel safe as
$$ select pauses is not null and exists (select from unnest(pauses) p where p.scope = any(path) and p.until > now) $$;

create function held(stops int[], goes int[], pauses pause[], path int[], now timestamptz) returns boolean
language sql stable parallel safe as
$$ select not open(stops, goes, path) or paused(pauses, path, now) $$;

-- What an account must believe about a mapped scope: the same rule over the part of the path that counts for it.
create function withheld(stops int[], goes int[], goes_below int[], pauses pause[], path int[], now timestamptz) returns boolean
language sql stable parallel safe as
$$ select held(stops, case when path[1] = 0 then goes else goes || goes_below end, pauses, path, now) $$;

-- The consent a topic wants is there: 0 none, 1 any evidence, 2 confirmed by the recipient.
create function consented(grants int[], claims int[], topic int, wants smallint) returns boolean language sql immutable parallel safe as
$$ select wants = 0 or coalesce(topic = any(grants), false) or (wants = 1 and coalesce(topic = any(claims), false)) $$;

create function allowed(stops int[], goes int[], grants int[], claims int[], pauses pause[], path int[], wants smallint, now timestamptz)
returns boolean language sql stable parallel safe as
$$ select not held(stops, goes, pauses, path, now) and consented(grants, claims, path[cardinality(path)], wants) $$;

-- Everyone whose text we know and who may be sent the topic at the end of `path`, over `reach`, at `now`.
create function audience(path int[], wants smallint, reach channel, now timestamptz)
returns table (address text, locale text, region text, party text) language sql stable parallel safe as
$$
  select a.plaintext, a.locale, a.region, a.party
  from address a
  where a.channel = reach and a.plaintext is not null
    and allowed(a.stops, a.goes, a.grants, a.claims, a.pauses, path, wants, now)
$$;

-- The column of an audience that a caller names; the planner folds the choice away.
create function chosen(name text, address text, locale text, region text, party text) returns text language sql immutable parallel safe as
$$ select case name when 'address' then address when 'locale' then locale when 'region' then region when 'party' then party end $$;
