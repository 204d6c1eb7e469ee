"""What the database package counts, for metrics."""

from bisect import bisect_left
from collections import Counter, defaultdict

GROUP_SIZES = (1, 2, 4, 8, 16, 32)  # upper bounds of the histogram's buckets


class Stats:
    """Plain numbers that only grow."""

    __slots__ = ("connects", "failures", "groups", "hedged", "lost", "retried", "seconds", "statements", "unreachable")

    def __init__(self) -> None:
        self.connects = 0
        self.lost = 0
        self.unreachable = 0
        self.retried = 0
        self.hedged = 0
        self.failures: Counter[str] = Counter()  # by SQLSTATE class; "lost": a connection's end without one
        self.statements: Counter[str] = Counter()  # by statement name
        self.seconds: defaultdict[str, float] = defaultdict(float)  # by statement name, time in queues included
        # Groups of writes by size: counts by bucket, not cumulative, the last for larger ones; then all their writes.
        self.groups = [0] * (len(GROUP_SIZES) + 2)

    def count_group(self, size: int) -> None:
        self.groups[bisect_left(GROUP_SIZES, size)] += 1
        self.groups[-1] += size
