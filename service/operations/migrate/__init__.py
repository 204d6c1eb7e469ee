"""Migrations for people who run them on live databases: yoyo's files and tables, and a lock that tells dead from alive.

Reads the files and keeps yoyo's tables. Must not import tasks.

yoyo itself splits the files, and the tables are as yoyo makes them, so its own command reads the same history. The
statements are run here, because yoyo records a migration in another transaction (a kill in between leaves it applied
and not recorded), answers a failure outside a transaction with the rollback's statements, and locks by a row that
outlives its holder.
"""

from service.operations.migrate.errors import MigrationError, Unreachable
from service.operations.migrate.files import Migration, ids, new, read, use
from service.operations.migrate.history import State
from service.operations.migrate.lock import Holder
from service.operations.migrate.plan import (
    begun,
    differences,
    plan_apply,
    plan_rollback,
    require_applied,
    states_of,
    status,
)
from service.operations.migrate.run import apply, break_lock, rollback

__all__ = [
    "Holder",
    "Migration",
    "MigrationError",
    "State",
    "Unreachable",
    "apply",
    "begun",
    "break_lock",
    "differences",
    "ids",
    "new",
    "plan_apply",
    "plan_rollback",
    "read",
    "require_applied",
    "rollback",
    "states_of",
    "status",
    "use",
]
