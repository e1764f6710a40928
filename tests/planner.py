"""What Citus 13 refuses of a statement over several shards, asked of its tree: as much of its planner as our statements meet.

In brackets whose rule it is there, in src/backend/distributed/planner.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import asyncpg

from .trees import Node, nodes

SELECT, UPDATE, INSERT, DELETE, UTILITY = "1", "2", "3", "4", "6"
RELATION, SUBQUERY, JOIN, FUNCTION, CTE, GROUP = "0", "1", "2", "3", "6", "9"
LEFT, RIGHT = "1", "3"
Column = tuple[int, str]  # which table of which query, and the number of its column
SLOW = "all of a table is read"  # which is planned, and no answer to a press
GIVEN: Column = (0, "")  # a value that is known before anything is read


ASKING = """with recursive asking (oid, proname) as (
              select p.oid, p.proname::text from pg_proc p join pg_dist_partition d
                on d.partmethod = 'h' and p.prosrc ~ ('\\m(from|join)\\s+' || d.logicalrelid::regclass::text || '\\M')
              where p.pronamespace = 'public'::regnamespace
              union
              select p.oid, p.proname::text from asking a join pg_proc p on p.pronamespace = 'public'::regnamespace
                and p.prosrc ~ ('\\m(from|join|lateral|perform|select)\\s+' || a.proname || '\\('))
            select oid, true from asking"""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the server knows by number."""

    spread: Mapping[str, str]  # table → h by its bucket, n whole on every node
    bucket: Mapping[str, str]  # spread table → the number of its bucket
    volatile: Mapping[str, str]  # function → i, s or v
    asking: Mapping[str, bool]  # function → it asks spread tables, itself or by another
    operators: Mapping[str, tuple[str, str]]  # operator → its name, and how volatile it is
    spelt: Mapping[str, str]  # type → how volatile its spelling is

    @classmethod
    async def of(cls, conn: asyncpg.Connection) -> Catalog:
        async def known(query: str) -> dict[str, Any]:
            return {str(row[0]): row[1] if len(row) == 2 else tuple(row)[1:] for row in await conn.fetch(query)}

        return cls(
            await known("select logicalrelid::oid, partmethod::text from pg_dist_partition"),
            await known("""select p.logicalrelid::oid, a.attnum::text from pg_dist_partition p
                           join pg_attribute a on a.attrelid = p.logicalrelid and a.attname = p.partkey"""),
            await known("select oid, provolatile::text from pg_proc"),
            await known(ASKING),
            await known("select o.oid, o.oprname, p.provolatile::text from pg_operator o join pg_proc p on p.oid = o.oprcode"),
            await known("""select t.oid, greatest(i.provolatile::text, o.provolatile::text) from pg_type t
                           join pg_proc i on i.oid = t.typinput join pg_proc o on o.oid = t.typoutput"""),
        )

    def tables(self, tree: Any) -> list[Node]:
        """Every mention of a table that is spread by its bucket."""
        return [
            each for each in nodes(tree, "RANGETBLENTRY") if self.spread.get(each.get("relid", "")) == "h" and each["rtekind"] == RELATION
        ]

    def changing(self, tree: Any, kinds: str = "sv") -> Iterator[Node]:
        """Every call in it whose answer depends on more than its arguments [PostgreSQL's contain_mutable_functions]."""
        for each in nodes(tree):
            match each[""]:
                case "FUNCEXPR":
                    how = self.volatile[each["funcid"]]
                case "OPEXPR" | "DISTINCTEXPR" | "NULLIFEXPR" | "SCALARARRAYOPEXPR":
                    how = self.operators[each["opno"]][1]
                case "COERCEVIAIO":
                    given = next(
                        (each["arg"][name] for name in ("vartype", "consttype", "paramtype", "resulttype") if name in each["arg"]), "25"
                    )
                    how = max(self.spelt[given], self.spelt[each["resulttype"]])
                case "SQLVALUEFUNCTION" | "NEXTVALUEEXPR":
                    how = "v"
                case _:
                    continue
            if how in kinds:
                yield each


