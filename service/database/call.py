"""A call: one statement with its values, and the future that its caller awaits. Its states, and which follow which.

Must not import connections or scheduling.
"""

import asyncio
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from service.database.failures import Delay, Failure
from service.database.statement import Prepared, Statement, Value
from service.database.stats import Caller


class CallState(IntEnum):
    """Where a call is. The caller may be gone before the call is: a reply that PostgreSQL owes is still consumed."""

    NEW = 0
    WAITING_FOR_ROW = 1  # behind another write of the same row
    QUEUED = 2  # for a lane
    IN_FLIGHT = 3  # sent with its Sync: PostgreSQL may have done it
    BACKING_OFF = 4  # lost a conflict; sent again after a random delay
    DONE = 5


# By state: the states that may follow. A tuple, indexed by the state: an Enum's hash costs more than the whole check.
TRANSITIONS: tuple[tuple[CallState, ...], ...] = (
    (CallState.QUEUED, CallState.WAITING_FOR_ROW, CallState.IN_FLIGHT, CallState.DONE),  # from NEW
    (CallState.QUEUED, CallState.DONE),  # from WAITING_FOR_ROW
    (CallState.IN_FLIGHT, CallState.DONE, CallState.QUEUED),  # from QUEUED: again, where its lane broke while sending
    (CallState.DONE, CallState.QUEUED, CallState.BACKING_OFF),  # from IN_FLIGHT
    (CallState.QUEUED, CallState.DONE),  # from BACKING_OFF
    (),  # from DONE
)


_NEW, _NOT_DELAYED = CallState.NEW, Delay.NONE  # to look a member up in its class costs as much as a method call


class Fetch(IntEnum):
    """What a caller wants of a result."""

    ONE = 0  # the first row, or None
    ALL = 1
    COUNT = 2  # how many rows changed


class Call:
    """`begun` (of this attempt) and `deadline` (of all) are times of the event loop."""

    __slots__ = (
        "alone",
        "arguments",
        "begun",
        "caller",
        "deadline",
        "delay",
        "fetch",
        "future",
        "hedged",
        "key",
        "lock_order",
        "prepared",
        "spoiled",
        "state",
        "statement",
        "tries",
        "values",
    )

    prepared: Prepared  # what it was sent as

    def __init__(
        self,
        statement: Statement[Any],
        arguments: Sequence[object],
        values: list[Value],
        fetch: Fetch,
        future: "asyncio.Future[Any]",
        begun: float,
        deadline: float,
    ) -> None:
        self.statement = statement
        self.arguments = arguments  # as the caller gave them
        self.values = values  # as they are sent
        self.fetch = fetch
        self.future = future
        self.begun = begun
        self.deadline = deadline
        self.state = _NEW
        # The row that it writes: calls with the same key follow each other. None: no other call needs to wait for it.
        self.key: tuple[Value, ...] | None = None
        self.lock_order: tuple[Value, ...] = ()  # its place among the writes of one group: see LanePool
        self.alone = False  # shares its transaction with no other call
        if statement.writes:
            if statement.key:
                self.key = self.lock_order = tuple([values[position] for position in statement.key])
            elif statement.lock_order:
                self.lock_order = tuple([values[position] for position in statement.lock_order])
            else:
                self.alone = True
        self.caller: Caller | None = None
        self.delay = _NOT_DELAYED
        self.hedged = False  # a second copy was sent on another lane, or this is the copy
        self.tries = 0
        self.spoiled = 0  # times that it was sent again because another call of its group failed

    def copy(self) -> "Call":
        """A second one for the same caller, to be sent on another lane. It holds no row."""
        twin = Call(self.statement, self.arguments, self.values, self.fetch, self.future, self.begun, self.deadline)
        twin.key, twin.hedged = None, True
        return twin

    def move(self, state: CallState) -> None:
        """Every change of state comes through here."""
        assert state in TRANSITIONS[self.state], f"{self.statement.name}: {self.state.name} → {state.name}"
        self.state = state

    def fail(self, failure: Failure) -> None:
        """The caller gets the failure, unless it has its result or is gone. The state stays: a reply may be owed."""
        if not self.future.done():
            self.future.set_exception(failure)
