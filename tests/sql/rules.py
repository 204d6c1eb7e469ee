"""Rules that every statement under sql/tasks keeps, found in its parse tree.

Citus refuses a statement that breaks one of them (its documentation, "SQL Support and Workarounds", and the messages of
its planner, src/backend/distributed/planner/multi_router_planner.c). PostgreSQL accepts all of it, so no test that runs
the statements would notice. The rule on qualified names has another reason: where others may CREATE in the tables'
schema, their function runs if its argument types match exactly and pg_catalog's form needs a conversion.
"""

# pglast types every field of every node as one that may be None.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Callable, Iterator
from typing import Any, Literal

from pglast import ast, parse_sql
from pglast.enums import OnConflictAction
from pglast.visitors import Visitor

Volatility = Literal["immutable", "stable", "volatile"]
DISTRIBUTION_COLUMN = {"users": "id", "tasks": "user_id", "idempotency_keys": "user_id"}
SQL_VALUE_FUNCTION: Volatility = "stable"  # CURRENT_TIMESTAMP and the like


def broken(sql: str, volatility: Callable[[str], Volatility], *, single_shard: bool = True) -> list[str]:
    """What the statement breaks, a sentence each. `volatility` looks up a function of pg_catalog by its name;
    `single_shard` is false for maintenance that covers all users.
    """
    rules = _Rules(volatility, single_shard)
    rules(parse_sql(sql)[0].stmt)
    return rules.found


class _Rules(Visitor):
    def __init__(self, volatility: Callable[[str], Volatility], single_shard: bool) -> None:
        self._volatility = volatility
        self._single_shard = single_shard
        self.found: list[str] = []

    def visit_FuncCall(self, _: Any, node: ast.FuncCall) -> None:
        if len(node.funcname) == 1:
            self.found.append(f"{node.funcname[0].sval}() is not qualified: write pg_catalog.{node.funcname[0].sval}()")

    def visit_UpdateStmt(self, _: Any, node: ast.UpdateStmt) -> None:
        column = DISTRIBUTION_COLUMN.get(node.relation.relname)
        if column in [target.name for target in node.targetList]:
            self.found.append(f"UPDATE changes the distribution column {column}")
        for part in (*node.targetList, node.whereClause):
            for call in _calls(part):
                kind = self._kind(call)
                if kind == "volatile":
                    self.found.append(f"UPDATE calls the volatile {_name(call)}()")
                elif kind == "stable" and any(_columns(argument) for argument in _arguments(call)):
                    self.found.append(f"UPDATE calls the stable {_name(call)}() with a column")
            self.found += [
                "UPDATE adds an interval to a column, which is stable"
                for sum_ in _interval_sums(part)
                if _columns(sum_)
            ]

    def visit_OnConflictClause(self, _: Any, node: ast.OnConflictClause) -> None:
        if node.action != OnConflictAction.ONCONFLICT_UPDATE:
            return
        for target in node.targetList:
            if target.name in DISTRIBUTION_COLUMN.values():
                self.found.append(f"DO UPDATE changes the distribution column {target.name}")
            for call in _calls(target):
                if self._kind(call) != "immutable":
                    self.found.append(f"DO UPDATE SET calls {_name(call)}(), which is not immutable")
            self.found += ["DO UPDATE SET adds an interval, which is not immutable" for _ in _interval_sums(target)]

    def visit_SelectStmt(self, _: Any, node: ast.SelectStmt) -> None:
        if node.lockingClause and not self._single_shard:
            self.found.append("a locking clause covers several shards")

    def visit_InsertStmt(self, _: Any, node: ast.InsertStmt) -> None:
        select = node.selectStmt
        if select is not None and select.valuesLists and any(_subqueries(row) for row in select.valuesLists):
            self.found.append("a subquery within INSERT … VALUES")
        for target in node.returningClause.exprs if node.returningClause else ():
            for call in _calls(target):
                if self._kind(call) != "immutable":
                    self.found.append(f"RETURNING calls {_name(call)}(), which is not immutable")

    def _kind(self, call: Any) -> Volatility:
        return SQL_VALUE_FUNCTION if isinstance(call, ast.SQLValueFunction) else self._volatility(_name(call))


def _nodes(root: Any) -> Iterator[Any]:
    """A node and everything below it."""
    if isinstance(root, tuple | list):
        for item in root:
            yield from _nodes(item)
    elif isinstance(root, ast.Node):
        yield root
        for name in root.__slots__:
            yield from _nodes(getattr(root, name))


def _calls(root: Any) -> list[Any]:
    return [node for node in _nodes(root) if isinstance(node, ast.FuncCall | ast.SQLValueFunction)]


def _interval_sums(root: Any) -> list[Any]:
    """Where an interval is added or subtracted. PostgreSQL's operators for that on timestamptz are stable, because the
    length of a day depends on the time zone.
    """
    return [
        node
        for node in _nodes(root)
        if isinstance(node, ast.A_Expr)
        and node.name[-1].sval in ("+", "-")
        and any(
            isinstance(side, ast.TypeCast) and side.typeName.names[-1].sval == "interval"
            for side in (node.lexpr, node.rexpr)
        )
    ]


def _columns(root: Any) -> list[Any]:
    return [node for node in _nodes(root) if isinstance(node, ast.ColumnRef)]


def _subqueries(root: Any) -> list[Any]:
    return [node for node in _nodes(root) if isinstance(node, ast.SubLink)]


def _arguments(call: Any) -> tuple[Any, ...]:
    return tuple(getattr(call, "args", None) or ())


def _name(call: Any) -> str:
    return call.funcname[-1].sval if isinstance(call, ast.FuncCall) else call.op.name.removeprefix("SVFOP_").lower()
