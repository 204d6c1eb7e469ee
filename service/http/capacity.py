"""What a process may use at once: places for requests, a share of them for each user, and bytes of bodies and buffers.

Above a limit a request is rejected at once, so that what was accepted still meets its deadline. Must not import ASGI,
tasks or the database.
"""

from collections import Counter

from service.http import errors

REASONS = ("in_flight", "user", "memory")  # why a request found no room


class Capacity:
    """Counts what is in use. `rejected` counts by reason what found no room."""

    __slots__ = (
        "_users",
        "buffered",
        "connections",
        "in_flight",
        "max_buffered",
        "max_in_flight",
        "max_per_user",
        "rejected",
    )

    def __init__(self, max_in_flight: int, *, max_per_user: int, max_buffered: int) -> None:
        """`max_buffered` is in bytes."""
        self.max_in_flight = max_in_flight
        self.max_per_user = max_per_user
        self.max_buffered = max_buffered
        self.in_flight = 0
        self.buffered = 0
        self.connections = 0  # open, counted by the server; each may be idle
        self.rejected: Counter[str] = Counter()
        self._users: dict[str, int] = {}

    def check_places(self) -> None:
        """Raises ApiError (503) where more are in flight than may be, the request that asks included."""
        if self.in_flight > self.max_in_flight:
            self.rejected["in_flight"] += 1
            raise errors.unavailable()

    def enter_user(self, user_id: str) -> None:
        """Raises ApiError (429) where this user has the whole share of one user."""
        count = self._users.get(user_id, 0)
        if count >= self.max_per_user:
            self.rejected["user"] += 1
            raise errors.too_many_requests()
        self._users[user_id] = count + 1

    def leave_user(self, user_id: str) -> None:
        """Gives back what `enter_user` took."""
        count = self._users[user_id]
        if count == 1:
            del self._users[user_id]
        else:
            self._users[user_id] = count - 1

    def check_memory(self, size: int) -> None:
        """Raises ApiError (503) where `size` more bytes are too many."""
        if self.buffered + size > self.max_buffered:
            self.rejected["memory"] += 1
            raise errors.unavailable()
