"""A TCP connection: its states, its time limits, and back-pressure both ways.

What the bytes mean is the subclass's part: service.http.protocol. Must not import that.
"""

import asyncio
import socket
import struct
from abc import ABC, abstractmethod
from enum import IntEnum, auto
from typing import Any, cast

from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from service.http.server_context import ServerContext
from service.http.write_rate import WriteRate

HEAD_S = 10.0  # from the first byte of a head to its last
SKIP_S = 2.0  # for the rest of an unread body, so that its sender still gets the response
STOP_IDLE_S = 0.5  # for a request that is on its way when the server stops
HALF_CLOSED_S = 1.0  # for a response to a client that has closed its side, as clients that are gone have, too


class State(IntEnum):
    """Of a connection. README.md has the diagram."""

    IDLE = auto()  # the next request may come
    HEAD = auto()  # a part of a head is here
    BODY = auto()  # the application runs; a part of the body is here
    RESPONSE = auto()  # the application runs; the request is here as a whole
    SKIP = auto()  # the response is written; the rest of the body is read and dropped
    BLOCKED = auto()  # the response is written, but the client does not take it
    LINGER = auto()  # the last response is written and our side closed; what comes is dropped, lest it cause a reset
    CLOSING = auto()  # what is written is being sent; nothing is read
    CLOSED = auto()


# To look a member up in its class costs 0.07 µs each time: these are what a request meets.
IDLE, HEAD, BODY, RESPONSE, SKIP, BLOCKED, LINGER, CLOSING, CLOSED = State
_END = {CLOSING, CLOSED}
TRANSITIONS: dict[State, set[State]] = {
    IDLE: {HEAD, BODY, RESPONSE, LINGER, *_END},
    HEAD: {BODY, RESPONSE, LINGER, *_END},
    BODY: {RESPONSE, SKIP, LINGER, *_END},
    RESPONSE: {IDLE, BLOCKED, LINGER, *_END},
    SKIP: {IDLE, BLOCKED, LINGER, *_END},
    BLOCKED: {IDLE, *_END},
    LINGER: _END,
    CLOSING: {CLOSED},
    CLOSED: set(),
}
# Seconds after which a state ends the connection; 0: none. IDLE has uvicorn's timeout_keep_alive. While a response is
# sent, WriteRate bounds the time.
_TIME_LIMITS = dict.fromkeys(State, 0.0) | {HEAD: HEAD_S, SKIP: SKIP_S, LINGER: SKIP_S}
BETWEEN_REQUESTS = (IDLE, HEAD)
APPLICATION_RUNS = (BODY, RESPONSE)


