"""The lanes of one kind, reads or writes, and which call goes on which lane, when, and with which others.

Reads never wait for row locks. They get their own lanes, so that a write waiting for a lock cannot block them.

Calls that arrive in one turn of the event loop, or that wait because every lane is busy, go as groups: one Sync and,
for writes, one commit. A call that comes alone goes alone, without a timer. PostgreSQL locks rows in the order in which
a group's statements come, hence one order for all processes (`Call.lock_order`: user, then task), so that two groups
cannot deadlock with each other.

Must not import psycopg: lanes are given, so that tests need no PostgreSQL.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from operator import attrgetter

from service.database.call import Call, CallState
from service.database.failures import Delay, Unavailable
from service.database.lane import Lane, LaneState, Output

# Seconds. A lane whose oldest group is older than this gets nothing new, and reads behind that group are hedged: some
# tens of ms, well above a commit on Neon (1 to 5 ms).
STALE_S = 0.03
# While the database cannot be reached, calls wait this long for it (a suspended Neon compute wakes in less), and then
# fail at once until a connection succeeds.
MAX_DOWN_S = 3.0
# Writes use this many lanes as they come, and one more only when so many are queued that its group is well filled:
# every commit costs about 100 µs of CPU, however many writes share it.
FEW_LANES = 2
FULL_GROUP = 16

# Looked up once: an Enum's member costs a method call.
_OPEN, _EMPTY, _NEW, _QUEUED = LaneState.OPEN, Output.EMPTY, CallState.NEW, CallState.QUEUED
_lock_order = attrgetter("lock_order")


class LanePool:
    """`depth`: calls in flight on one lane. `max_group`: calls in one group, which bounds the time that locks are held.
    `grow_at`: calls on the least loaded lane that ask for one lane more; 0: whenever none is free. `grow` opens one
    lane more, `discarded` is called with a queued call that is not sent.
    """

    def __init__(
        self,
        *,
        depth: int,
        max_group: int,
        grow_at: int,
        max_queued: int,
        max_lanes: int,
        grow: "Callable[[LanePool], None]",
        discarded: Callable[[Call], None],
    ) -> None:
        self.lanes: list[Lane] = []
        self.retiring: list[Lane] = []  # take nothing new
        self.queue: deque[Call] = deque()
        # Writes that waited for a lock while others waited for them. They share at most half of the lanes, so that
        # however many they are, other writes go on.
        self.blocked: deque[Call] = deque()
        self.backing_off = 0  # calls that are submitted again after a random delay
        self.down_since: float | None = None  # since when there has been no lane, in spite of attempts
        self.max_group = max_group
        self.depth = depth
        self._grow_at = grow_at
        self._max_queued = max_queued
        self._max_blocked = max(1, max_lanes // 2)
        self._grow = grow
        self._discarded = discarded
        self._loop = asyncio.get_running_loop()
        self._dispatch_due = False  # at the end of this turn of the event loop
        self._closed: str | None = None  # why nothing is sent any more

    @property
    def queued(self) -> int:
        return len(self.queue) + len(self.blocked)

    @property
    def pending(self) -> int:
        """Calls that are queued, in flight or backing off."""
        return self.queued + self.in_flight + self.backing_off

    @property
    def in_flight(self) -> int:
        return sum(lane.in_flight for lane in (*self.lanes, *self.retiring))

    def submit(self, call: Call, now: float) -> bool:
        """Sends the call at the end of this turn of the event loop if a lane is free, else queues it. False where it
        would wait in vain, and so has failed.
        """
        if not self._dispatch_due:
            self._dispatch_due = True
            self._loop.call_soon(self.dispatch)
        if self.max_group == 1 and call.state is _NEW and not self.queue and (lane := self.pick(now)) is not None:
            lane.send((call,), now)  # nothing is gained by waiting for the end of the turn; `dispatch` flushes
            return True
        if self._closed is not None:
            return self._reject(call, self._closed)
        if self._hopeless(now):
            return self._reject(call, "the database cannot be reached")
        if len(self.queue) >= self._max_queued:
            self.dispatch()
            if len(self.queue) >= self._max_queued:
                return self._reject(call, "too many calls wait for the database")
        call.move(_QUEUED)
        if call.delay is Delay.BLOCKED:
            self.blocked.append(call)
        elif call.tries or call.spoiled:
            self.queue.appendleft(call)  # it has waited before
        else:
            self.queue.append(call)
        return True

    def dispatch(self) -> None:
        """Sends what is queued and finds a lane."""
        self._dispatch_due = False
        if self.queue or self.blocked:
            self._send_queued(self._loop.time())
        for lane in (*self.lanes, *self.retiring):
            if lane.output is not _EMPTY:
                lane.flush()

    def _send_queued(self, now: float) -> None:
        queue = self.queue
        while queue and (lane := self.pick(now)) is not None:
            if group := self._take_group():
                lane.send(group, now)
        while self.blocked and (lane := self._pick_for_blocked()) is not None:
            call = self.blocked.popleft()
            if call.future.done():
                self._discard(call)
            else:
                lane.send((call,), now)
        if (queue or self.blocked) and self._wants_lane(now):
            self._grow(self)

    def pick(self, now: float) -> Lane | None:
        """The lane for the next group: of those that are open and not stale, the one with the fewest calls in flight.
        None where all are full, or where the group had better wait for more members.
        """
        best, least, busy = None, self.depth, 0
        for lane in self.lanes:
            if lane.state is not _OPEN:
                continue
            if not lane.groups:
                if self._grow_at:
                    return lane
                best, least = best if least == 0 else lane, 0
            elif now - lane.head_since < STALE_S:
                busy += 1
                if lane.in_flight < least:
                    best, least = lane, lane.in_flight
        if self._grow_at:
            if best is not None and least >= self._grow_at:
                self._grow(self)
            return best
        return best if best is not None and self._spreads(busy) else None

    def _spreads(self, busy: int) -> bool:
        """Whether the next group may take another lane while so many are busy."""
        return busy < FEW_LANES or len(self.queue) >= FULL_GROUP or self.max_group == 1 or self.queue[0].alone

    def expire(self, now: float) -> None:
        """Queued calls past their deadline, or whose caller is gone, leave."""
        for queue in (self.queue, self.blocked):
            while queue and (queue[0].future.done() or now > queue[0].deadline):
                call = queue.popleft()
                call.fail(Unavailable("no connection came free in time"))
                self._discard(call)

    def give_up(self, now: float) -> None:
        """One more attempt to connect has failed."""
        if self._hopeless(now):
            self._fail_queued("the database cannot be reached")

    def close(self, reason: str) -> None:
        """Sends nothing any more: what is queued fails, and so does what is submitted later."""
        self._closed = reason
        self._fail_queued(reason)

    def _fail_queued(self, reason: str) -> None:
        for queue in (self.queue, self.blocked):
            while queue:
                call = queue.popleft()
                call.fail(Unavailable(reason))
                self._discard(call)

    def _hopeless(self, now: float) -> bool:
        return self.down_since is not None and now - self.down_since > MAX_DOWN_S

    def _reject(self, call: Call, reason: str) -> bool:
        call.fail(Unavailable(reason))
        return False

    def _discard(self, call: Call) -> None:
        call.move(CallState.DONE)
        self._discarded(call)

    def _take_group(self) -> list[Call]:
        """The next members of one group; none where every caller is gone."""
        queue, group = self.queue, list[Call]()
        while queue and len(group) < self.max_group:
            call = queue[0]
            if call.alone and group:
                break
            queue.popleft()
            if call.future.done():
                self._discard(call)
                continue
            group.append(call)
            if call.alone:
                break
        if len(group) > 1:
            group.sort(key=_lock_order)
        return group

    def _pick_for_blocked(self) -> Lane | None:
        if self.blocked_lanes >= self._max_blocked:
            return None
        return next((lane for lane in self.lanes if lane.state is _OPEN and not lane.groups), None)

    @property
    def blocked_lanes(self) -> int:
        """Lanes on which a blocked call is in flight."""
        return sum(
            1
            for lane in (*self.lanes, *self.retiring)
            if lane.groups and lane.groups[0].calls and lane.groups[0].calls[0].delay is Delay.BLOCKED
        )

    @property
    def may_block(self) -> bool:
        """Whether one more blocked call may keep its lane."""
        return self.blocked_lanes < self._max_blocked

    def _wants_lane(self, now: float) -> bool:
        """Whether what is still queued asks for one lane more."""
        if self._grow_at or not self.queue:
            return True
        return self._spreads(sum(1 for lane in self.lanes if lane.groups and now - lane.head_since < STALE_S))
