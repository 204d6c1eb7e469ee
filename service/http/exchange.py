"""One request and its response: what ASGI calls `scope`, `receive` and `send`.

Knows what a connection offers, not how it reads.
"""

import asyncio
from collections.abc import Sequence
from enum import IntEnum, auto
from http import HTTPStatus

from service.http.asgi import WHOLE_BYTES, Header, Lines, Message, Scope
from service.http.connection import Connection
from service.http.head import RequestHead
from service.http.request_record import RequestRecord
from service.http.response_head import STATUSES, fields_of, response_head

MAX_HELD_BYTES = 64 * 1024  # of a body, for the application; above it, reading pauses

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT, HTTPStatus.NOT_MODIFIED)
_DISCONNECT: Message = {"type": "http.disconnect"}


class ResponseState(IntEnum):
    NOT_STARTED = auto()
    STARTED = auto()  # its head is written
    ENDED = auto()


NOT_STARTED, STARTED, ENDED = ResponseState  # see connection.IDLE


class Exchange:
    """`task` runs the application. `keep_alive`: whether another request may follow."""

    # Most requests have no body, and most responses are whole, so most exchanges never look at these.
    task: asyncio.Task[None] | None = None
    _held = 0  # bytes of the body that are here
    _asked = False  # the application wants the body
    _given = False  # the last piece of the body was given to the application
    _waiter: asyncio.Future[None] | None = None
    _head: tuple[int, list[Header]] | None = None  # of a response that has not started
    _remaining: int | None = None  # of the response's Content-Length

    def __init__(self, connection: Connection, request: RequestHead, scope: Scope) -> None:
        self._connection = connection
        self.state = NOT_STARTED
        self.request = request
        self.scope = scope
        self.record = scope["record"] = RequestRecord(request.method, request.headers, self.respond)
        framing = request.framing
        self.keep_alive = framing.keep_alive
        self._expects_continue = framing.expects_continue
        self.complete = not framing.length  # the whole request is here
        self._pieces: list[bytes] = []  # of the body
        self._chunked = False

    # The request ------------------------------------------------------------------------------------------------

    def feed(self, pieces: Sequence[bytes]) -> None:
        """Pieces of the body have come."""
        if self.state is ENDED:
            return
        # Joined now: as a list of chunks of 2 bytes, 64 KiB took 1.4 MB while the request waited.
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces.append(piece)
        self._held += len(piece)
        if self.is_full:
            self._connection.pause_reading()
        self.wake()

    @property
    def is_full(self) -> bool:
        """Whether more of the body has to wait for the application."""
        return self._held > MAX_HELD_BYTES

    def end_request(self) -> None:
        """The body has come to its end."""
        self.complete = True
        self.wake()

    def wake(self) -> None:
        """Something has changed for the application that waits in `receive`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        """ASGI. The first piece of a body that has not come yet is empty and comes at once: the application bounds the
        wait for the rest, and needs no timer for a body that came with its head, as most do.
        """
        connection = self._connection
        if self._given:  # the only event left is that the client has gone
            await self._wait()
            return _DISCONNECT
        if not self._pieces and not self.complete and self.state is not ENDED:
            if self._expects_continue and self.state is NOT_STARTED:
                self._expects_continue = False
                connection.write(_CONTINUE)
            connection.resume_reading()
            if not self._asked:
                self._asked = True
                return {"type": "http.request", "body": b"", "more_body": True}
            await self._wait()
        if connection.lost or self.state is ENDED or (connection.truncated and not self._pieces):
            return _DISCONNECT
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._held = 0
        self._given = self.complete
        return {"type": "http.request", "body": body, "more_body": not self.complete}

    async def _wait(self) -> None:
        connection = self._connection
        while not (
            connection.lost
            or self.state is ENDED
            or self._pieces
            or (self.complete and not self._given)
            or connection.truncated
        ):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._waiter = None

    # The response -----------------------------------------------------------------------------------------------

    def respond(self, status: int, lines: Lines, body: bytes, closes: bool) -> None:
        """A whole response in one write. `lines` hold its Content-Length. `closes`: the connection ends with it. The
        body of a response to HEAD is left out.
        """
        if self.state is not NOT_STARTED:
            raise RuntimeError("a response has started already")
        head = self._head_of(status, lines, closes)
        self._connection.write(head + body if body and self.request.method != "HEAD" else head)
        self.state = ENDED
        self._connection.response_ended()

    async def send(self, message: Message) -> None:
        """ASGI. Raises RuntimeError where the application does not keep to it."""
        connection = self._connection
        if connection.lost:
            return
        kind = message["type"]
        if kind == "http.response.start" and self._head is None and self.state is NOT_STARTED:
            headers: list[Header] = [(name, value) for name, value in message.get("headers", ())]
            self._head = (message["status"], headers)
            return
        if kind != "http.response.body" or self.state is ENDED or self._head is None:
            raise RuntimeError(f"{kind} is not what comes next in this response")
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        status, headers = self._head
        bodiless = status in _BODILESS or self.request.method == "HEAD"
        if self.state is NOT_STARTED:
            lines, closes = self._frame(status, headers, len(body), more=more, bodiless=bodiless)
            if not more and not self._chunked and len(body) <= WHOLE_BYTES:
                self.respond(status, lines, b"" if bodiless else body, closes)
                return
            head = self._head_of(status, lines, closes)
            self.state = STARTED
            connection.write(head)
        if not bodiless:
            await self._write(body, more)
        if connection.lost:
            return
        if not more:
            self.state = ENDED
            connection.response_ended()

    def _frame(
        self, status: int, headers: list[Header], size: int, *, more: bool, bodiless: bool
    ) -> tuple[Lines, bool]:
        """Decides how the client finds the end of the body, of which `size` bytes are here. The response's headers, and
        whether the connection ends with it. Raises RuntimeError where no such response can be sent.
        """
        if status not in STATUSES:
            raise RuntimeError(f"{status} is no status of a response")
        lines, closes, length, chunked = fields_of(headers)
        if bodiless:
            if status == HTTPStatus.NO_CONTENT:
                length = None  # RFC 9110, 8.6
            elif status == HTTPStatus.RESET_CONTENT:
                length = 0  # RFC 9110, 15.3.6: it has an end to be found, but no content
        elif self.request.version == "1.1" and (chunked or (length is None and more)):
            self._chunked = True
            length = None  # RFC 9112, 6.2: never both
            lines += b"transfer-encoding: chunked\r\n"
        elif length is None and more:
            self.keep_alive = False  # to HTTP/1.0, a body without a length ends with the connection
        else:
            if length is None:
                length = size
            if size > length or (size < length and not more):
                raise RuntimeError(f"a body of {size} bytes with a Content-Length of {length}")
            self._remaining = length
        if length is not None:
            lines += b"content-length: %d\r\n" % length
        return lines, closes

    async def _write(self, body: bytes, more: bool) -> None:
        connection = self._connection
        size = len(body)
        if self._remaining is not None:
            self._remaining -= size
            if self._remaining < 0 or (self._remaining and not more):
                raise RuntimeError("the body is not as long as its Content-Length")
        if self._chunked and size:
            connection.write(b"%x\r\n" % size)
        if size <= WHOLE_BYTES:
            if size:
                connection.write(body)
        else:
            view = memoryview(body)
            for begin in range(0, size, WHOLE_BYTES):
                connection.write(view[begin : begin + WHOLE_BYTES])
                if connection.drained is not None:
                    await connection.drained
                if connection.lost:
                    return
        if self._chunked and (size or not more):
            connection.write((b"\r\n" if size else b"") + (b"" if more else b"0\r\n\r\n"))
        if connection.drained is not None:
            await connection.drained

    def _head_of(self, status: int, lines: Lines, closes: bool) -> bytes:
        """The head of the response. Decides whether the connection stays."""
        connection = self._connection
        context = connection.context
        if closes or (connection.may_end and connection.is_last_response):
            self.keep_alive = False
        if not self.complete and (self._expects_continue or not connection.rest_is_small):
            self.keep_alive = False  # a client that was not told to go on may send the body or not (RFC 9110, 10.1.1)
        if context.logs_access:
            context.log_access(self.scope, status)
        return response_head(status, context.lines + lines, keep_alive=self.keep_alive, version=self.request.version)
