-- name: ledger_rows$
select count(*) from consent;

-- name: stops_by_door
select door, count(*) from consent where effect = 'stop' group by door order by door;

-- name: held
-- Counted from the summaries: how many addresses hold each scope.
select s.scope, count(*) from address a cross join lateral unnest(a.stops) s(scope) group by s.scope order by s.scope;

-- name: told
-- Counted from the proofs: how many addresses each account was told to stop in each scope.
select t.scope, count(distinct t.key) from told t where t.stop group by t.scope order by t.scope;

-- name: owed$
select count(*) from push;
