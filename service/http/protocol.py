"""HTTP/1.1 for uvicorn: its option `http` takes this class, which costs less than half of uvicorn's own.

What a request saves: one write instead of two for a response, no timers (ServerContext has one clock for all
connections), no event object, no message for a response that is whole (RequestRecord.respond). What it adds: limits on
heads in bytes and in time, and on slow readers; errors in the service's one shape; an end to work for clients that went
away. README.md in this directory has the list.

One file, although it is long: reading and responding share the buffer and the state, and a call from one object to
another costs what this class saves.
"""

import asyncio
import contextvars
from time import perf_counter
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from service.http import errors
from service.http.asgi import CLIENT_GONE, ASGIApp, Scope
from service.http.body_framing import ChunkedBody, SizedBody
from service.http.connection import (
    APPLICATION_RUNS,
    BETWEEN_REQUESTS,
    BLOCKED,
    BODY,
    HEAD,
    IDLE,
    LINGER,
    RESPONSE,
    SKIP,
    Connection,
)
from service.http.errors import ApiError
from service.http.exchange import NOT_STARTED, STARTED, Exchange
from service.http.head import CHUNKED, HeadReader, RequestHead, check_beginning, skip_empty_lines
from service.http.own_responses import respond_overloaded, respond_to_asterisk
from service.http.request_record import RequestRecord
from service.http.response_head import response_head
from service.http.responses import error_response_of
from service.http.server_context import UNCOUNTED_BYTES, context_of, log

_KEY_BYTES = 512  # of a head, in which the path's first segments are
SMALL_REST = 64 * 1024  # bytes of a body that are read and dropped for the sake of the connection


