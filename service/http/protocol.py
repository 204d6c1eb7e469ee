"""HTTP/1.1 for uvicorn: its `http` option takes a protocol class, and this one costs less than half of uvicorn's own.

What a request saves: one write instead of two for an answer, no timer of its own (`expire` is called for all
connections once a second), no access log, no event object, and answers that are whole go out without a message in
between (RequestRecord.respond). What it adds: limits on a request's head in bytes and in time, answers to bad
HTTP in the service's one error shape, and an end to work for clients that went away.

Knows bytes and ASGI. Must not know tasks.
"""

import asyncio
import http
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.server import ServerState

from service.http import errors
from service.http.asgi import CLIENT_GONE, REPORT, RequestRecord, record_of
from service.http.errors import ApiError, ErrorBody
from service.http.responses import encode

HEAD_BYTES = 32 * 1024  # request line and headers together: JWTs of 8 KiB fit several times
HEAD_S = 10.0  # from the first byte of a head to its last
DRAIN_S = 2.0  # for the rest of a body that nobody wants, so that its sender still reads the answer
LINGER_S = 0.5  # for a request that is on its way when the server stops
HALF_CLOSED_S = 1.0  # for an answer to a client that has closed its side, which gone ones do too
WRITE_S = 30.0  # for a client to read some of what waits for it
BODY_WATER = 128 * 1024  # body bytes held for the application before reading stops
STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in http.HTTPStatus}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODILESS = (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED)
FRAMING = (b"content-length", b"transfer-encoding")
DISCONNECT = {"type": "http.disconnect"}
ASGI = {"version": "3.0", "spec_version": "2.3"}

Headers = Iterable[tuple[bytes, bytes]]


class Exchange:
    """One request and its answer: what ASGI calls `receive` and `send`."""

    __slots__ = (
        "_asked",
        "_chunked",
        "_chunks",
        "_expects_continue",
        "_head",
        "_held",
        "_protocol",
        "_waiter",
        "_whole",
        "ended",
        "keep_alive",
        "received",
        "scope",
        "started",
        "task",
    )

    def __init__(
        self, protocol: "HttpProtocol", scope: dict[str, Any], keep_alive: bool, expects_continue: bool
    ) -> None:
        self._protocol = protocol
        self.scope = scope
        self.keep_alive = keep_alive
        self.task: asyncio.Task[None] | None = None
        self.received = False  # the whole request is here
        self.started = False
        self.ended = False
        self._chunks: list[bytes] = []
        self._held = 0
        self._asked = False  # the application wants the body
        self._whole = False  # the last piece of the body was given to the application
        self._waiter: asyncio.Future[None] | None = None
        self._expects_continue = expects_continue
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._chunked = False

    # The request ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """A piece of the body has come."""
        if self.ended:
            return
        self._chunks.append(data)
        self._held += len(data)
        if self._held > BODY_WATER:
            self._protocol.pause_reading()
        self.wake()

    def end_request(self) -> None:
        """The body has come to its end."""
        self.received = True
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> dict[str, Any]:
        protocol = self._protocol
        if self._whole:  # what is left to be told is that the client is gone
            await self._wait()
            return DISCONNECT
        if not self._chunks and not self.received:
            if self._expects_continue and not self.started:
                self._expects_continue = False
                protocol.transport.write(CONTINUE)
            protocol.resume_reading()
            if not self._asked:
                # Nothing yet, at once: whoever reads bodies bounds the wait for the rest, and a body that came with its
                # head, as most do, needs no timer.
                self._asked = True
                return {"type": "http.request", "body": b"", "more_body": True}
            await self._wait()
        if protocol.lost:
            return DISCONNECT
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._held = 0
        self._whole = self.received
        return {"type": "http.request", "body": body, "more_body": not self.received}

    async def _wait(self) -> None:
        protocol = self._protocol
        while not (protocol.lost or self.ended or self._chunks or (self.received and not self._whole)):
            self._waiter = protocol.loop.create_future()
            await self._waiter
        self._waiter = None

    # The answer -------------------------------------------------------------------------------------------------

    def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """A whole answer in one write. `headers` hold its content-length."""
        self.started = True
        parts = self._lines(status, headers)
        if body and self.scope["method"] != "HEAD":
            parts.append(body)
        self._protocol.transport.write(b"".join(parts))
        self._end()

    async def send(self, message: dict[str, Any]) -> None:
        protocol = self._protocol
        if protocol.lost:
            return
        if message["type"] == "http.response.start":
            self._head = (message["status"], list(message.get("headers", ())))
            return
        if self._head is None:
            raise RuntimeError("http.response.start must come before http.response.body")
        status, headers = self._head
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if not self.started:
            sized = any(name == b"content-length" for name, _ in headers)
            if not more:
                if not sized and status not in BODILESS and self.scope["method"] != "HEAD":
                    headers.append((b"content-length", b"%d" % len(body)))
                self.respond(status, headers, body)
                return
            self._chunked = not sized and self.scope["http_version"] == "1.1"
            if self._chunked:
                headers.append((b"transfer-encoding", b"chunked"))
            elif not sized:
                self.keep_alive = False  # to HTTP/1.0, a body without a length ends with the connection
            self.started = True
            protocol.transport.write(b"".join(self._lines(status, headers)))
        if self.scope["method"] != "HEAD":
            if self._chunked:
                if body:
                    protocol.transport.writelines((b"%x\r\n" % len(body), body, b"\r\n"))
                if not more:
                    protocol.transport.write(b"0\r\n\r\n")
            elif body:
                protocol.transport.write(body)
        if not more:
            self._end()
        elif protocol.writable is not None:
            await protocol.writable

    def _lines(self, status: int, headers: list[tuple[bytes, bytes]]) -> list[bytes]:
        parts = [STATUS_LINES[status]]
        for name, value in headers:
            if b"\n" in value or b"\r" in value:
                raise RuntimeError(f"a line break in the header {name.decode()}")
            parts += (name, b": ", value, b"\r\n")
            if name == b"connection" and value == b"close":
                self.keep_alive = False
        if not self.received or (self._protocol.stopping and not self._protocol.more):
            self.keep_alive = False
        if not self.keep_alive and (b"connection", b"close") not in headers:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        return parts

    def _end(self) -> None:
        self.ended = True
        self._chunks.clear()
        self._protocol.end_exchange(self)


