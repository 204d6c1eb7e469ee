"""The way to PostgreSQL: statements, and the lanes they travel on. Knows connections, no tasks; the only importer of
psycopg on the request's path. The states of a call and of a lane are drawn in this folder's README.
"""

from service.database.database import Database
from service.database.failures import SQLSTATES, ConstraintViolation, Failure, InternalError, TimedOut, Unavailable
from service.database.statement import Json, Statement, StatementError, read
from service.database.stats import GROUP_SIZES, TIME_BOUNDS, Stats, current_caller

__all__ = [
    "GROUP_SIZES",
    "SQLSTATES",
    "TIME_BOUNDS",
    "ConstraintViolation",
    "Database",
    "Failure",
    "InternalError",
    "Json",
    "Statement",
    "StatementError",
    "Stats",
    "TimedOut",
    "Unavailable",
    "current_caller",
    "read",
]