class Planner:
    """One statement, and why Citus would not plan it."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.refused: list[str] = []
        self.same: dict[Column, Column] = {}

    def statement(self, query: Node) -> list[str]:
        if query["commandType"] == UTILITY:
            return []
        found = self._asked(_inlined(deepcopy(query)))
        return found if all(each.startswith(SLOW) for each in found) else self._asked(deepcopy(query))

    def _asked(self, query: Node) -> list[str]:
        self.refused = []
        self._plan(query, [])
        return self.refused

    def _plan(self, query: Node, above: list[Node]) -> None:
        """Plan it as it stands, or step by step [distributed_planner.c: CreateDistributedPlan]."""
        tables = self.catalog.tables(query)
        if query["commandType"] != SELECT:
            self._modification(query)
        if not tables:
            return
        self.same = {}
        self._learn(query, above)
        if query["commandType"] != INSERT and self._one_shard(query) and not self._modifying_steps(query):
            self._alone(nodes(query, "FUNCEXPR"))  # all of it is done by one node
            return
        for step in query["cteList"] or []:
            self._step(step["ctequery"], above)
        self.same = {}
        self._learn(query, above)
        if query["commandType"] == INSERT:  # from a query, whose rows are put where they belong; or of values
            for each in query["rtable"]:
                if each["rtekind"] == SUBQUERY:
                    self._plan(each["subquery"], [*above, query])
            return
        self._several_shards(query, above)

    def _alone(self, called: Iterable[Node]) -> None:
        """What is done beside the rows of a shard asks no other [multi_executor.c: a query on a shard may not ask the cluster]."""
        if any(each["funcid"] in self.catalog.asking for each in called):
            self.refused.append("a node would ask the others [allow_nested_distributed_execution]")

    def _modifying_steps(self, query: Node) -> bool:
        return any(each["ctequery"]["commandType"] != SELECT for each in query["cteList"] or [])

    def _step(self, query: Node, above: list[Node]) -> None:
        """A step by itself, whose rows are then read as a list [recursive_planning.c]."""
        columns = query["targetList"] if query["commandType"] == SELECT else query["returningList"]
        if not columns and query["commandType"] == SELECT:
            self.refused.append("a step has no columns [#5094]")
        self._plan(query, above)

    def _several_shards(self, query: Node, above: list[Node]) -> None:
        within = [*above, query]
        for each in [*self._from(query), *self._united(query)]:
            if each["rtekind"] == SUBQUERY and self.catalog.tables(each["subquery"]):
                if self._pushed_down(query, each, within):
                    self._several_shards(each["subquery"], within)
                else:
                    self._apart(each, within)
        self._colocated(query, within)
        self._outer(query, within)
        direct = [each for each in self._from(query) if self._reads(each)]
        if direct:
            self._combined(query)
            self._alone(nodes([query["targetList"], query["jointree"], query["havingQual"]], "FUNCEXPR"))
        if query["hasForUpdate"] == "true":
            self.refused.append("rows of several shards are locked [DeferErrorIfCannotPushdownSubquery]")
        if query["hasRecursive"] == "true":
            self.refused.append("recursion over several shards [RecursivelyPlanCTEs]")
        for link in self._links(query):
            self._link(link["subselect"], query, direct, within)
        for each in nodes(query["targetList"], "VAR", deep=False):
            if each["varattno"].startswith("-"):
                self.refused.append("a column of the system over several shards [#512]")

    def _combined(self, query: Node) -> None:
        """Functions beside spread tables [WrapFunctionsInSubqueries, DeferErrorIfUnsupportedTableCombination]."""
        for each in self._from(query):
            if each["rtekind"] != FUNCTION:
                continue
            stays = each["funcordinality"] == "true" or each["lateral"] == "true"
            if stays and any(self.catalog.changing([one["funcexpr"] for one in each["functions"]])):
                self.refused.append("a function beside a spread table is not immutable [DeferErrorIfUnsupportedTableCombination]")
            columns = [one["funcexpr"] for one in each["functions"]]
            if not stays and len(columns) > 1:
                self.refused.append("a list of several columns is not numbered [TransformFunctionRTE]")

    def _outer(self, query: Node, within: list[Node]) -> None:
        """What a list is laid beside and may lack is found apart, a table as a whole [RecursivelyPlanRecurringTupleOuterJoinWalker]."""
        for each in nodes(query["jointree"], "JOINEXPR", deep=False):
            outer, inner = (each["larg"], each["rarg"]) if each["jointype"] == LEFT else (each["rarg"], each["larg"])
            if each["jointype"] in (LEFT, RIGHT) and not self._under(query, outer):
                for table in self._under(query, inner):
                    if table["rtekind"] == SUBQUERY:
                        self._apart(table, within)
                    else:
                        self.refused.append(f"{SLOW} that a list may lack [RecursivelyPlanDistributedJoinNode]")

    def _apart(self, table: Node, within: list[Node]) -> None:
        if _outward(table["subquery"]):
            self.refused.append("a lateral sub-select is asked by a list that may lack it [DeferredErrorIfUnsupportedRecurringTuplesJoin]")
        known = dict(self.same)
        self._step(table["subquery"], within)
        self.same = known
        table["stepped"] = "true"

    def _under(self, query: Node, part: Any) -> list[Node]:
        found = [query["rtable"][int(each["rtindex"]) - 1] for each in nodes(part, "RANGETBLREF", deep=False)]
        return [each for each in found if self._reads(each)]

    def _reads(self, table: Node) -> bool:
        """True if its rows come from shards in this very statement, not by a step before."""
        if table["rtekind"] == SUBQUERY:
            return "stepped" not in table and any(self._reads(each) for each in self._from(table["subquery"]))
        return bool(self.catalog.tables([table])) and table["rtekind"] == RELATION

    def _colocated(self, query: Node, within: list[Node]) -> None:
        """Spread tables meet by their buckets; a sub-select that does not is found apart [RecursivelyPlanNonColocatedSubqueries]."""
        found = sorted((each for each in self._from(query) if self._reads(each)), key=lambda each: each["rtekind"])  # tables first
        anchor = None
        for table in found:
            classes = {self._root((id(each), self.catalog.bucket[each["relid"]])) for each in self._read_here([table])}
            if anchor is None or classes == {anchor}:
                anchor = min(classes)
            elif table["rtekind"] == SUBQUERY:
                self._apart(table, within)
            else:
                self.refused.append("spread tables are not joined by their buckets [RestrictionEquivalenceForPartitionKeys]")

    def _read_here(self, tables: list[Node]) -> list[Node]:
        """The spread tables that are read in this very statement, of these and of what is in them."""
        inner = [one for each in tables if each["rtekind"] == SUBQUERY and "stepped" not in each for one in self._from(each["subquery"])]
        return [each for each in tables if each["rtekind"] == RELATION and self._reads(each)] + (self._read_here(inner) if inner else [])

    def _links(self, query: Node) -> list[Node]:
        return [each for part in ("jointree", "targetList", "havingQual") for each in nodes(query[part], "SUBLINK", deep=False)]

    def _link(self, query: Node, outer: Node, direct: list[Node], within: list[Node]) -> None:
        if not self.catalog.tables(query):
            return
        correlated = bool(_outward(query))
        if correlated and not direct:
            self.refused.append("a sub-select of a spread table for each row of a list [DeferErrorIfFromClauseRecurs]")
        elif not correlated and not direct:
            self._step(query, within)
        elif query["hasForUpdate"] == "true" or query["cteList"]:
            self.refused.append("a sub-select locks rows, or has steps [DeferErrorIfCannotPushdownSubquery]")

    def _pushed_down(self, query: Node, table: Node, within: list[Node]) -> bool:
        """[CanPushdownSubquery] What is asked for each row of another may group and limit as it likes, unless that is of a list."""
        inner = table["subquery"]
        outward = _outward(inner)
        if outward and any(not self._reads(query["rtable"][int(each["varno"]) - 1]) for each in outward) and self._merged(inner, within):
            self.refused.append("a lateral sub-select that is put together asks a list [DeferredErrorIfUnsupportedLateralSubquery]")
        if inner["cteList"] or inner["hasForUpdate"] == "true" or inner["setOperations"] or query["setOperations"]:
            return False
        return bool(outward) or not self._merged(inner, within)

    def _merged(self, query: Node, above: list[Node]) -> bool:
        """True if what its shards find must be put together [DeferErrorIfSubqueryRequiresMerge]."""
        within = [*above, query]
        windows = [each["partitionClause"] for each in query["windowClause"] or []]
        apart = [each for each in (*windows, query["groupClause"], query["distinctClause"]) if each is not None or each in windows]
        added = query["hasAggs"] == "true" and not query["groupClause"]
        whole = all(self._grouped_by_bucket(query, each, within) for each in apart)
        return bool(not whole or added or query["limitCount"] or query["limitOffset"])

    def _united(self, query: Node) -> list[Node]:
        """The queries of a UNION, each a step of its own [RecursivelyPlanSetOperations]."""
        return [query["rtable"][int(each["rtindex"]) - 1] for each in nodes(query["setOperations"], "RANGETBLREF")]

    def _grouped_by_bucket(self, query: Node, clause: Any, within: list[Node]) -> bool:
        wanted = {each["tleSortGroupRef"] for each in clause or []}
        buckets = {self._root((id(each), self.catalog.bucket[each["relid"]])) for each in self.catalog.tables(query)}
        columns = [each["expr"] for each in query["targetList"] or [] if each["ressortgroupref"] in wanted]
        return any(found is not None and self._root(found) in buckets for found in (self._column(each, within) for each in columns))

    def _from(self, query: Node) -> list[Node]:
        """The tables of its FROM, and the one that it changes."""
        numbers = [int(each["rtindex"]) for each in nodes(query["jointree"], "RANGETBLREF", deep=False)]
        target = int(query["resultRelation"])
        return [query["rtable"][n - 1] for n in dict.fromkeys([*numbers, *([target] if target and query["commandType"] != INSERT else [])])]

    def _one_shard(self, query: Node) -> bool:
        """[multi_router_planner.c] Every mention of a spread table is of one bucket that is known."""
        tables = self.catalog.tables(query)
        return all(self._root((id(each), self.catalog.bucket[each["relid"]])) == GIVEN for each in tables)

    def _learn(self, query: Node, above: list[Node]) -> None:
        """Which columns must be equal, in it and in what is in it."""
        within = [*above, query]
        for each in [
            *(one["ctequery"] for one in query["cteList"] or []),
            *(one["subquery"] for one in query["rtable"] or [] if one["rtekind"] == SUBQUERY),
        ]:
            self._learn(each, within)
        for each in self._links(query):
            self._learn(each["subselect"], within)
        for each in self._required(query["jointree"]):
            if each[""] == "OPEXPR" and self.catalog.operators[each["opno"]][0] == "=":
                left, right = (self._column(one, within) for one in each["args"])
                if left and right:
                    low, high = sorted((self._root(left), self._root(right)))
                    if low != high:
                        self.same[high] = low

    def _required(self, part: Any) -> Iterator[Node]:
        """Every condition that must hold: those of joins, and what is joined by AND."""
        if isinstance(part, list):
            for each in part:
                yield from self._required(each)
        elif isinstance(part, dict):
            if part[""] in ("FROMEXPR", "JOINEXPR"):
                yield from self._required([part.get("fromlist"), part.get("larg"), part.get("rarg"), part["quals"]])
            elif part[""] == "BOOLEXPR" and part["boolop"] == "and":
                yield from self._required(part["args"])
            else:
                yield part

    def _column(self, each: Any, within: list[Node]) -> Column | None:
        """Where a value is from: a column of a table, or given. None is something that is computed."""
        if each[""] in ("CONST", "PARAM"):
            return GIVEN
        if each[""] == "RELABELTYPE":
            return self._column(each["arg"], within)
        if each[""] != "VAR":
            return None
        reach = within[: len(within) - int(each["varlevelsup"])]
        if not reach:
            return None
        table, n = reach[-1]["rtable"][int(each["varno"]) - 1], each["varattno"]
        if table["rtekind"] == SUBQUERY and n != "0":
            found = self._column(table["subquery"]["targetList"][int(n) - 1]["expr"], [*reach, table["subquery"]])
            return found or (id(table), n)
        if table["rtekind"] in (JOIN, GROUP) and n != "0":
            return self._column(table["joinaliasvars" if table["rtekind"] == JOIN else "groupexprs"][int(n) - 1], reach)
        return id(table), n

    def _root(self, column: Column) -> Column:
        while column in self.same:
            column = self.same[column]
        return column

    def _modification(self, query: Node) -> None:
        """What a change sets and asks for [multi_router_planner.c: ModifyPartialQuerySupported, ErrorIfOnConflictNotSupported]."""
        table = query["rtable"][int(query["resultRelation"]) - 1]
        if table["relid"] not in self.catalog.spread:
            return
        others = [each for each in self._from(query) if self.catalog.tables(each)] + [
            each for each in self._links(query) if self.catalog.tables(each)
        ]
        if self.catalog.spread[table["relid"]] == "n" and others and query["commandType"] != INSERT:
            self.refused.append("a table of every node is changed by what shards say [multi_router_planner.c]")
        key = self.catalog.bucket.get(table["relid"])
        changed = query["targetList"] or [] if query["commandType"] == UPDATE else []
        asked = [*(each["expr"] for each in changed), query["jointree"]] if query["commandType"] in (UPDATE, DELETE) else []
        if conflict := query["onConflict"]:
            changed = conflict["onConflictSet"] or []
            if any(self.catalog.changing([conflict["onConflictSet"], conflict["onConflictWhere"], conflict["arbiterWhere"]])):
                self.refused.append("an upsert is not immutable [ErrorIfOnConflictNotSupported]")
        if any(each["resno"] == key for each in changed if each["resjunk"] == "false"):
            self.refused.append("the bucket of a row is changed [TargetEntryChangesValue]")
        own = [part for each in asked for part in self._without_queries(each)]
        if any(self.catalog.changing(own, "v")):
            self.refused.append("a change depends on chance [ModifyPartialQuerySupported]")
        for each in self.catalog.changing(own, "s"):
            if any(True for _ in nodes(each, "VAR")):
                self.refused.append("a change asks a stable function of a column [MasterIrreducibleExpression]")
        for each in [*nodes(own, "CASEEXPR"), *nodes(own, "COALESCEEXPR")]:
            if any(self.catalog.changing(each)):
                self.refused.append("a change is stable in a case [MasterIrreducibleExpression]")

    def _without_queries(self, part: Any) -> list[Any]:
        """An expression without the tables that it is asked of; their own are asked by themselves."""
        if isinstance(part, dict) and part[""] in ("FROMEXPR", "JOINEXPR"):
            return [
                one
                for each in (part.get("fromlist"), part.get("larg"), part.get("rarg"), part["quals"])
                for one in self._without_queries(each)
            ]
        if isinstance(part, list):
            return [one for each in part for one in self._without_queries(each)]
        return [part]


def _outward(query: Any, depth: int = -1) -> list[Node]:
    """The columns that it asks of the query around it."""
    if isinstance(query, list):
        return [found for each in query for found in _outward(each, depth)]
    if not isinstance(query, dict):
        return []
    own = [query] if query[""] == "VAR" and int(query["varlevelsup"]) == depth + 1 else []
    return own + _outward(list(query.values()), depth + (query[""] == "QUERY"))


def _inlined(query: Node) -> Node:
    """Put each step that is asked for once, and changes nothing, where it is asked for [cte_inline.c]. Citus tries both."""
    for each in list(nodes(query, "QUERY")):
        kept = []
        for step in each["cteList"] or []:
            inner = step["ctequery"]
            once = (
                step["cterecursive"] == "false"
                and step["cterefcount"] == "1"
                and step["ctematerialized"] == "0"
                and inner["commandType"] == SELECT
                and not inner["rowMarks"]
            )
            for table in nodes(each, "RANGETBLENTRY") if once else ():
                if table["rtekind"] == CTE and table["ctename"] == step["ctename"]:
                    table.update(rtekind=SUBQUERY, subquery=inner)
            kept += [] if once else [step]
        each["cteList"] = kept
    return query
