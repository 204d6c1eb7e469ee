"""One connection of the generator: a non-blocking socket, TLS where the URL says https, and httptools' parser, which
takes every framing that HTTP/1.1 has.
"""

import socket
import ssl
from enum import Enum, auto
from typing import NamedTuple

import httptools

CHUNK = 262_144
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class State(Enum):
    DOWN = auto()  # to be opened again
    CONNECTING = auto()
    HANDSHAKE = auto()
    IDLE = auto()
    BUSY = auto()  # a request is in flight


class Place(NamedTuple):
    """Where a URL leads. `tls` is None for http."""

    family: int
    address: tuple[str | int | bytes, ...]
    name: str
    tls: ssl.SSLContext | None


class ConnectionFailed(Exception):
    """The connection is of no more use. The text is the outcome that the report counts."""


class Connection:
    __slots__ = (
        *("complete", "due", "operation", "parser", "place", "received", "reusable", "since", "size", "socket"),
        *("state", "status", "unsent", "wants_to_write"),
    )

    def __init__(self, place: Place) -> None:
        self.place = place
        self.state = State.DOWN
        self.socket: socket.socket | ssl.SSLSocket | None = None
        self.since = 0.0  # when the state began that has a time limit
        self.due = 0.0
        self.operation = ""

    def open(self) -> None:
        """Starts to connect. Raises ConnectionFailed."""
        opened = socket.socket(self.place.family, socket.SOCK_STREAM)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        self.socket = opened
        self.state = State.CONNECTING
        self.parser = httptools.HttpResponseParser(self)
        self.unsent = b""
        self.wants_to_write = True
        try:
            opened.connect(self.place.address)
        except BlockingIOError:
            pass
        except OSError as error:
            raise ConnectionFailed(_connect_error(error)) from None

    def advance(self) -> bool:
        """Goes on connecting after the socket's readiness. Returns whether requests can be sent. Raises
        ConnectionFailed.
        """
        assert self.socket is not None
        if self.state is State.CONNECTING:
            if number := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise ConnectionFailed(_connect_error(OSError(number, "")))
            if self.place.tls is not None:
                self.socket = self.place.tls.wrap_socket(
                    self.socket, server_hostname=self.place.name, do_handshake_on_connect=False
                )
            self.state = State.HANDSHAKE
        self.wants_to_write = False
        if isinstance(self.socket, ssl.SSLSocket):
            try:
                self.socket.do_handshake()
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLWantWriteError:
                self.wants_to_write = True
                return False
            except ssl.SSLCertVerificationError as error:
                raise ConnectionFailed(f"TLS: {error.verify_message}") from None
            except (OSError, ValueError) as error:
                raise ConnectionFailed(f"TLS: {getattr(error, 'reason', None) or error}") from None
        self.state = State.IDLE
        return True

    def send(self, request: bytes) -> None:
        """Sends a request, or as much of it as goes out now. Raises ConnectionFailed."""
        self.state = State.BUSY
        self.complete = False
        self.received = b""
        self.size = 0
        self.unsent = request
        self.flush()

    def flush(self) -> None:
        assert self.socket is not None
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except WOULD_BLOCK:
            pass
        except OSError as error:
            raise ConnectionFailed(_lost(error)) from None
        self.wants_to_write = bool(self.unsent)

    def receive(self) -> bool:
        """Reads what has come. Returns whether the response is complete: then `status` is set, and `reusable` says
        whether another request may follow. Raises ConnectionFailed, also for what comes on an idle connection.
        """
        assert self.socket is not None
        while True:
            try:
                data = self.socket.recv(CHUNK)
            except WOULD_BLOCK:
                return False
            except OSError as error:
                raise ConnectionFailed(_lost(error)) from None
            if self.state is not State.BUSY:
                raise ConnectionFailed("closed by the server")
            if not data:
                return self._end()
            self.size += len(data)
            if not self.received:
                self.received = data
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                raise ConnectionFailed("the response is not HTTP/1.1") from None
            if self.complete:
                return True
            if self.place.tls is None:
                return False

    def _end(self) -> bool:
        """The server has closed its side. That ends the body of a response without a length (RFC 9112, 6.3)."""
        head, found, _ = self.received.lower().partition(b"\r\n\r\n")
        if not found or b"\r\ncontent-length:" in head or b"\r\ntransfer-encoding:" in head:
            raise ConnectionFailed("closed by the server")
        self.status = self.parser.get_status_code()
        self.reusable = False
        self.complete = True
        return True

    def on_message_complete(self) -> None:
        """Called by the parser. Statuses below 200 come before the response. `should_keep_alive` holds only here: next,
        llhttp resets the flags that it is made of, and then says no.
        """
        status = self.parser.get_status_code()
        if status >= 200:
            self.status = status
            self.reusable = bool(self.parser.should_keep_alive())
            self.complete = True

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        self.state = State.DOWN


def _connect_error(error: OSError) -> str:
    name = {111: "connection refused", 110: "connect timed out", 113: "no route to the host"}.get(error.errno or 0)
    return name or f"connect failed (error {error.errno})"


def _lost(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "closed by the server" if isinstance(error, ssl.SSLEOFError) else f"TLS: {error.reason}"
    return "connection reset" if isinstance(error, ConnectionError) else f"connection lost (error {error.errno})"
