-- A pause is looked at in a tenth of the time.

-- As before, with the same answer. A SQL function that holds a subquery is never inlined, and to begin one costs twelve microseconds, which was
-- a quarter of an export in which one of two hundred pauses. Its cost is what the planner believes of a row, few of which pause: at the hundred
-- operators that it believes of a function otherwise, it sent the rows of every large export through other processes, which took longer.
create or replace function paused(pauses pause[], path int[], now timestamptz) returns boolean
language plpgsql stable parallel safe cost 1 as $$
declare
  one pause;
begin
  foreach one in array coalesce(pauses, '{}') loop
    if one.scope = any(path) and one.until > now then
      return true;
    end if;
  end loop;
  return false;
end $$;
