"""Migrations for people who run them on live databases: yoyo's files and tables, and a lock that tells dead from alive.

Knows migrations/, yoyo's bookkeeping and sessions. Must not know what the service does with the tables.

yoyo itself splits the files and makes its tables, so its own command reads the same history; running the statements is
done here, because yoyo records a migration in a transaction of its own (a kill in between leaves it applied and not
recorded), answers a failure outside a transaction with the rollback's statements, and locks by a row that outlives its
holder.
"""

from service.operations.migrate.errors import MigrationError, Unreachable
from service.operations.migrate.files import Migration, ids, new, read
from service.operations.migrate.history import State, compare
from service.operations.migrate.lock import Holder
from service.operations.migrate.run import apply, break_lock, plan_apply, plan_rollback, rollback, states_of, status

__all__ = [
    "Holder",
    "Migration",
    "MigrationError",
    "State",
    "Unreachable",
    "apply",
    "break_lock",
    "compare",
    "ids",
    "new",
    "plan_apply",
    "plan_rollback",
    "read",
    "rollback",
    "states_of",
    "status",
]
