"""A proof, from a statement's syntax alone, that it touches no row but those of the user it was given.

Every reference to a table with an owner must be bound: where it is read, updated or deleted, its `user_id` is compared
with the parameter in a condition that every row must meet; where it is inserted into, its `user_id` is the parameter.
What the proof does not understand it refuses.
"""

# pglast types every field of every node as one that may be None.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Iterator
from typing import Any

from pglast import ast, parse_sql
from pglast.enums import A_Expr_Kind, BoolExprType, OnConflictAction
from pglast.visitors import Visitor

OWNED = {"tasks", "idempotency_keys"}


def complaints(sql: str, parameter: int) -> list[str]:
    """What is wrong with a statement whose parameter of this number (from 1) is the user; nothing, if it is proven."""
    statements = parse_sql(sql)
    if len(statements) != 1:
        return ["not one statement"]
    proof = _Proof(parameter)
    proof(statements[0].stmt)
    return proof.found + [f"{name}: in a place that is not understood" for name in proof.seen - proof.bound]


class _Proof(Visitor):
    def __init__(self, parameter: int) -> None:
        self._parameter = parameter
        self.found: list[str] = []
        self.seen: set[str] = set()  # references, as name@position
        self.bound: set[str] = set()

    def visit_RangeVar(self, _: Any, node: ast.RangeVar) -> None:
        if node.relname in OWNED:
            self.seen.add(_reference(node))

    def visit_CommonTableExpr(self, _: Any, node: ast.CommonTableExpr) -> None:
        if node.ctename in OWNED:
            self.found.append(f"{node.ctename}: a CTE hides the table")

    def visit_SelectStmt(self, _: Any, node: ast.SelectStmt) -> None:
        self._check_range(list(_items(node.fromClause or ())), node.whereClause)

    def visit_UpdateStmt(self, _: Any, node: ast.UpdateStmt) -> None:
        self._check_range([node.relation, *_items(node.fromClause or ())], node.whereClause)
        self._check_targets(node.relation, node.targetList)

    def visit_DeleteStmt(self, _: Any, node: ast.DeleteStmt) -> None:
        self._check_range([node.relation, *_items(node.usingClause or ())], node.whereClause)

    def visit_InsertStmt(self, _: Any, node: ast.InsertStmt) -> None:
        if node.relation.relname not in OWNED:
            return
        self.bound.add(_reference(node.relation))
        columns = [column.name for column in node.cols or ()]
        rows = list(_rows(node.selectStmt))
        position = columns.index("user_id") if "user_id" in columns else None
        if position is None or not rows or not all(self._is_parameter(row[position]) for row in rows):
            self.found.append(f"{_reference(node.relation)}: the user_id inserted is not the parameter")
        conflict = node.onConflictClause
        if conflict is not None and conflict.action == OnConflictAction.ONCONFLICT_UPDATE:
            keys = [key.name for key in (conflict.infer.indexElems or ())] if conflict.infer else []
            if "user_id" not in keys:
                self.found.append(f"{_reference(node.relation)}: ON CONFLICT may meet another user's row")
            self._check_targets(node.relation, conflict.targetList)

    def _check_range(self, items: list[Any], where: Any) -> None:
        conjuncts = list(_conjuncts(where))
        for item in items:
            if not isinstance(item, ast.RangeVar) or item.relname not in OWNED:
                continue
            self.bound.add(_reference(item))
            name = item.alias.aliasname if item.alias else item.relname
            columns = [(name, "user_id")] + ([("user_id",)] if len(items) == 1 else [])
            if not any(self._binds(conjunct, columns) for conjunct in conjuncts):
                self.found.append(f"{_reference(item)}: not bound to the parameter")

    def _check_targets(self, relation: ast.RangeVar, targets: Any) -> None:
        if relation.relname in OWNED and any(target.name == "user_id" for target in targets):
            self.found.append(f"{_reference(relation)}: the owner is changed")

    def _binds(self, condition: Any, columns: list[tuple[str, ...]]) -> bool:
        """Whether this is `user_id = $n`, either way round."""
        if not isinstance(condition, ast.A_Expr) or condition.kind != A_Expr_Kind.AEXPR_OP:
            return False
        if [part.sval for part in condition.name] != ["="]:
            return False
        sides = (condition.lexpr, condition.rexpr)
        return any(
            _column(one) in columns and self._is_parameter(other) for one, other in (sides, tuple(reversed(sides)))
        )

    def _is_parameter(self, node: Any) -> bool:
        while isinstance(node, ast.TypeCast | ast.ResTarget):
            node = node.arg if isinstance(node, ast.TypeCast) else node.val
        return isinstance(node, ast.ParamRef) and node.number == self._parameter


def _reference(node: ast.RangeVar) -> str:
    return f"{node.relname}@{node.location}"


def _items(clause: Any) -> Iterator[Any]:
    """What a FROM names, joins taken apart."""
    for item in clause:
        if isinstance(item, ast.JoinExpr):
            yield from _items((item.larg, item.rarg))
        else:
            yield item


def _conjuncts(condition: Any) -> Iterator[Any]:
    """The conditions that must all hold."""
    if isinstance(condition, ast.BoolExpr) and condition.boolop == BoolExprType.AND_EXPR:
        for part in condition.args:
            yield from _conjuncts(part)
    elif condition is not None:
        yield condition


def _rows(select: ast.SelectStmt) -> Iterator[tuple[Any, ...]]:
    """The rows that an INSERT takes: of its VALUES, or the columns of its SELECT."""
    if select is not None and select.valuesLists:
        yield from select.valuesLists
    elif select is not None and select.targetList:
        yield select.targetList


def _column(node: Any) -> tuple[str, ...] | None:
    if not isinstance(node, ast.ColumnRef) or not all(isinstance(part, ast.String) for part in node.fields):
        return None
    return tuple(part.sval for part in node.fields)
