"""What is known about one request, in one record that the server, the application and the log share.

Must not import anything of the service but ASGI's types, limits and capacity.
"""

import re
from asyncio import Future
from collections.abc import Callable
from random import getrandbits
from time import perf_counter
from typing import Any

from service.http.asgi import WHOLE_BYTES, Headers, Lines, Message, Scope, Send, pairs_of
from service.http.capacity import WAIT_BYTES, Capacity
from service.http.limits import BODY_BYTES, REQUEST_ID_LENGTH

Respond = Callable[[int, Lines, bytes, bool], None]  # (status, headers, body, closes): a whole response in one call

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,%d}" % REQUEST_ID_LENGTH)


class RequestRecord:
    """What is known about one request: made from its head, completed while it is served, then measured and logged.

    `record_of` finds it. The server makes it where it can send a whole response in one call (`respond`); else the
    application does. Every response gets `lines`; nothing else sets these headers.
    """

    __slots__ = (
        "_capacity",
        "_held",
        "_in_share",
        "_respond",
        "_send",
        "_yielded",
        "began",
        "client",
        "database_s",
        "failure",
        "lane_wait_s",
        "lines",
        "method",
        "prefix",
        "reported",
        "request_headers",
        "request_id",
        "route",
        "statements",
        "status",
        "user_id",
    )

    def __init__(self, method: str, headers: Headers, respond: Respond | None = None) -> None:
        """`headers` are the request's."""
        self.method = method
        self.request_headers = headers
        # The X-Request-ID that came in, if it is one line of visible ASCII within its length; else a new one.
        self.request_id = b""
        for name, value in headers:
            if name == b"x-request-id":
                self.request_id = value if _REQUEST_ID.fullmatch(value) else b""
                break
        if not self.request_id:
            # Not secret, only distinct; uuid4 costs ten times as much.
            self.request_id = b"%032x" % getrandbits(128)
        # Browsers must not guess another type.
        self.lines: Lines = b"x-content-type-options: nosniff\r\nx-request-id: %b\r\n" % self.request_id
        self.prefix = ""  # of the path, which a proxy strips: for links
        self.route = ""  # the route's template, as soon as it is known
        self.status: int | None = None  # of the response, as soon as it starts
        self.failure: Exception | None = None  # of the database, if that is why the request failed
        self.user_id: str | None = None  # who calls, as soon as that is known
        self.client: str | None = None  # its address
        # How long its statements waited for a lane, and were at the database, in seconds.
        self.lane_wait_s = 0.0
        self.database_s = 0.0
        # The same for each statement, as (name, wait, time, when it ended): only with tracing.
        self.statements: list[tuple[str, float, float, float]] | None = None
        self.began = perf_counter()
        self.reported = False  # it was measured and logged
        self._respond = respond
        self._send: Send | None = None
        # What it uses of the process's capacity.
        self._capacity: Capacity | None = None
        self._yielded = False
        self._held = 0
        self._in_share = False  # has one of its user's places

    def enter(self, capacity: Capacity) -> None:
        """Takes a place."""
        self._capacity = capacity
        capacity.in_flight += 1

    def enter_user(self, user_id: str) -> "Future[bool] | None":
        """Notes who calls, and takes a place of that user's share. Not None: `wait_for_place` has to be called with it.
        Raises ApiError (429) where that user has too many requests in flight.
        """
        self.user_id = user_id
        if self._capacity is None:
            return None
        begin = self._capacity.turns.enter(user_id)
        if begin is True:
            self._in_share = True
            return None
        if begin is False:
            raise self._capacity.reject_caller()
        return begin

    async def wait_for_place(self, begin: "Future[bool]") -> None:
        """Raises ApiError: 429 where no place became free, 503 where there is no memory or no place for any user."""
        try:
            await self._wait_for_turn(begin)
        finally:
            self._in_share = begin.done() and not begin.cancelled() and begin.result()
        if not self._in_share and self._capacity is not None:
            raise self._capacity.reject_caller()
        self.retake_place()

    async def await_turn(self, caller: str, *, check: bool = True) -> None:
        """Waits for the turn of a caller whose request needs no place of a user, or none any more. Raises ApiError
        where it may not wait: 429 where too many of that caller's requests do, 503 where there is no memory; unless
        told not to check.
        """
        if self._capacity is not None:
            begin = self._capacity.turns.pass_by(caller, limited=check)
            if begin is False:
                raise self._capacity.reject_caller()
            if begin is not True:
                self._leave_share()
                await self._wait_for_turn(begin, check=check)

    async def _wait_for_turn(self, begin: "Future[bool]", *, check: bool = True) -> bool:
        since = perf_counter()
        self.yield_place()
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.request_headers)
        size = WAIT_BYTES + (BODY_BYTES if has_body else 0)  # so much of a body is here while nobody reads it
        try:
            self.hold(size, check=check)
            await begin
        finally:
            begin.cancel()
            # The duration is the service's time, without that for which it lets a client wait.
            self.began += perf_counter() - since
        self.drop(size)
        return begin.result()

    def yield_place(self) -> None:
        """Gives the place back while the request waits for something outside the service."""
        if self._capacity is not None and not self._yielded:
            self._yielded = True
            self._capacity.in_flight -= 1

    def retake_place(self, *, check: bool = True) -> None:
        """Takes a place again. Raises ApiError (503) where there is none, unless told not to check."""
        if self._capacity is not None and self._yielded:
            self._yielded = False
            self._capacity.in_flight += 1
            if check and self._capacity.in_flight > self._capacity.max_in_flight:
                raise self._capacity.reject_request()

    def hold(self, size: int, *, check: bool = True) -> None:
        """Counts bytes of a body or buffer. Raises ApiError (503) where they are too many, unless told not to check."""
        if self._capacity is not None:
            if check:
                self._capacity.check_memory(size)
            self._held += size
            self._capacity.buffered += size

    def drop(self, size: int) -> None:
        """Bytes that `hold` counted are free again."""
        if self._capacity is not None:
            self._held -= size
            self._capacity.buffered -= size

    def leave(self) -> None:
        """Gives back everything: the request has ended."""
        if self._in_share:
            self._leave_share()
        capacity, self._capacity = self._capacity, None
        if capacity is not None:
            if not self._yielded:
                capacity.in_flight -= 1
            capacity.buffered -= self._held

    def _leave_share(self) -> None:
        if self._in_share and self._capacity is not None and self.user_id is not None:
            self._in_share = False
            self._capacity.turns.leave(self.user_id)

    def timed(self, statement: str, wait_s: float, database_s: float) -> None:
        """See service.database.Caller."""
        self.lane_wait_s += wait_s
        self.database_s += database_s
        if self.statements is not None:
            self.statements.append((statement, wait_s, database_s, perf_counter()))

    def sends(self, send: Send) -> Send:
        """`send`, with the status noted and `lines` added when a response starts."""
        self._send = send
        return self._start

    def respond(self, status: int, lines: Lines, body: bytes, closes: bool) -> bool:
        """Sends a whole response in one call; `closes`: the connection ends with it. False: the server has no such
        call, or the body is so large that the request has to wait until the client takes it; nothing was sent.
        """
        if self._respond is None or len(body) > WHOLE_BYTES:
            return False
        self.status = status
        self._respond(status, lines + self.lines, body, closes)
        return True

    def detach(self) -> None:
        """Lets go of the server: a circle of references, left to the garbage collector, costs 4 % of a request."""
        self._respond = self._send = None

    async def _start(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *pairs_of(self.lines)]
        if self._send is not None:
            await self._send(message)


def record_of(scope: Any) -> RequestRecord:
    """The record of the request that this scope belongs to; made now if the server made none."""
    record = scope.get("record")
    if record is None:
        record = scope["record"] = RequestRecord(scope["method"], scope["headers"])
    return record


def path_to_route(scope: Scope) -> None:
    """Sets `path` to the path that is routed. It is not decoded: a user's id may hold an encoded slash, which decoding
    would turn into a separator. It has no prefix: ASGI has the server's root_path in it.
    """
    raw = scope.get("raw_path")
    if raw is not None and len(raw) != len(scope["path"]):  # decoding has made it shorter
        scope["path"] = raw.partition(b"?")[0].decode("ascii")
    prefix: str = scope.get("root_path", "")
    if prefix:
        record_of(scope).prefix = prefix
        scope["path"] = scope["path"].removeprefix(prefix)
        scope["root_path"] = ""