class HttpProtocol(Connection):
    """A connection that speaks HTTP. The constructor's parameters are what uvicorn gives its protocols."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        context = context_of(config, server_state, app_state, asyncio.get_running_loop())
        super().__init__(context, cast(set[Any], server_state.connections))
        self.loop = _loop or context.loop  # of the tasks. uvicorn gives another one in its tests only
        self._server_state = server_state
        self._heads = HeadReader()
        self._exchange: Exchange | None = None  # from its head to the end of its response
        self._body: SizedBody | ChunkedBody | None = None  # the one that is coming
        self._buffer = b""  # received and not read yet
        self._position = 0  # in it
        self._checked = 0  # bytes in which the end of a head was looked for
        self.awaits_turn = False  # to be read

    @property
    def unread_bytes(self) -> int:
        return len(self._buffer) - self._position

    @property
    def has_started(self) -> bool:
        return self._exchange is not None and self._exchange.state is not NOT_STARTED

    @property
    def rest_is_small(self) -> bool:
        return isinstance(self._body, SizedBody) and self._body.remaining <= SMALL_REST

    def head_timed_out(self) -> None:
        self._reject(errors.request_timeout())

    def unblocked(self) -> None:
        self._await_request()
        self._read()

    def abandon(self) -> None:
        self._buffer = b""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.wake()
            if exchange.record.status is None:
                exchange.record.status = CLIENT_GONE
            self._cancel(exchange)  # what it holds is freed

    # The request ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state >= LINGER:  # nothing is read any more
            return
        if self._position < len(self._buffer):
            data = self._buffer[self._position :] + data
        self._buffer = data
        self._position = 0
        if not self.awaits_turn and (state not in BETWEEN_REQUESTS or self.context.intake.admits(self)):
            self._read()
            return
        if self.awaits_turn or len(data) > UNCOUNTED_BYTES:
            self.pause_reading()  # what is kept counts
        self.awaits_turn = True

    @property
    def queue_key(self) -> tuple[object, ...]:
        """Of requests that are alike: of one client and, below /api, for one user."""
        return (self.client and self.client[0], *self._buffer[:_KEY_BYTES].split(b"/", 3)[1:3])

    def read_on(self) -> None:
        """Reads what has waited for its turn."""
        if self.awaits_turn:
            self.awaits_turn = False
            self.resume_reading()
            self._read()

    def resume_reading(self) -> None:
        if not self.awaits_turn:
            super().resume_reading()

    def eof_received(self) -> bool:
        self.read_on()  # a request is here that the client wants a response to
        return super().eof_received()

    def _read(self) -> None:
        """Reads the buffer, as far as the state allows."""
        while self._position < len(self._buffer):
            if self.state in BETWEEN_REQUESTS:
                if not self._read_head():
                    return
            elif self._body is not None:
                if not self._read_body(self._body) and self._position < len(self._buffer):
                    return
            else:
                if self.state in (RESPONSE, BLOCKED):
                    self.pause_reading()  # what comes behind a request waits as bytes
                return
        self._buffer = b""  # an idle connection keeps nothing of what it has read
        self._position = 0

    def _read_head(self) -> bool:
        """Begins a request if its head is here as a whole. False: nothing more can be read now."""
        data, begin = self._buffer, self._position
        if data.startswith(b"\r\n", begin):
            begin = skip_empty_lines(data, begin)
        end = data.find(b"\r\n\r\n", max(begin, self._checked - 3)) + 4
        if end < 4:
            self._keep(data[begin:])
            return False
        self._position = end
        if self._checked:
            self._checked = 0
            self.count_kept(0)
        try:
            request = self._heads.read(data if end - begin == len(data) else data[begin:end])
        except ApiError as error:
            self._reject(error)
            return False
        self._begin(request)
        return True

    def _keep(self, data: bytes) -> None:
        """Keeps a part of a head until the rest comes. An empty line alone is no part of one."""
        self._buffer = data
        self._position = 0
        if data in (b"", b"\r"):
            return
        try:
            check_beginning(data, self._checked)
        except ApiError as error:
            self._reject(error)
            return
        self._checked = len(data)
        self.count_kept(len(data))
        if self.state is IDLE:
            self.enter(HEAD)

    def _read_body(self, body: SizedBody | ChunkedBody) -> bool:
        """Takes what is here of the body. False: nothing more can be read now."""
        exchange = self._exchange
        pieces: list[bytes] = []
        try:
            self._position = body.read(self._buffer, self._position, pieces)
        except ApiError as error:
            self._reject(error)
            return False
        if exchange is not None and pieces:
            exchange.feed(pieces)
        if not body.complete:
            if body.interrupted:
                self.pause_reading()
                self.awaits_turn = True
                turn = self.context.large_work.turn(self.client[0] if self.client else "")
                turn.add_done_callback(self._read_on)
            return False
        self._body = None
        if exchange is not None:
            self.enter(RESPONSE)
            exchange.end_request()
            return True
        self._await_request()
        return True

    def _read_on(self, _: asyncio.Future[None]) -> None:
        """It is the turn of a body in many chunks."""
        if self.awaits_turn and self.state in (BODY, SKIP):
            self.awaits_turn = False
            if self._exchange is None or not self._exchange.is_full:
                self.resume_reading()
            since = perf_counter()
            self._read()
            self.context.large_work.spend(since, perf_counter() - since)

    def _begin(self, request: RequestHead) -> None:
        context = self.context
        root_path = context.root_path
        scope: Scope = {
            "type": "http",
            "asgi": context.asgi,
            "http_version": request.version,
            "method": request.method,
            "path": request.path,
            "raw_path": request.raw_path,
            "query_string": request.query_string,
            "root_path": root_path,
            "headers": request.headers,
            "state": context.app_state.copy(),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
        }
        if root_path:
            scope["path"] = root_path + request.path
            scope["raw_path"] = root_path.encode() + request.raw_path
        exchange = self._exchange = Exchange(self, request, scope)
        length = request.framing.length
        if length:
            self._body = ChunkedBody() if length == CHUNKED else SizedBody(length)
            self.enter(BODY)
        else:
            self.enter(RESPONSE)
        app = context.app
        if request.path == "*":
            app = respond_to_asterisk
        elif context.max_concurrency is not None and (
            len(self.connections) >= context.max_concurrency or len(context.tasks) >= context.max_concurrency
        ):
            app = respond_overloaded
        coroutine = self._run(app, exchange)
        if context.reset_contextvars:
            task = self.loop.create_task(coroutine, context=contextvars.Context())
        else:
            task = self.loop.create_task(coroutine)
        exchange.task = task
        context.tasks.add(task)

    # The response -----------------------------------------------------------------------------------------------

    async def _run(self, app: ASGIApp, exchange: Exchange) -> None:
        try:
            await app(exchange.scope, exchange.receive, exchange.send)
        except Exception as error:
            log.error("Exception in ASGI application\n", exc_info=error)
        finally:
            if exchange.task is not None:
                self.context.tasks.discard(exchange.task)
                exchange.task = None
            exchange.record.detach()
            if app is not self.context.app:
                self.context.report(exchange.record)
            if self._exchange is exchange:
                self._give_up(exchange)

    def _cancel(self, exchange: Exchange) -> None:
        if exchange.task is not None:
            exchange.task.cancel()
            exchange.task.add_done_callback(self.context.tasks.discard)  # it may never have run

    def _give_up(self, exchange: Exchange) -> None:
        """The application has ended without ending its response."""
        if exchange.state is STARTED:
            self.abort()  # the client must not take a part for the whole
        else:
            self._reject(errors.internal_error())

    def response_ended(self) -> None:
        """The response to the current request is written: on to the next."""
        exchange, self._exchange = self._exchange, None
        self._server_state.total_requests += 1
        if exchange is None or self.state not in APPLICATION_RUNS:
            return
        if self._body is not None:
            self.awaits_turn = False
            if not exchange.keep_alive:
                self.linger()
                return
            self.enter(SKIP)
            self.resume_reading()
            self._read()
        elif not exchange.keep_alive:
            if self.has_unread:
                self.linger()
            else:
                self.close()
        else:
            self._await_request()
            if self._position < len(self._buffer):
                self._read()

    def _await_request(self) -> None:
        """The next request may come, unless the client does not take the responses that it has."""
        if self.drained is not None:
            self.enter(BLOCKED)
            self.pause_reading()
        elif self.half_closed and not self.has_unread:
            self.close()
        else:
            self.enter(IDLE)
            if not self.reading:
                self.resume_reading()

    def _reject(self, error: ApiError) -> None:
        """Responds to what is no HTTP, or too slow or too large, and ends the connection."""
        exchange, self._exchange = self._exchange, None
        complete = exchange is not None and exchange.complete
        self._body = None
        record = RequestRecord("", [])
        if exchange is not None:
            record = exchange.record
            if exchange.state is not NOT_STARTED:
                self._exchange = exchange
                self.truncated = self.may_end = True  # a response to a request that is cut off is better than none
                exchange.keep_alive = False
                self.enter(RESPONSE)
                exchange.wake()
                return
            self._cancel(exchange)
        elif self.state is SKIP:
            self.linger()
            return
        record.status = error.status
        record.forbid_caching()
        self.context.report(record)
        response = error_response_of(error)
        lines = self.context.lines + response.lines + record.lines
        head = response_head(error.status, lines, keep_alive=False, version="1.1")
        self.write(head if record.method == "HEAD" else head + response.body)
        if complete and not self.has_unread:
            self.close()
        else:
            self.linger()
