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
    """For each row that a call writes: the calls that wait for it."""

    __slots__ = ("_max_queued", "_rows")

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued  # for one row
        self._rows: dict[Key, deque[Call]] = {}

    def __len__(self) -> int:
        """The calls that wait."""
        return sum(map(len, self._rows.values()))

    @property
    def rows(self) -> int:
        """The rows that a call holds."""
        return len(self._rows)

    def enter(self, key: Key, call: Call) -> bool:
        """Whether the call holds its row now. If not, it waits, or has failed because too many do."""
        queue = self._rows.get(key)
        if queue is None:
            self._rows[key] = deque()
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
        queue = self._rows[key]
        while queue:
            following = queue.popleft()
            if following.future.done():
                following.move(CallState.DONE)
                continue
            # The row is contended: what blocked the one before may block the next, and with it its whole group.
            following.alone = following.alone or call.alone
            return following
        del self._rows[key]
        return None

    def expire(self, now: float) -> None:
        """Calls whose caller is gone leave; calls past their deadline fail."""
        for queue in self._rows.values():
            while queue and (queue[0].future.done() or now > queue[0].deadline):
                call = queue.popleft()
                call.move(CallState.DONE)
                call.fail(TimedOut("the writes of the same row before it did not end in time"))
