"""What can go wrong between a statement and its rows: the kinds of failure, and the one table from SQLSTATE to what it
means and whether the statement is sent again.

No exception of the driver leaves the database package: callers see one of the four failures. Imports nothing of the
service.
"""

from enum import Enum
from typing import NamedTuple


class Failure(Exception):
    """A statement did not end as asked. `sqlstate` is PostgreSQL's five characters where it gave them."""

    def __init__(self, message: str, sqlstate: str | None = None, constraint: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint


class Unavailable(Failure):
    """The database cannot be used now: away, starting, full, read-only, or the service's own queue is full."""


class TimedOut(Failure):
    """The statement reached its time limit. It was cancelled and changed nothing, or its fate is unknown."""


class ConstraintViolation(Failure):
    """A constraint of the schema rejected the row; `constraint` names it."""


class InternalError(Failure):
    """A bug: a statement that the schema rejects, a value that PostgreSQL cannot hold, a row that is another user's."""


class ErrorClass(NamedTuple):
    failure: type[Failure]
    retry: bool  # the statement changed nothing and is sent again by the service, after a short random delay


# PostgreSQL's Appendix A, "PostgreSQL Error Codes". A whole code is looked up first, then its class (two characters).
# A code that is not listed is an internal error.
SQLSTATES: dict[str, ErrorClass] = {
    "08": ErrorClass(Unavailable, False),  # connection exception
    "0A000": ErrorClass(InternalError, False),  # feature not supported (a plan that changed: see `retry_of`)
    "22": ErrorClass(InternalError, False),  # data exception: the service passed on what the schema cannot hold
    "23": ErrorClass(ConstraintViolation, False),  # integrity constraint violation
    "25006": ErrorClass(Unavailable, False),  # read-only transaction: a standby, or a primary that was demoted
    "25P04": ErrorClass(TimedOut, False),  # transaction_timeout, where a role or a database sets one
    "28": ErrorClass(Unavailable, False),  # invalid authorization: for the operator to mend, not the client
    "3D000": ErrorClass(Unavailable, False),  # the database does not exist (yet)
    "40001": ErrorClass(Unavailable, True),  # serialization failure
    "40P01": ErrorClass(Unavailable, True),  # deadlock: PostgreSQL chose this statement to fail
    "42501": ErrorClass(Unavailable, False),  # a privilege is missing: for the operator to mend
    "42P01": ErrorClass(Unavailable, False),  # no such table: the schema is behind
    "42703": ErrorClass(Unavailable, False),  # no such column: the schema is behind
    "53": ErrorClass(Unavailable, False),  # insufficient resources: disk full, out of memory, too many connections
    "55P03": ErrorClass(TimedOut, False),  # lock_timeout, where a role or a database sets one
    "55006": ErrorClass(Unavailable, False),  # object in use
    "57014": ErrorClass(TimedOut, False),  # cancelled: the statement limit
    "57": ErrorClass(Unavailable, False),  # operator intervention: shutdown, crash, starting up
    "58": ErrorClass(Unavailable, False),  # system error: input/output
    # Internal error; poolers and Neon's proxy say XX000 while they cannot connect.
    "XX": ErrorClass(Unavailable, False),
}

_UNLISTED = ErrorClass(InternalError, False)

# PostgreSQL ends the session with these, and certainly committed nothing: the session was idle (57P05), or the
# transaction is rolled back (25P03, 25P04).
NOTHING_COMMITTED = frozenset({"57P05", "25P03", "25P04"})


def error_class(sqlstate: str | None) -> ErrorClass:
    """What a SQLSTATE means; None (PostgreSQL gave none) means that the connection was lost."""
    if sqlstate is None:
        return SQLSTATES["08"]
    return SQLSTATES.get(sqlstate) or SQLSTATES.get(sqlstate[:2]) or _UNLISTED


class ServerError(NamedTuple):
    """PostgreSQL's error message. `routine` is the C function that raised it: unlike the text, it is not translated."""

    sqlstate: str
    message: str
    constraint: str | None = None
    routine: str | None = None

    @property
    def needs_new_text(self) -> bool:
        """The prepared statement cannot be used any more: its result's type changed, or the server has lost it.

        Through PgBouncer 1.21 and newer, only a statement of another text gets another plan: it maps equal texts to one
        server statement, whatever their names.
        """
        return self.sqlstate == "26000" or (self.sqlstate == "0A000" and self.routine == "RevalidateCachedQuery")

    def failure(self) -> Failure:
        return error_class(self.sqlstate).failure(self.message, self.sqlstate, self.constraint)


class Delay(Enum):
    """Why a call in flight takes long, as far as the watchdog has found out. Decides what a cancel of it means."""

    NONE = "it does not, or not yet"
    BLOCKED = "it waited for a lock while others waited for it: goes alone, and is sent again if it was cancelled"
    OVERDUE = "it reached the statement limit, or no caller waits for it any more: its cancel is final"


class Retry(Enum):
    """Whether a call is sent again after an error of PostgreSQL, which says that the statement changed nothing."""

    NO = "its failure is final"
    COUNTED = "at once, and one of its MAX_ATTEMPTS is used up"
    FREE = "at once, and no attempt is used up: the error was not caused by the call"
    BACKOFF = "after a short random delay, and one attempt is used up"


def retry_of(error: ServerError, *, cancelled_by_us: bool, delay: Delay, was_current: bool) -> Retry:
    """The retry policy for the call that an error concerns.

    `cancelled_by_us`: the service had sent a cancel on this connection that had not shown its effect. `was_current`:
    the call's prepared statement was still the one in use on its connection; otherwise an earlier error had already
    dropped it, and this one only follows from that.
    """
    if error.sqlstate == "57014":
        # Retried where the cancel was to let others pass, or came late and hit the statement after the one it was meant
        # for. A cancel by others (a role's statement_timeout, an administrator) is final.
        return Retry.FREE if cancelled_by_us and delay is not Delay.OVERDUE else Retry.NO
    if error.sqlstate == "25P02":  # behind a failed statement of a BEGIN … COMMIT, before the ROLLBACK
        return Retry.FREE
    if error.needs_new_text:
        return Retry.COUNTED if was_current else Retry.FREE
    return Retry.BACKOFF if error_class(error.sqlstate).retry else Retry.NO
