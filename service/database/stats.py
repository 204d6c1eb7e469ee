"""What the database package counts and times: for metrics, and for the request that a call belongs to."""

from bisect import bisect_left
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

GROUP_SIZES = (1, 2, 4, 8, 16, 32)  # upper bounds of the histogram's buckets


# Seconds: upper bounds of the buckets of both histograms of time.
TIME_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SUM = len(TIME_BOUNDS) + 1  # CPython has no fast way for the index -1, nor for a float plus an int


class Caller(Protocol):
    """What calls are made for: the record of a request."""

    def timed(self, statement: str, wait_s: float, database_s: float) -> None:
        """A call of this statement has ended, after so long in queues and so long at the database."""
        ...


# Set by the caller in its task; a call keeps what it was when the call was made.
current_caller: ContextVar[Caller | None] = ContextVar("current_caller", default=None)


@dataclass(slots=True)
class Calls:
    """Of one statement: how many, and how long they took, time in queues included."""

    count: int = 0
    seconds: float = 0.0


class Stats:
    """Plain numbers that only grow."""

    __slots__ = (
        "connects",
        "failures",
        "groups",
        "hedged",
        "lost",
        "retried",
        "statements",
        "times",
        "unreachable",
        "waits",
    )

    def __init__(self) -> None:
        self.connects = 0
        self.lost = 0
        self.unreachable = 0
        self.retried = 0
        self.hedged = 0
        self.failures: Counter[str] = Counter()  # by SQLSTATE class; "lost": a connection's end without one
        self.statements: dict[str, Calls] = {}  # by statement name
        # Groups of writes by size: counts by bucket, not cumulative, the last for larger ones; then all their writes.
        self.groups = [0] * (len(GROUP_SIZES) + 2)

        # Times in queues and at the database: counts by bucket, not cumulative, the last for longer ones; then the sum.
        self.waits = [0.0] * (len(TIME_BOUNDS) + 2)
        self.times = [0.0] * (len(TIME_BOUNDS) + 2)

    def count_call(self, statement: str, begun: float, sent: float, now: float, caller: Caller | None) -> None:
        totals = self.statements.get(statement)
        if totals is None:
            totals = self.statements[statement] = Calls()
        totals.count += 1
        totals.seconds += now - begun
        wait, took = sent - begun, now - sent
        if wait:
            self.waits[bisect_left(TIME_BOUNDS, wait)] += 1.0
            self.waits[_SUM] += wait
        else:  # nearly every call is sent in the turn of the event loop in which it was made
            self.waits[0] += 1.0
        self.times[bisect_left(TIME_BOUNDS, took)] += 1.0
        self.times[_SUM] += took
        if caller is not None:
            caller.timed(statement, wait, took)

    def count_group(self, size: int) -> None:
        self.groups[bisect_left(GROUP_SIZES, size)] += 1
        self.groups[-1] += size
