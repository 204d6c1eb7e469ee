"""Whether the statements fit the database's schema and the role's privileges: PostgreSQL plans each of them.

Done on the first connection, and again until all of them fit. Also done again when a statement fails in a way that says
that the schema changed or a privilege is missing. Must not import connections.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from service.database.failures import Failure
from service.database.statement import Statement

log = logging.getLogger("service.database")

# Connection, resources, operator intervention, authorization, no such database: not the statement's fault, so it is
# checked again later. Other codes come from planning with NULLs (Citus: 22004, 0A000 and XX000) and are no mismatch.
_CHECK_AGAIN = ("08", "28", "3D", "53", "57")


class SchemaCheck:
    """`execute` sends to PostgreSQL. `mismatch` says which statement does not fit, and why; None: all fit."""

    def __init__(
        self,
        statements: Sequence[Statement[Any]],
        execute: Callable[[Statement[Any], Sequence[object]], Awaitable[int]],
    ) -> None:
        self._statements = [statement.explained() for statement in statements]
        self._names = {statement.name for statement in self._statements}
        self._execute = execute
        self.pending = bool(self._statements)
        self._running = False
        self.mismatch: str | None = "no statement was compared with the schema yet" if self.pending else None

    async def run(self) -> None:
        """Compares every statement, up to the first that does not fit."""
        if self._running or not self.pending:
            return
        self._running, self.pending = True, False  # `doubt` may set it meanwhile, for what is compared already
        fits = False
        try:
            fits = await self._all_fit()
        finally:
            self._running = False
            self.pending |= not fits
        if not self.pending:
            self.mismatch = None

    async def _all_fit(self) -> bool:
        """False: one does not, or it cannot be told now."""
        for statement in self._statements:
            try:
                await self._execute(statement, [None] * len(statement.parameters))
            except Failure as error:
                if error.sqlstate is None or error.sqlstate[:2] in _CHECK_AGAIN:
                    return False
                if error.sqlstate.startswith("42"):
                    self._differs(statement.name.removeprefix("explain_"), error)
                    return False
        return True

    def doubt(self, statement: Statement[Any], error: Failure) -> None:
        """A statement that fitted failed: a table, a column or a privilege is missing now. `run` says when it fits."""
        if f"explain_{statement.name}" in self._names:
            self.pending = True
            self._differs(statement.name, error)

    def _differs(self, name: str, error: Failure) -> None:
        reason = f"{name}: {str(error).partition(chr(10))[0]}"
        if reason != self.mismatch:
            log.error("a statement does not fit the database's schema: %s; run `tasks-service check`", reason)
        self.mismatch = reason
