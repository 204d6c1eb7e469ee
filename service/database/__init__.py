"""The way to PostgreSQL: statements, and the lanes they travel on. Knows connections, no tasks; the only importer of
psycopg on the request's path.
"""

from service.database.database import Database, Stats
from service.database.failures import SQLSTATES, ConstraintViolation, Failure, InternalError, TimedOut, Unavailable
from service.database.statement import Statement, StatementError, read

__all__ = [
    "SQLSTATES",
    "ConstraintViolation",
    "Database",
    "Failure",
    "InternalError",
    "Statement",
    "StatementError",
    "Stats",
    "TimedOut",
    "Unavailable",
    "read",
]