class Connection(asyncio.Protocol, ABC):
    """A subclass reads these, and changes `truncated`, `may_end` and, by `enter`, `state`:

    - `server`, `client`, `scheme`: ASGI's, of this connection. `connections`: all of the server's.
    - `reading`: whether bytes are taken from the socket.
    - `drained`: a future while the client does not take what it is sent; done when it has.
    - `half_closed`: the client has closed its side.
    - `truncated`: the rest of the current request will never come.
    - `may_end`: whether `is_last_response` has to be asked, which costs more.
    """

    def __init__(self, context: ServerContext, connections: set[Any]) -> None:
        self.context = context
        self.transport: asyncio.Transport
        self.state = IDLE
        self.connections = connections
        self.server: tuple[str, int | None] | None = None
        self.client: tuple[str, int] | None = None
        self.scheme = "http"
        self.reading = True
        self.drained: asyncio.Future[None] | None = None
        self.half_closed = False
        self.truncated = False
        self.may_end = False
        self._kept = 0  # bytes that wait to be read, and are counted as buffered
        self._unsent = 0  # bytes that wait for the client, in the same way
        self._stopping = False
        self._deadline = 0.0  # monotonic time at which `expire` ends the state; 0: none
        self._written = 0  # bytes given to the transport
        self._rate = WriteRate()
        self._keep_alive_s = context.keep_alive_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.server = get_local_addr(self.transport)
        self.client = get_remote_addr(self.transport)
        self.scheme = "https" if is_ssl(self.transport) else "http"
        self.connections.add(self)
        self.context.add(self)
        self._deadline = self.context.now + self._keep_alive_s

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.context.discard(self)
        self.count_kept(0)
        self._count_unsent(0)
        self.enter(CLOSED)
        self.resume_writing()
        self.abandon()

    # What a subclass defines ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def unread_bytes(self) -> int:
        """Bytes that are here and belong to later requests."""

    @property
    @abstractmethod
    def has_started(self) -> bool:
        """Whether a part of the current response is written."""

    @property
    @abstractmethod
    def rest_is_small(self) -> bool:
        """Whether it costs less to read what is left of the body than to connect again."""

    @abstractmethod
    def response_ended(self) -> None:
        """The response to the current request is written."""

    @abstractmethod
    def unblocked(self) -> None:
        """The client has taken its responses: on to the next request."""

    @abstractmethod
    def head_timed_out(self) -> None:
        """A part of a head has waited too long for the rest."""

    @abstractmethod
    def abandon(self) -> None:
        """The connection is lost: nobody waits for the current response."""

    # States --------------------------------------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        return self.state is CLOSED

    @property
    def has_unread(self) -> bool:
        return self.unread_bytes > 0

    @property
    def is_last_response(self) -> bool:
        """Whether no other request comes behind the current one."""
        return self.truncated or ((self.half_closed or self._stopping) and not self.has_unread)

    def enter(self, state: State) -> None:
        """Changes the state, and sets its time limit. Raises RuntimeError for a state that cannot follow."""
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a connection goes from {self.state.name} to {state.name}")
        self.state = state
        if state is IDLE:
            self._deadline = self.context.now + self._keep_alive_s
        else:
            limit = _TIME_LIMITS[state]
            self._deadline = self.context.now + limit if limit else 0.0

    def close(self) -> None:
        """Ends the connection when what was written is sent."""
        if self.state not in _END:
            self.enter(CLOSING)
            self.transport.close()

    def linger(self) -> None:
        """Ends the connection so that the client gets what was written (RFC 9112, 9.6): closing while it still sends
        makes the kernel reset the connection, and the response is lost.
        """
        if self.half_closed:
            self.close()
            return
        self.enter(LINGER)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume_reading()

    def abort(self) -> None:
        """Ends the connection with a reset. If it were just closed, the kernel would go on sending the megabytes
        that it holds, and a client of HTTP/1.0 would take a part of a response for the whole.
        """
        peer = self.transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def eof_received(self) -> bool:
        """A client may close its side once its request is sent, and still want the response; more likely it is gone."""
        self.half_closed = self.may_end = True
        if self.state in (RESPONSE, BLOCKED) and self.scheme == "http":
            self._deadline = self.context.now + HALF_CLOSED_S
            return True
        return False

    def pause_writing(self) -> None:
        self.drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self.drained is not None:
            if not self.drained.done():
                self.drained.set_result(None)
            self.drained = None
            if self.state is BLOCKED:
                self.unblocked()

    def write(self, data: bytes | memoryview) -> None:
        self._written += len(data)
        self.transport.write(data)

    def pause_reading(self) -> None:
        if self.reading and self.state not in _END:
            self.reading = False
            self.transport.pause_reading()
            self.count_kept(self.unread_bytes)

    def resume_reading(self) -> None:
        if not self.reading and self.state not in _END:
            self.reading = True
            self.transport.resume_reading()
            self.count_kept(0)

    def count_kept(self, unread: int) -> None:
        """So many bytes wait to be read: they count, in place of those that did. Ends the connection where they are too
        many.
        """
        more, self._kept = unread - self._kept, unread
        if more and not self.context.keep(more, unread):
            self.abort()

    def _count_unsent(self, unsent: int) -> None:
        more, self._unsent = unsent - self._unsent, unsent
        if more and not self.context.keep(more, unsent):
            self.abort()

    def shutdown(self) -> None:
        """The server stops: the connection ends after its next response, or soon if no request comes."""
        self._stopping = self.may_end = True
        if self.state in BETWEEN_REQUESTS:
            # Not at once: a request may be on its way, and would be lost.
            self.context.loop.call_later(STOP_IDLE_S, self._close_between_requests)

    def _close_between_requests(self) -> None:
        if self.state in BETWEEN_REQUESTS:
            self.close()

    def expire(self, now: float) -> None:
        """Ends what has taken too long. Called by the context's clock."""
        if not self.has_started:  # else its body counts
            self._count_unsent(self.transport.get_write_buffer_size())
        if self._rate.too_slow(now, self.transport, self._written):
            self.abort()
        elif 0 < self._deadline < now:
            if self.state is HEAD:
                self.head_timed_out()
            elif self.state not in APPLICATION_RUNS or not self.has_started:
                self.close()
