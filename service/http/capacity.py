"""What a process may use at once: places for requests, a share of them for each user, and bytes of bodies and buffers.

Above a limit a request is rejected at once, so that what was accepted still meets its deadline. Must not import ASGI
or the database.
"""

from collections import Counter

from service.http import errors
from service.http.slices import LargeWork
from service.http.turns import Turns

WAIT_BYTES = 16 * 1024  # what a request that waits for a place or for its body takes of memory (measured: 11 kB)
REASONS = ("in_flight", "user", "memory")  # why a request found no room


class Capacity:
    """Counts what is in use. `rejected` counts by reason what found no room."""

    __slots__ = (
        "buffered",
        "connections",
        "held_by",
        "in_flight",
        "kept",
        "large_work",
        "max_buffered",
        "max_held",
        "max_in_flight",
        "max_kept",
        "rejected",
        "turns",
    )

    def __init__(self, max_in_flight: int, *, max_per_user: int, max_buffered: int) -> None:
        """`max_buffered` is in bytes."""
        self.max_in_flight = max_in_flight
        self.max_buffered = max_buffered
        self.in_flight = 0
        self.buffered = 0
        self.held_by: Counter[str] = Counter()  # by user: bytes of bodies and buffers
        self.max_held = max_buffered // 4  # of one user
        self.kept = 0  # of these: bytes that connections keep, of heads that are not complete or behind a response
        # Not all: else clients that send no request would leave no memory for those of others.
        self.max_kept = max_buffered // 4
        self.large_work = LargeWork()
        self.connections = 0  # open, counted by the server; each may be idle
        self.rejected: Counter[str] = Counter()
        # One caller's waiting requests may take a quarter of the memory, as one user may of the places by default.
        self.turns = Turns(max_per_user, max_waiting=max_buffered // 4 // WAIT_BYTES)

    def reject_request(self) -> errors.ApiError:
        """The error (503) for a request above `max_in_flight`."""
        self.rejected["in_flight"] += 1
        return errors.unavailable()

    def reject_caller(self) -> errors.ApiError:
        """The error (429) for a request above its caller's share."""
        self.rejected["user"] += 1
        return errors.too_many_requests()

    def hold(self, user_id: str, size: int) -> None:
        """Counts bytes that one user's requests hold, or less if negative."""
        self.held_by[user_id] += size
        if not self.held_by[user_id]:
            del self.held_by[user_id]

    def check_memory(self, size: int) -> None:
        """Raises ApiError (503) where `size` more bytes are too many."""
        if self.buffered + size > self.max_buffered:
            self.rejected["memory"] += 1
            raise errors.unavailable()