class _Body:
    """What a parser tells that reads one body, behind a head that another parser has read."""

    def __init__(self, protocol: "HttpProtocol") -> None:
        self._protocol = protocol
        self._messages = 0
        self.on_body = protocol.on_body

    def on_message_begin(self) -> None:
        self._messages += 1
        if self._messages > 1:
            self._protocol.body_read(more=True)

    def on_message_complete(self) -> None:
        if self._messages == 1:
            self._protocol.body_read(more=False)


class HttpProtocol(asyncio.Protocol):
    """One connection. The constructor's parameters are what uvicorn gives its protocols."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app: Any = config.loaded_app  # pyright: ignore[reportUnknownMemberType]
        self._keep_alive_s = config.timeout_keep_alive
        self._connections: set[Any] = server_state.connections
        self._tasks = server_state.tasks
        self._report: Callable[[RequestRecord], None] = app_state.get(REPORT, _unreported)
        self._parser = httptools.HttpRequestParser(self)
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.lost = False
        self.stopping = False
        self.writable: asyncio.Future[None] | None = None  # set while the client does not read
        self._server: Any = None
        self._client: Any = None
        self._scheme = "http"
        self._exchange: Exchange | None = None  # the one being answered
        self._next: deque[Exchange] = deque()  # pipelined behind it
        self._reading: Exchange | None = None  # the one whose body is coming
        self._paused = False
        # Loop times at which `expire` ends the connection; 0: none.
        self._deadline = 0.0  # for what the client has to send
        self._write_deadline = 0.0  # for what it has to take
        self._head_bytes = 0  # of a head, or of trailers or a chunk's extensions, as far as they have come
        self._too_large = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._hosts = 0
        self._expects_continue = False
        self._staying = False  # from the head of a request for another protocol to the parser that reads its body

    # The connection ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._server = _address(transport.get_extra_info("sockname"))
        self._client = _address(transport.get_extra_info("peername"))
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self._connections.add(self)
        self._deadline = self.loop.time() + self._keep_alive_s

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._connections.discard(self)
        self.resume_writing()
        self._next.clear()
        del self._parser  # which holds this protocol: a circle, left for the garbage collector
        exchange = self._exchange
        if exchange is not None:
            exchange.wake()
            if exchange.task is not None:
                record = record_of(exchange.scope)
                if record.status is None:
                    record.status = CLIENT_GONE
                exchange.task.cancel()  # nobody waits for the answer: what it held is freed

    def eof_received(self) -> bool:
        """A client may close its side once its request is sent, and still want the answer; more likely it is gone."""
        if self._exchange is None or not self._exchange.received:
            return False
        if self._next and not self._next[-1].received:
            self._next.pop()
        (self._next[-1] if self._next else self._exchange).keep_alive = False
        self._deadline = self.loop.time() + HALF_CLOSED_S
        return True

    def pause_writing(self) -> None:
        self.writable = self.loop.create_future()
        self._write_deadline = self.loop.time() + WRITE_S

    def resume_writing(self) -> None:
        if self.writable is not None:
            if not self.writable.done():
                self.writable.set_result(None)
            self.writable = None
            self._write_deadline = 0.0
            if self._exchange is None and (self._next or self._reading is None):
                self._go_on()

    @property
    def more(self) -> bool:
        """Whether requests wait behind the one that is being answered."""
        return bool(self._next)

    def pause_reading(self) -> None:
        if not self._paused and not self.lost:
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.lost:
            self._paused = False
            self.transport.resume_reading()

    def shutdown(self) -> None:
        """The server is stopping: the connection ends after its next answer, or soon if no request comes."""
        self.stopping = True
        if self._exchange is None:
            # Not at once: a request may be on its way, and would be lost.
            self.loop.call_later(LINGER_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self._exchange is None:
            self.transport.close()

    def expire(self, now: float) -> None:
        """Ends the connection if its time is up. Called once a second."""
        if 0 < self._write_deadline < now:
            self.transport.abort()
        elif 0 < self._deadline < now:
            if self.transport.is_closing():
                self.transport.abort()  # nobody takes what is left to be sent
            elif self._head_bytes and self._exchange is None and self._reading is None:
                self._refuse(errors.request_timeout())
            elif self._exchange is None or not self._exchange.started:
                self.transport.close()

    # The request ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._head_bytes and self._exchange is None and self._reading is None:
            self._deadline = self.loop.time() + HEAD_S
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._too_large:
                self._refuse(errors.malformed_http())
        else:
            self._too_large = self._head_bytes > HEAD_BYTES
        if self._too_large:
            self._refuse(errors.head_too_large())

    def _stay(self, rest: bytes) -> None:
        """No other protocol is spoken here: a request that asks for one (Java's HttpClient and `curl --http2` do) is
        answered as if it had not (RFC 9110, 7.8).

        The parser takes what follows the head for the other protocol, a body too: so others read that.
        """
        if self._reading is None:
            self.body_read(more=bool(rest))
            return
        self._staying = False
        self._parser = httptools.HttpRequestParser(_Body(self))
        framing = (b"%s: %s\r\n" % line for line in self._headers if line[0] in FRAMING)
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(framing))
        if rest:
            self.data_received(rest)

    def body_read(self, more: bool) -> None:
        """A request that asked for another protocol is here as a whole; what came with its end, if `more`, is lost."""
        last = self._next[-1] if self._next else self._exchange
        if not more:
            self._parser = httptools.HttpRequestParser(self)
            self.on_message_complete()
        elif last is not None:
            last.keep_alive = False
            self.pause_reading()
        else:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._hosts = 0
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:
            return  # a trailer: nothing here asks for one, and none may pass for a header
        name = name.lower()
        self._headers.append((name, value))
        if name == b"host":
            self._hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise ValueError("RFC 9112, 6.1: a body in a coding that is not understood would be read as it is")

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self._head_bytes > HEAD_BYTES:  # maybe only because some of the body came with it
            head_bytes = len(self._url) + sum(len(name) + len(value) for name, value in self._headers)
            if head_bytes > HEAD_BYTES:
                self._too_large = True
                raise ValueError("the head is too large")
        url = self._url
        if not url.startswith(b"/"):
            parsed = httptools.parse_url(url)  # the absolute form, as proxies send it
            url = (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
        raw_path, _, query = url.partition(b"?")
        path = raw_path.decode("ascii")
        version = parser.get_http_version()
        if self._hosts != 1 and (version != "1.0" or self._hosts):
            raise ValueError("RFC 9112, 3.2: one Host, which only HTTP/1.0 may leave out")
        exchange = self._reading = Exchange(
            self,
            {
                "type": "http",
                "asgi": ASGI,
                "http_version": version,
                "method": parser.get_method().decode("ascii"),
                "scheme": self._scheme,
                "path": unquote(path) if "%" in path else path,
                "raw_path": raw_path,
                "query_string": query,
                "root_path": "",
                "headers": self._headers,
                "server": self._server,
                "client": self._client,
                "state": {},
            },
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            expects_continue=self._expects_continue,
        )
        exchange.scope["record"] = RequestRecord(exchange.scope["method"], self._headers, exchange.respond)
        self._deadline = 0.0
        self._head_bytes = 0
        self._staying = parser.should_upgrade() and any(name in FRAMING for name, _ in self._headers)
        if self._exchange is None:
            self._answer(exchange)
        else:
            self._next.append(exchange)
            self.pause_reading()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self._reading is not None:
            self._reading.feed(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._staying:
            return  # its body is still to come, see _stay
        exchange, self._reading = self._reading, None
        if exchange is None:
            return
        exchange.end_request()
        if exchange.ended:  # answered before its body was read to the end
            self.transport.close()

    # The answer -------------------------------------------------------------------------------------------------

    def _answer(self, exchange: Exchange) -> None:
        self._exchange = exchange
        task = exchange.task = self.loop.create_task(self._app(exchange.scope, exchange.receive, exchange.send))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.loop.call_exception_handler({"message": "a request failed", "exception": error})
        exchange = self._exchange
        if exchange is None or exchange.task is not task or self.lost:
            return
        if exchange.started:  # the client must not take a part for the whole
            self.transport.abort()
        else:
            self._exchange = None
            self._next.clear()
            self._refuse(errors.internal_error())

    def end_exchange(self, exchange: Exchange) -> None:
        """The answer is out: on to the next request."""
        self._exchange = exchange.task = None
        if self.lost:
            return
        if not exchange.received:
            self._deadline = self.loop.time() + DRAIN_S
            self.resume_reading()
        elif not exchange.keep_alive:
            self._deadline = self.loop.time() + WRITE_S
            self.transport.close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """To the next request, unless the client does not take the answers that it has."""
        if self.lost or self.transport.is_closing():
            return
        if self.writable is not None:
            self.pause_reading()
        elif self._next:
            self._answer(self._next.popleft())
        else:
            self._deadline = self.loop.time() + self._keep_alive_s
            self.resume_reading()

    def _refuse(self, error: ApiError) -> None:
        """Answers what never became a request, and ends the connection; with answers still due, after those."""
        if self.lost:
            return
        reading = self._reading
        if reading is not None and reading.ended:
            self.transport.close()  # the answer is out already
            return
        record = RequestRecord("", [])
        if reading is not None and reading is self._exchange and not reading.started and reading.task is not None:
            # It is its body that makes no sense: this is the answer.
            record = record_of(reading.scope)
            reading.task.cancel()
            self._exchange = None
        elif self._exchange is not None:
            if reading in self._next:
                self._next.remove(reading)
            last = self._next[-1] if self._next else self._exchange
            last.keep_alive = False
            self.pause_reading()
            return
        record.status = error.status
        self._report(record)
        body = encode(ErrorBody(error.message))
        self.transport.write(
            b"".join(
                (
                    STATUS_LINES[error.status],
                    b"content-type: application/json\r\nconnection: close\r\n",
                    *(b"%s: %s\r\n" % line for line in record.headers),
                    b"content-length: %d\r\n\r\n" % len(body),
                    body,
                )
            )
        )
        self.transport.close()


def _unreported(record: RequestRecord) -> None:
    """The application left no REPORT."""


def _address(address: Any) -> tuple[str, int] | None:
    """Host and port as ASGI wants them; None for a unix socket."""
    return None if isinstance(address, str | bytes | None) else (address[0], address[1])
