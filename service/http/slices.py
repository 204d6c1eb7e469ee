"""Work on large bodies in slices of the event loop's time, so that other requests go on.

Must not import ASGI or the database.
"""

import asyncio
from collections import deque
from time import perf_counter
from weakref import WeakValueDictionary

# How long large work may keep the event loop busy at once. Then it pauses for as long, whatever the number of requests:
# with a pause for each of them, 16 batches at a time moved other users' p99 from 4 ms to 3.5 s. sleep(0) would be too
# short: a get takes five turns of the loop, so five slices would delay it.
SLICE_S = 0.002
# Large statements at the database at once, of different users. To hand 8 MiB to libpq, and to take 1000 rows, keeps the
# event loop busy for 5 to 10 ms each, and cannot be sliced: of 16 at once it was 85 ms.
MAX_WRITES = 2


class LargeWork:
    """Of one process. One slice runs at a time, and the users whose requests wait for one have their turns."""

    __slots__ = ("_free_at", "_queues", "_writers", "writes")

    def __init__(self) -> None:
        self.writes = asyncio.Semaphore(MAX_WRITES)
        self._writers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._free_at = 0.0  # when it has paused for as long as it has run
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # by user, in the order of their turns

    def writer(self, user_id: str) -> asyncio.Lock:
        """The lock that a user's large statement holds. To be taken before a place in `writes`, so that one user takes
        one of those only.
        """
        lock = self._writers.get(user_id)
        if lock is None:
            lock = self._writers[user_id] = asyncio.Lock()
        return lock

    def spend(self, since: float, seconds: float) -> None:
        """A slice, or a part of one, has run from `since` on for so long."""
        self._free_at = max(self._free_at, since) + 2 * seconds

    def must_wait(self, now: float) -> bool:
        """Whether a slice has to wait before it begins or goes on."""
        return bool(self._queues) or self._free_at - now > SLICE_S

    def turn(self, user_id: str) -> "asyncio.Future[None]":
        """Done when it is the turn of this user's next slice."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        if not self._queues:
            loop.call_soon(self._next)
        self._queues.setdefault(user_id, deque()).append(turn)
        return turn

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._free_at - perf_counter()
        if left > 0:
            loop.call_later(left, self._next)
            return
        while self._queues:
            user_id = next(iter(self._queues))
            queue = self._queues.pop(user_id)
            turn = queue.popleft()
            if queue:
                self._queues[user_id] = queue  # behind the others
            if not turn.done():  # else its client has gone
                turn.set_result(None)
                break
        if self._queues:
            loop.call_soon(self._next)  # runs after that slice


class Slices:
    """Of one request."""

    __slots__ = ("_since", "_user_id", "_work")

    def __init__(self, work: LargeWork, user_id: str) -> None:
        self._work = work
        self._user_id = user_id
        self._since = 0.0

    async def begin(self) -> None:
        """To be called before work that pauses, and again behind each wait for something else."""
        self._since = perf_counter()
        if self._work.must_wait(self._since):
            await self._wait()

    async def pause(self) -> None:
        """To be called between steps of less than SLICE_S and after the last one: pauses where the slice is used up."""
        now = perf_counter()
        self._work.spend(self._since, now - self._since)
        self._since = now
        if self._work.must_wait(now):
            await self._wait()

    def spend(self, seconds: float) -> None:
        """Counts work that the event loop did for this request elsewhere."""
        self._work.spend(perf_counter() - seconds, seconds)

    async def _wait(self) -> None:
        await self._work.turn(self._user_id)
        self._since = perf_counter()
