"""What can go wrong between a statement and its rows, and the one table from SQLSTATE to what it means.

No exception of the driver leaves the database package: callers see one of these four.
"""

from typing import NamedTuple


class Failure(Exception):
    """A statement did not end as asked. `sqlstate` is PostgreSQL's five characters where it said something."""

    def __init__(self, message: str, sqlstate: str | None = None, constraint: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint


class Unavailable(Failure):
    """The database cannot be had now: away, starting, full, read-only, or the service's own queue is full."""


class TimedOut(Failure):
    """The statement ran into its time limit. It was cancelled and changed nothing, or its fate is unknown."""


class ConstraintViolation(Failure):
    """A constraint of the schema refused the row; `constraint` names it."""


class InternalError(Failure):
    """What should never happen: a statement that does not fit the schema, a missing privilege, a bug."""


class ErrorClass(NamedTuple):
    failure: type[Failure]
    repeat: bool  # the statement surely changed nothing and may be sent again by the service


# PostgreSQL's Appendix A, "PostgreSQL Error Codes". A whole code is looked up first, then its class (two characters).
# What is not listed is a defect.
SQLSTATES: dict[str, ErrorClass] = {
    "08": ErrorClass(Unavailable, False),  # connection exception
    "0A000": ErrorClass(InternalError, False),  # feature not supported (a changed plan is prepared again by the lane)
    "22": ErrorClass(InternalError, False),  # data exception: the service let through what the schema cannot hold
    "23": ErrorClass(ConstraintViolation, False),  # integrity constraint violation
    "25006": ErrorClass(Unavailable, False),  # read-only transaction: a standby, or a primary that was demoted
    "28": ErrorClass(Unavailable, False),  # invalid authorization: the operator's to mend, not the client's
    "3D000": ErrorClass(Unavailable, False),  # the database does not exist (yet)
    "40001": ErrorClass(Unavailable, True),  # serialization failure
    "40P01": ErrorClass(Unavailable, True),  # deadlock: PostgreSQL chose this statement to give way
    "42P01": ErrorClass(Unavailable, False),  # no such table: the schema is behind
    "42703": ErrorClass(Unavailable, False),  # no such column: the schema is behind
    "53": ErrorClass(Unavailable, False),  # insufficient resources: disk full, out of memory, too many connections
    "55P03": ErrorClass(TimedOut, False),  # lock_timeout, where a role or a database sets one
    "55006": ErrorClass(Unavailable, False),  # object in use
    "57014": ErrorClass(TimedOut, False),  # cancelled: the statement limit
    "57": ErrorClass(Unavailable, False),  # operator intervention: shutdown, crash, starting up
    "58": ErrorClass(Unavailable, False),  # system error: input/output
    "XX": ErrorClass(
        Unavailable, False
    ),  # internal error; poolers and Neon's proxy say XX000 while they cannot connect
}

_UNLISTED = ErrorClass(InternalError, False)


def error_class(sqlstate: str | None) -> ErrorClass:
    """What a SQLSTATE means; None (PostgreSQL said nothing) means that the connection was lost."""
    if sqlstate is None:
        return SQLSTATES["08"]
    return SQLSTATES.get(sqlstate) or SQLSTATES.get(sqlstate[:2]) or _UNLISTED
