"""Writes of the same row, one after the other.

Two writes of one row wait for each other in PostgreSQL anyway. Waiting here, they block no lane, are never members of
one transaction, and are not sent at all when their callers are gone by then. Must not import connections.
"""

from collections import deque

from service.database.call import Call, CallState
from service.database.failures import TimedOut, Unavailable
from service.database.statement import Value

Key = tuple[Value, ...]


class RowQueue:
    """The rows that calls write. One call holds a row, the others wait."""

    __slots__ = ("_max_queued", "held")

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued  # for one row
        self.held: dict[Key, deque[Call]] = {}  # by the row that a call holds: the calls behind it

    def __len__(self) -> int:
        """The calls that wait."""
        return sum(map(len, self.held.values()))

    def enter(self, key: Key, call: Call) -> bool:
        """Whether the call holds its row now. If not, it waits, or has failed because too many do."""
        queue = self.held.get(key)
        if queue is None:
            self.held[key] = deque()
            return True
        if len(queue) < self._max_queued:
            call.move(CallState.WAITING_FOR_ROW)
            queue.append(call)
        else:
            call.move(CallState.DONE)
            call.fail(Unavailable("too many calls wait for the same row"))
        return False

    def leave(self, key: Key, call: Call) -> Call | None:
        """The row's holder is done: the call that holds the row from now on, if one waits."""
        queue = self.held[key]
        while queue:
            following = queue.popleft()
            if following.future.done():
                following.move(CallState.DONE)
                continue
            # The row is contended: what blocked the one before may block the next, and with it its whole group.
            following.alone = following.alone or call.alone
            return following
        del self.held[key]
        return None

    def expire(self, now: float) -> None:
        """Calls whose caller is gone leave; calls past their deadline fail."""
        for queue in self.held.values():
            while queue and (queue[0].future.done() or now > queue[0].deadline):
                call = queue.popleft()
                call.move(CallState.DONE)
                call.fail(TimedOut("the writes of the same row before it did not end in time"))
