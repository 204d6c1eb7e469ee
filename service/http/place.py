"""What one request uses of the process's capacity: a place, one of its user's share, and bytes of memory.

Must not import tasks or the database.
"""

import asyncio
from asyncio import Future
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from time import perf_counter

from service.http.asgi import Headers
from service.http.capacity import WAIT_BYTES, Capacity
from service.http.limits import BODY_BYTES
from service.http.slices import LargeStatements, Slices

MAX_STATEMENT_WAIT_S = 10.0  # for the large statements of the same user, and of others


class Place:
    """Made by load shedding when a request begins, given back as a whole with `leave` when it has ended."""

    __slots__ = ("_capacity", "_held", "_held_of_share", "_sharer", "_slices", "_yielded", "waited_s")

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        capacity.in_flight += 1
        self.waited_s = 0.0  # for a turn: seconds for which the service let the client wait
        self._yielded = False
        self._held = 0  # bytes
        self._held_of_share = 0  # of these, those that count as the user's
        self._slices: Slices | None = None
        self._sharer: str | None = None  # the user of whose share it has a place

    @property
    def slices(self) -> Slices:
        """The request's slices of the event loop's time, for work on large bodies."""
        if self._slices is None:
            self._slices = Slices(self._capacity.large_work, self._sharer or "")
        return self._slices

    def enter_user(self, user_id: str) -> "Future[bool] | None":
        """Takes a place of that user's share. Not None: `wait_for_user` has to be called with it. Raises ApiError (429)
        where that user has too many requests in flight.
        """
        begin = self._capacity.turns.enter(user_id)
        if begin is True:
            self._sharer = user_id
            return None
        if begin is False:
            raise self._capacity.reject_caller()
        return begin

    async def wait_for_user(self, user_id: str, begin: "Future[bool]", headers: Headers) -> None:
        """Waits until a place of the share is free. `headers` are the request's. Raises ApiError: 429 where none became
        free, 503 where there is no memory or no place for any user.
        """
        try:
            await self._wait(begin, headers)
        finally:
            if begin.done() and not begin.cancelled() and begin.result():
                self._sharer = user_id
        if self._sharer is None:
            raise self._capacity.reject_caller()
        self.retake()

    async def await_turn(self, caller: str, headers: Headers, *, check: bool = True) -> None:
        """Waits for the turn of a caller whose request needs no place of a user, or none any more. Raises ApiError
        where it may not wait: 429 where too many of that caller's requests do, 503 where there is no memory; unless
        told not to check.
        """
        begin = self._capacity.turns.pass_by(caller, limited=check)
        if begin is False:
            raise self._capacity.reject_caller()
        if begin is not True:
            self._leave_share()
            await self._wait(begin, headers, check=check)

    async def _wait(self, begin: "Future[bool]", headers: Headers, *, check: bool = True) -> None:
        since = perf_counter()
        self.give_back()
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
        size = WAIT_BYTES + (BODY_BYTES if has_body else 0)  # so much of a body is here while nobody reads it
        try:
            self.hold(size, check=check)
            await begin
        finally:
            begin.cancel()
            self.waited_s += perf_counter() - since
        self.drop(size)

    def large_write(self) -> AbstractAsyncContextManager[None]:
        """Around a statement with a large value or many rows: few run at a time. Raises ApiError: 429 where its turn
        does not come, 503 where there is no place.
        """
        return self._large_statement(self._capacity.large_work.writes)

    @property
    def must_wait(self) -> bool:
        """Whether large work of this request would have to wait for that of others. Costs less than `slices`."""
        return self._capacity.large_work.must_wait(perf_counter())

    @property
    def reads_much(self) -> bool:
        """Whether a page has to be read within `large_read`."""
        return self._capacity.large_work.reads_much(self._sharer or "")

    def large_read(self, *, check: bool = True) -> AbstractAsyncContextManager[None]:
        """As `large_write`, around the read of a page. Raises nothing if told not to check."""
        return self._large_statement(self._capacity.large_work.reads, check=check)

    def count_read(self, seconds: float) -> None:
        """The page that was read takes so much of the event loop's time."""
        self.slices.spend(seconds)
        self._capacity.large_work.note_read(self._sharer or "", seconds)

    @asynccontextmanager
    async def _large_statement(self, statements: LargeStatements, *, check: bool = True) -> AsyncGenerator[None]:
        of_user = statements.of_user(self._sharer or "")
        since = perf_counter()
        async with AsyncExitStack() as stack:
            if of_user.locked() or statements.of_all.locked():
                self.give_back()
            try:
                async with asyncio.timeout(MAX_STATEMENT_WAIT_S if check else None):
                    await stack.enter_async_context(of_user)
                    await stack.enter_async_context(statements.of_all)
            except TimeoutError:
                raise self._capacity.reject_caller() from None
            finally:
                self.waited_s += perf_counter() - since
            self.retake(check=check)
            yield

    def give_back(self) -> None:
        """Gives the place back while the request waits for something outside the service."""
        if not self._yielded:
            self._yielded = True
            self._capacity.in_flight -= 1

    def retake(self, *, check: bool = True) -> None:
        """Takes a place again. Raises ApiError (503) where there is none, unless told not to check."""
        if self._yielded:
            capacity = self._capacity
            self._yielded = False
            capacity.in_flight += 1
            if check and capacity.in_flight > capacity.max_in_flight:
                raise capacity.reject_request()

    def hold(self, size: int, *, check: bool = True) -> None:
        """Counts bytes of a body or buffer. Raises ApiError, unless told not to check: 503 where they are too many, 429
        where they are with those of the user's other requests.
        """
        capacity, user_id = self._capacity, self._sharer
        if check:
            capacity.check_memory(size)
        if user_id is not None:
            held = capacity.held_by[user_id]
            if check and held > self._held_of_share and held + size > capacity.max_held:
                raise capacity.reject_caller()
            capacity.hold(user_id, size)
            self._held_of_share += size
        self._held += size
        capacity.buffered += size

    def drop(self, size: int) -> None:
        """Bytes that `hold` counted are free again."""
        self._held -= size
        self._capacity.buffered -= size
        if self._sharer is not None:
            size = min(size, self._held_of_share)
            self._held_of_share -= size
            self._capacity.hold(self._sharer, -size)

    def leave(self) -> None:
        """Gives back everything: the request has ended."""
        if not self._yielded:
            self._capacity.in_flight -= 1
        if self._held:
            self.drop(self._held)
        if self._sharer is not None:
            self._capacity.turns.leave(self._sharer)

    def _leave_share(self) -> None:
        if self._sharer is not None:
            self._capacity.turns.leave(self._sharer)
            if self._held_of_share:
                self._capacity.hold(self._sharer, -self._held_of_share)
                self._held_of_share = 0
            self._sharer = None
