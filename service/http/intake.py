"""How many requests begin in one turn of the event loop, and whose come first.

A client with many connections can send on all of them at the same moment. To read a request and put it into its user's
queue takes 17 µs, so 600 of them kept the loop busy for 10 ms of CPU in one turn. Above a share they wait here as
bytes, in queues by what they ask for, and the queues have their turns. Must not import ASGI or the database.
"""

import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

log = logging.getLogger("uvicorn.error")

# Requests that are read at once within TURN_S, and in one turn of the queues: 1.1 ms. Fewer where they take longer than
# BUSY_S: a hostile head takes up to 2 ms. With 16 and 0.5 ms, 32 clients met the queues, and a get cost 5 % more.
MAX_READ = 64
BUSY_S = 0.002
# uvloop's clock stands still within a turn and goes by the millisecond; differences of floats can be a little less.
TURN_S = 0.0009


class Loop(Protocol):
    def time(self) -> float: ...
    def call_soon(self, callback: Callable[[], object], /) -> object: ...


class Reader(Protocol):
    """A connection whose bytes may begin a request."""

    @property
    def queue_key(self) -> object:
        """Requests with the same key wait in one queue."""
        ...

    def read_on(self) -> None:
        """It is its turn."""
        ...

    def abort(self) -> None:
        """Ends the connection."""
        ...


class Intake:
    """Of one event loop."""

    __slots__ = ("_begin", "_busy_at", "_loop", "_order", "_queues", "_read")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._begin = 0.0  # of the time in which `_read` requests were read at once
        self._read = 0
        self._busy_at = 0.0  # no more is read from then on, in that time
        self._queues: dict[object, deque[Reader]] = {}
        self._order: deque[object] = deque()  # the order in which the queues have their turns

    def admits(self, reader: Reader) -> bool:
        """Whether it may read now. If not, its `read_on` is called when it may."""
        now = self._loop.time()
        if now - self._begin >= TURN_S:
            self._begin = now
            self._read = 0
            self._busy_at = perf_counter() + BUSY_S
        self._read += 1
        at_once = self._read <= MAX_READ and (self._read == 1 or perf_counter() < self._busy_at)
        if at_once and not self._queues:
            return True
        key = reader.queue_key
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(reader)
            return False
        if at_once:
            return True
        if not self._queues:
            self._loop.call_soon(self._turn)
        self._queues[key] = deque((reader,))
        self._order.append(key)
        return False

    def _turn(self) -> None:
        try:
            self._read_some()
        finally:
            if self._order:
                self._loop.call_soon(self._turn)

    def _read_some(self) -> None:
        busy_at = perf_counter() + BUSY_S
        for _ in range(MAX_READ):
            key = self._order.popleft()
            queue = self._queues[key]
            reader = queue.popleft()
            if queue:
                self._order.append(key)
            else:
                del self._queues[key]
            try:
                reader.read_on()
            except Exception:  # the others need their turns
                log.exception("A connection failed when it was read\n")
                reader.abort()
            if not self._order or perf_counter() > busy_at:
                return
