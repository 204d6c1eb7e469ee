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


class Rejected(Failure):
    """A constraint of the schema refused the row; `constraint` names it."""


class Defect(Failure):
    """What should never happen: a statement that does not fit the schema, a missing privilege, a bug."""


class Meaning(NamedTuple):
    failure: type[Failure]
    repeat: bool  # the statement surely changed nothing and may be sent again by the service


# PostgreSQL's Appendix A, "PostgreSQL Error Codes". A whole code is looked up first, then its class (two characters).
# What is not listed is a defect.
SQLSTATES: dict[str, Meaning] = {
    "08": Meaning(Unavailable, False),  # connection exception
    "0A000": Meaning(Defect, False),  # feature not supported (a changed plan is prepared again by the lane)
    "22": Meaning(Defect, False),  # data exception: the service let through what the schema cannot hold
    "23": Meaning(Rejected, False),  # integrity constraint violation
    "25006": Meaning(Unavailable, False),  # read-only transaction: a standby, or a primary that was demoted
    "28": Meaning(Unavailable, False),  # invalid authorization: the operator's to mend, not the client's
    "3D000": Meaning(Unavailable, False),  # the database does not exist (yet)
    "40001": Meaning(Unavailable, True),  # serialization failure
    "40P01": Meaning(Unavailable, True),  # deadlock: PostgreSQL chose this statement to give way
    "42P01": Meaning(Unavailable, False),  # no such table: the schema is behind
    "42703": Meaning(Unavailable, False),  # no such column: the schema is behind
    "53": Meaning(Unavailable, False),  # insufficient resources: disk full, out of memory, too many connections
    "55P03": Meaning(TimedOut, False),  # lock_timeout, where a role or a database sets one
    "55006": Meaning(Unavailable, False),  # object in use
    "57014": Meaning(TimedOut, False),  # cancelled: the statement limit
    "57": Meaning(Unavailable, False),  # operator intervention: shutdown, crash, starting up
    "58": Meaning(Unavailable, False),  # system error: input/output
    "XX": Meaning(Unavailable, False),  # internal error; poolers and Neon's proxy say XX000 while they cannot connect
}

_UNLISTED = Meaning(Defect, False)


def meaning(sqlstate: str | None) -> Meaning:
    """What a SQLSTATE means; None (PostgreSQL said nothing) means that the connection was lost."""
    if sqlstate is None:
        return SQLSTATES["08"]
    return SQLSTATES.get(sqlstate) or SQLSTATES.get(sqlstate[:2]) or _UNLISTED
