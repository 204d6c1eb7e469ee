"""What PostgreSQL's parser (pglast) finds in SQL."""

from typing import Any

from pglast.visitors import Visitor


class Names(Visitor):
    """Call it with a statement's node: it collects the operators and functions that are named there."""

    def __init__(self) -> None:
        self.operators: set[str] = set()
        self.functions: set[str] = set()

    def visit_A_Expr(self, _: object, node: Any) -> None:
        self.operators.add(node.name[-1].sval)

    def visit_FuncCall(self, _: object, node: Any) -> None:
        self.functions.add(node.funcname[-1].sval)
