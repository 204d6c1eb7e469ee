"""What is known about one request, in one record that the server, the application and the log share.

Must not import anything of the service but ASGI's types, limits and the place that a request has.
"""

import re
from collections.abc import Callable
from random import getrandbits
from time import perf_counter
from typing import Any

from service.http.asgi import WHOLE_BYTES, Headers, Lines, Message, Scope, Send, pairs_of
from service.http.limits import REQUEST_ID_LENGTH
from service.http.place import Place

Respond = Callable[[int, Lines, bytes, bool], None]  # (status, headers, body, closes): a whole response in one call

# Browsers and shared caches must not keep one user's tasks for another.
NO_STORE: Lines = b"cache-control: private, no-store\r\n"
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,%d}" % REQUEST_ID_LENGTH)


class RequestRecord:
    """What is known about one request: made from its head, completed while it is served, then measured and logged.

    `record_of` finds it. The server makes it where it can send a whole response in one call (`respond`); else the
    application does. Every response gets `lines`; nothing else sets these headers.
    """

    __slots__ = (
        "_respond",
        "_send",
        "began",
        "client",
        "database_s",
        "failure",
        "lane_wait_s",
        "lines",
        "method",
        "place",
        "prefix",
        "reported",
        "request_headers",
        "request_id",
        "route",
        "statements",
        "status",
        "user_id",
    )

    place: Place  # what it uses of the process's capacity: set by load shedding, around all that use it

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
        self.lines: Lines = b"x-content-type-options: nosniff\r\nx-request-id: " + self.request_id + b"\r\n"
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

    def forbid_caching(self) -> None:
        """For errors: caches may keep a 404, a 405, a 414 and a 501 that do not say how long (RFC 9110, 15.1)."""
        if NO_STORE not in self.lines:
            self.lines += NO_STORE

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
        respond = self._respond
        if respond is None or len(body) > WHOLE_BYTES:
            return False
        self.status = status
        respond(status, lines + self.lines, body, closes)
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
