"""Removes idempotency records past their 24 hours, in small batches, so that no statement holds locks for long."""

from service.database import Database, Statement, read
from service.paths import root

BATCH_ROWS = 1000

PRUNE: Statement[None] = Statement("prune", read(root() / "sql" / "operations", "prune"), {"rows": int}, lambda _: None)


async def prune(database: Database) -> int:
    """The number of records removed. Raises service.database.Failure."""
    removed = 0
    while count := await database.execute(PRUNE, BATCH_ROWS):
        removed += count
    return removed
