"""Which requests begin at once, and which wait in the queue of their caller, so that no caller keeps the loop busy.

Requests wait at the cost of their memory. If what is above a share were rejected at once, a client with many
connections would send its next request at once, and rejections would be all that the loop does: with 1,000 of them in a
closed loop, another user's p99 went from 13 ms to 6 s. Must not import ASGI or the database.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from time import perf_counter, thread_time

MAX_TURN_WAIT_S = 2.0  # then the response is 429
MAX_UNQUEUED = 16  # requests of one user in flight: more than these begin in turns
HEAVY_S = 5.0  # a user who had more in flight is heavy for as long, or up to twice as long
ALONE = 1000  # requests in a row of heavy users: nobody else calls, and they need not leave time to others
MAX_UNPLACED = 4  # requests of one caller without a place that begin in PAUSE_S; more begin in turns

PAUSE_S = 0.001  # between two turns of a queue
MAX_BURST = 3  # requests that begin in one turn: a quarter of the gets that a worker can do
LATE_S = 0.0007  # of work for the loop between two turns, by which the next one is late: too much
OTHERS = 2  # a turn that is late by this is followed by a pause that is so many times as long

# Whether a request may begin: known now, or when it has its turn.
Begin = bool | asyncio.Future[bool]


class Queue:
    """Of one caller. In each turn some requests begin: one more than in the turn before, or half as many where that has
    kept the loop busy.
    """

    __slots__ = ("_burst", "_cpu_s", "_due", "_eases", "_ended", "_is_alone", "_loop", "_take", "waiting")

    def __init__(self, take: Callable[[], bool], is_alone: Callable[[], bool], ended: Callable[[], None]) -> None:
        """`take` takes a place if one is free, `is_alone` tells whether it need not leave time to others, `ended` is
        called when nothing waits any more.
        """
        # To each the time at which its wait ends. To find the first one, a dict would pass all that were deleted.
        self.waiting: OrderedDict[asyncio.Future[bool], float] = OrderedDict()
        self._take = take
        self._is_alone = is_alone
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._burst = 1
        self._eases = False  # the next turn follows a longer pause: being on time does not show that more could begin
        self._pause(PAUSE_S)

    def add(self) -> asyncio.Future[bool]:
        begin = self._loop.create_future()
        self.waiting[begin] = perf_counter() + MAX_TURN_WAIT_S
        begin.add_done_callback(self._forget)  # if its client goes
        return begin

    def close(self) -> None:
        """Ends the wait of all that wait: those begin for which there are places."""
        for begin in self.waiting:
            if not begin.done():
                begin.set_result(self._take())

    def _forget(self, begin: asyncio.Future[bool]) -> None:
        self.waiting.pop(begin, None)

    def _pause(self, seconds: float) -> None:
        self._eases = seconds > PAUSE_S
        self._due = perf_counter() + seconds
        self._cpu_s = thread_time()
        self._loop.call_later(seconds, self._turn)

    def _turn(self) -> None:
        now = perf_counter()
        pause = PAUSE_S
        if self._is_alone():
            self._begin(now, len(self.waiting))
        else:
            # By its CPU time, too: where other processes made it late, it does not help to begin less.
            late = min(now - self._due, thread_time() - self._cpu_s)
            if late > LATE_S:
                self._burst = max(1, self._burst // 2)
                pause += OTHERS * late
            elif not self._eases:
                self._burst = min(self._burst + 1, MAX_BURST)
            self._begin(now, self._burst)
        if self.waiting:
            self._pause(pause)
        else:
            self._ended()

    def _begin(self, now: float, left: int) -> None:
        while self.waiting and left:
            begin, end = next(iter(self.waiting.items()))
            if not begin.done():  # else its client has gone
                if end < now:
                    begin.set_result(False)
                elif self._take():
                    begin.set_result(True)
                else:
                    break
                left -= 1
            self.waiting.popitem(last=False)


class Turns:
    """The callers of one process. Users have a share of the places each; other callers take none."""

    __slots__ = (
        "_closed",
        "_counts",
        "_heavy",
        "_heavy_before",
        "_in_a_row",
        "_max_per_user",
        "_max_unqueued",
        "_max_waiting",
        "_queues",
        "_recent",
    )

    def __init__(self, max_per_user: int, max_waiting: int) -> None:
        """`max_per_user`: requests of one user in flight. `max_waiting`: requests of one caller that wait."""
        self._max_per_user = max_per_user
        self._max_waiting = max_waiting
        self._max_unqueued = min(MAX_UNQUEUED, max_per_user)
        self._counts: dict[str, int] = {}  # of users: requests in flight
        self._heavy: set[str] = set()  # users with more than MAX_UNQUEUED in this period of HEAVY_S
        self._heavy_before: set[str] = set()  # in the one before it
        self._in_a_row = 0  # requests of heavy users, since another one called
        self._recent: Counter[str] = Counter()  # of others: requests since the last pause
        self._queues: dict[str, Queue] = {}  # of users, and of others with a NUL in front, which no user's ID has
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    def enter(self, user_id: str) -> Begin:
        """Takes a place of this user's, to be given back with `leave`."""
        if user_id in self._heavy or user_id in self._heavy_before:
            self._in_a_row += 1
        else:
            self._in_a_row = 0
        count = self._counts.get(user_id, 0)
        if count < self._max_unqueued and (not self._queues or user_id not in self._queues):
            self._counts[user_id] = count + 1
            return True
        self._mark_heavy(user_id)
        if self._is_alone() and self._take(user_id):
            return True
        return self._queued(user_id, partial(self._take, user_id), self._is_alone)

    def leave(self, user_id: str) -> None:
        """Gives back a place."""
        count = self._counts[user_id]
        if count == 1:
            del self._counts[user_id]
        else:
            self._counts[user_id] = count - 1

    def pass_by(self, caller: str, *, limited: bool = True) -> Begin:
        """For a request that takes no place. Not `limited`: however many of this caller's wait."""
        if not self._recent:
            asyncio.get_running_loop().call_later(PAUSE_S, self._recent.clear)
        key = "\0" + caller
        self._recent[key] += 1
        if self._recent[key] <= MAX_UNPLACED and key not in self._queues:
            return True
        return self._queued(key, _always, _never, limited=limited)

    def close(self) -> None:
        """Ends the wait of all that wait, and lets none wait from now on: the server stops."""
        self._closed = True
        for queue in self._queues.values():
            queue.close()

    def _take(self, user_id: str) -> bool:
        count = self._counts.get(user_id, 0)
        if count >= self._max_per_user:
            return False
        self._counts[user_id] = count + 1
        return True

    def _is_alone(self) -> bool:
        return self._in_a_row > ALONE

    def _mark_heavy(self, user_id: str) -> None:
        if not self._heavy and not self._heavy_before:
            asyncio.get_running_loop().call_later(HEAVY_S, self._next_period)
        self._heavy.add(user_id)

    def _next_period(self) -> None:
        self._heavy_before, self._heavy = self._heavy, set()
        if self._heavy_before:
            asyncio.get_running_loop().call_later(HEAVY_S, self._next_period)

    def _queued(
        self, key: str, take: Callable[[], bool], is_alone: Callable[[], bool], *, limited: bool = True
    ) -> Begin:
        if self._closed:
            return take()
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(take, is_alone, partial(self._queues.__delitem__, key))
        elif limited and len(queue.waiting) >= self._max_waiting:
            return False
        return queue.add()


def _always() -> bool:
    return True


def _never() -> bool:
    return False
