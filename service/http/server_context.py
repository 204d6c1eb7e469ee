"""What the connections of one server share: the application, uvicorn's options, and one clock.

The clock ticks once a second while there are connections. It renews the `Date` line and makes each connection check its
time limits, so that HttpProtocol needs no timers and no help from the server that runs it.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import uvicorn
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string
from uvicorn.server import ServerState

from service.http.asgi import CAPACITY, REPORT, ASGIApp, Scope
from service.http.capacity import Capacity
from service.http.intake import Intake
from service.http.request_record import RequestRecord
from service.http.response_head import OWN_HEADERS, fields_of

log = logging.getLogger("uvicorn.error")

TICK_S = 1.0
UNCOUNTED_BYTES = 16 * 1024  # what a connection may keep unread or unsent, whatever the others keep


class Timed(Protocol):
    """A connection, as the clock knows it."""

    def expire(self, now: float) -> None:
        """Ends what has taken too long. `now` is monotonic time."""
        ...

    def abort(self) -> None:
        """Ends the connection with a reset."""
        ...


class ServerContext:
    """One for each `uvicorn.Server`. It holds no reference to the server's ServerState, so that it is freed with it."""

    def __init__(
        self, config: uvicorn.Config, state: ServerState, app_state: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        if not config.loaded:
            config.load()
        self.loop = loop
        self.app: ASGIApp = config.loaded_app  # pyright: ignore[reportUnknownMemberType]
        self.app_state = app_state
        self.asgi = {"version": config.asgi_version, "spec_version": "2.3"}
        self.tasks = state.tasks
        self.report: Callable[[RequestRecord], None] = app_state.get(REPORT, _unreported)
        # The application's. Another application than this service has none: then nothing is limited.
        self._capacity: Capacity = app_state.get(CAPACITY) or Capacity(0, max_per_user=0, max_buffered=sys.maxsize)
        self.large_work = self._capacity.large_work
        self.keep_alive_s = config.timeout_keep_alive
        self.root_path = config.root_path
        self.max_concurrency = config.limit_concurrency
        self.reset_contextvars = config.reset_contextvars
        self._access_log = logging.getLogger("uvicorn.access")
        self.logs_access = self._access_log.hasHandlers()
        self.intake = Intake(loop)
        self.now = time.monotonic()  # up to a second old
        # For every response: Date (RFC 9110, 6.6.1) and what uvicorn's option `headers` asks for.
        self.lines = b""
        self._added = b""
        try:
            self._added = fields_of(config.encoded_headers).lines
        except RuntimeError as error:  # without this, every connection would fail
            log.error("headers has no effect: %s", error)
        self._connections: set[Timed] = set()
        self._timer: asyncio.TimerHandle | None = None
        if config.h11_max_incomplete_event_size is not None:
            log.warning("h11_max_incomplete_event_size has no effect: HttpProtocol has its own limit on a head")
        if not config.date_header:
            log.warning("date_header=False has no effect: every response has a Date (RFC 9110, 6.6.1)")
        if OWN_HEADERS & {name for name, _ in config.encoded_headers}:
            log.warning("headers: HttpProtocol writes Connection, Content-Length, Date and Transfer-Encoding itself")
        if config.ws not in ("auto", "none"):
            log.warning("ws=%s has no effect: HttpProtocol serves HTTP only", config.ws)

    def add(self, connection: Timed) -> None:
        """The clock ticks for this connection from now on."""
        if self._timer is None:
            self._renew()
            self._timer = self.loop.call_later(TICK_S, self._tick)
        self._connections.add(connection)
        self._capacity.connections += 1

    def discard(self, connection: Timed) -> None:
        """The clock ticks no longer for this connection."""
        self._connections.discard(connection)
        self._capacity.connections -= 1

    def keep(self, more: int, size: int) -> bool:
        """Counts `more` bytes, or less if negative, that a connection keeps unread or unsent. False: the `size` bytes
        that it keeps now are too many, because the memory for such bytes is used up.
        """
        capacity = self._capacity
        capacity.buffered += more
        capacity.kept += more
        if more <= 0 or size <= UNCOUNTED_BYTES or capacity.kept <= capacity.max_kept:
            return True
        capacity.rejected["memory"] += 1
        return False

    def log_access(self, scope: Scope, status: int) -> None:
        """uvicorn's access log."""
        request: Any = scope
        self._access_log.info(
            '%s - "%s %s HTTP/%s" %d',
            get_client_addr(request),
            scope["method"],
            get_path_with_query_string(request),
            scope["http_version"],
            status,
        )

    def _tick(self) -> None:
        try:
            self._renew()
            for connection in list(self._connections):
                try:
                    connection.expire(self.now)
                except Exception:  # the application's `report`, for one; the other connections need their clock
                    log.exception("A connection failed when its time was checked\n")
                    connection.abort()
        finally:
            self._timer = self.loop.call_later(TICK_S, self._tick) if self._connections else None

    def _renew(self) -> None:
        self.now = time.monotonic()
        self.lines = b"date: %b\r\n%b" % (formatdate(time.time(), usegmt=True).encode(), self._added)


_contexts: WeakKeyDictionary[ServerState, ServerContext] = WeakKeyDictionary()


def context_of(
    config: uvicorn.Config, state: ServerState, app_state: dict[str, Any], loop: asyncio.AbstractEventLoop
) -> ServerContext:
    """The context of the server that has this state."""
    context = _contexts.get(state)
    if context is None:
        context = _contexts[state] = ServerContext(config, state, app_state, loop)
    return context


def _unreported(_: object) -> None:
    """The application has left no REPORT."""
