"""Deletes idempotency records past their 24 hours, in small batches, so that no statement holds locks for long."""

from typing import Any

from service.database import Database, Statement, read
from service.paths import root

BATCH_ROWS = 1000


def _statement(name: str) -> Statement[None]:
    return Statement(name, read(root() / "sql" / "operations", name), {"rows": int}, lambda _: None)


PRUNE = _statement("prune")
PRUNE_CITUS = _statement("prune_citus")
CITUS: Statement[bool] = Statement("citus", read(root() / "sql" / "operations", "citus"), {}, lambda row: bool(row[0]))

STATEMENTS: list[Statement[Any]] = [PRUNE, PRUNE_CITUS, CITUS]


async def prune(database: Database) -> int:
    """The number of records removed. Raises service.database.Failure."""
    statement = PRUNE_CITUS if await database.fetch_one(CITUS) else PRUNE
    removed = 0
    while count := await database.execute(statement, BATCH_ROWS):
        removed += count
    return removed
