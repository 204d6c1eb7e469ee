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
# Large statements at the database at once, as (of one user, of all). To hand 8 MiB to libpq, or to take 1000 rows of a
# batch or 250 of a page, keeps the event loop busy for 3 to 10 ms and cannot be sliced: of 16 batches it was 85 ms.
MAX_WRITES = (1, 2)
MAX_READS = (2, 4)  # of users whose pages took longer than this to take and encode, for so long after the last one
LARGE_READ_S = 0.001
READER_S = 10.0


class LargeStatements:
    """Those of one kind, which are few at a time."""

    __slots__ = ("_max_of_user", "_of_user", "of_all")

    def __init__(self, max_of_user: int, max_of_all: int) -> None:
        self.of_all = asyncio.Semaphore(max_of_all)
        self._max_of_user = max_of_user
        self._of_user: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of_user(self, user_id: str) -> asyncio.Semaphore:
        """To be acquired before `of_all`, so that one user's statements that wait keep none of those."""
        semaphore = self._of_user.get(user_id)
        if semaphore is None:
            semaphore = self._of_user[user_id] = asyncio.Semaphore(self._max_of_user)
        return semaphore


class LargeWork:
    """Of one process. One slice runs at a time, and the users whose requests wait for one have their turns."""

    __slots__ = ("_free_at", "_queues", "_readers", "reads", "writes")

    def __init__(self) -> None:
        self.reads = LargeStatements(*MAX_READS)
        self.writes = LargeStatements(*MAX_WRITES)
        self._readers: set[str] = set()  # users with large pages
        self._free_at = 0.0  # when it has paused for as long as it has run
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # by user, in the order of their turns

    def spend(self, since: float, seconds: float) -> None:
        """A slice, or a part of one, has run from `since` on for so long."""
        self._free_at = max(self._free_at, since) + 2 * seconds

    def note_read(self, user_id: str, seconds: float) -> None:
        """A page of this user's takes so long."""
        if seconds > LARGE_READ_S:
            if not self._readers:
                asyncio.get_running_loop().call_later(READER_S, self._readers.clear)
            self._readers.add(user_id)

    def reads_much(self, user_id: str) -> bool:
        """Whether this user has had large pages of late. How large the next one is, only PostgreSQL knows."""
        return user_id in self._readers

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
