"""Time limits. One timer looks at all lanes and queues while calls are pending, so that no call needs a timer.

A read behind a slow statement is hedged: a second copy is sent on an idle lane, and the first result is used. Writes
that share a group with one that waits for a lock are helped by cancelling the group, which changes nothing: the error
says which call waited, and that call goes alone from then on. Every statement has a limit, and so has a connection on
which nothing comes any more.
"""

import asyncio
import itertools

from service.database import lane_pool
from service.database.call import Call
from service.database.connections import Connections
from service.database.failures import Delay, TimedOut
from service.database.lane import Lane
from service.database.lane_pool import LanePool
from service.database.row_queue import RowQueue
from service.database.stats import Stats

SWEEP_S = 0.01
# How long a cancelled statement may take to say so before the connection is taken for dead.
CANCEL_GRACE_S = 1.0
# A statement that others or nobody waits for is cancelled when it takes longer than this: well above what a slow disk
# makes of a commit, because a cancel costs PostgreSQL a process.
STUCK_S = 0.1


class Watchdog:
    """Looks after the calls of two pools and a row queue."""

    def __init__(
        self,
        pools: tuple[LanePool, LanePool],
        rows: RowQueue,
        connections: Connections,
        stats: Stats,
        *,
        statement_timeout_s: float,
    ) -> None:
        self._pools = pools
        self._rows = rows
        self._connections = connections
        self._stats = stats
        self._statement_timeout_s = statement_timeout_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None  # None while there is nothing to look after

    def wake(self) -> None:
        """There is something to look after."""
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def cancel(self, lane: Lane) -> None:
        """Cancels what the lane's connection is doing."""
        self._connections.spawn(lane.cancel(CANCEL_GRACE_S))

    @property
    def pending(self) -> int:
        """Calls that are not done. Those that back off count: what is sent again needs its time limit, too."""
        return len(self._rows) + sum(pool.pending for pool in self._pools)

    def _sweep(self) -> None:
        self._timer = None
        try:
            self._look()
        finally:  # a bug in one look must not be the end of all time limits
            if self.pending:
                self.wake()

    def _look(self) -> None:
        now = self._loop.time()
        for pool in self._pools:
            self._connections.empty_retired(pool)
            for lane in (*pool.lanes, *pool.retiring):
                if lane.groups:
                    self._look_at(pool, lane, now)
            pool.expire(now)
            if pool.queued:
                pool.dispatch()
        self._rows.expire(now)

    def _look_at(self, pool: LanePool, lane: Lane, now: float) -> None:
        if now - lane.head_since > lane_pool.STALE_S:
            lane.read()  # it may be this process that is late, not PostgreSQL
        if lane.groups and now - lane.head_since > lane_pool.STALE_S and lane.groups[0].calls:
            self._attend(pool, lane, now)
        for group in lane.groups:  # all: a read that is sent again may lie behind younger ones
            for call in group.calls:
                if now > call.deadline:
                    call.fail(TimedOut("the request's deadline passed"))

    def _attend(self, pool: LanePool, lane: Lane, now: float) -> None:
        """The lane's first group takes long."""
        calls, age = lane.groups[0].calls, now - lane.head_since
        head, wanted = calls[0], any(not call.future.done() for call in calls)
        if not head.statement.writes:
            self._hedge(pool, lane, now)
        if age > self._statement_timeout_s + CANCEL_GRACE_S:
            for call in calls:
                call.delay = Delay.OVERDUE
            lane.lose("PostgreSQL did not answer within the statement limit")
        elif len(calls) > 1 and head.statement.writes:
            if age > STUCK_S and not lane.cancels:
                self.cancel(lane)
        elif head.delay is not Delay.OVERDUE and age > (self._statement_timeout_s if wanted else STUCK_S):
            for call in calls:
                call.delay = Delay.OVERDUE
            self.cancel(lane)
        elif head.statement.writes and head.delay is Delay.NONE and age > STUCK_S and pool.queued:
            self._set_aside(pool, lane, head)

    def _set_aside(self, pool: LanePool, lane: Lane, head: Call) -> None:
        """Marks a write that waits for a lock, and cancels it if such writes hold half of the lanes already."""
        if not pool.may_block:
            self.cancel(lane)
        head.delay = Delay.BLOCKED

    def _hedge(self, pool: LanePool, lane: Lane, now: float) -> None:
        """Sends the reads behind a slow one a second time, on a lane that idles.

        Where none idles, all are busy: reads sent twice would then be load on load.
        """
        behind = itertools.chain.from_iterable(group.calls for group in itertools.islice(lane.groups, 1, None))
        reads = [call for call in behind if not (call.hedged or call.future.done())]
        other = pool.pick(now) if reads else None
        if other is not None and not other.groups:
            for call in reads[: pool.depth]:
                call.hedged = True
                self._stats.hedged += 1
                other.send((call.copy(),), now)
            other.flush()
        elif reads:
            self._connections.grow(pool)
