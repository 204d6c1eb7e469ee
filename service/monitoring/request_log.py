"""The end of each request: measured for the metrics, and logged where it matters. The outermost layer.

5xx and responses that were cut off are always logged, slow requests above a threshold, the rest at debug, or at info as
an access log.
"""

import logging
from collections.abc import Callable
from hashlib import blake2b
from time import perf_counter
from typing import Any, Protocol

from service.database import current_caller
from service.http.asgi import CLIENT_GONE, REPORT, ASGIApp, header
from service.http.request_record import RequestRecord, path_to_route, record_of
from service.monitoring.tracing import trace_of

log = logging.getLogger("service.request")

ShowUser = Callable[[str], str]


class Observer(Protocol):
    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request has ended."""
        ...


class Tracer(Protocol):
    """Where there is one, records list the times of their statements."""

    def trace(self, record: RequestRecord, status: int, seconds: float) -> None:
        """A request has ended."""
        ...


def hashed(user_id: str) -> str:
    """A user's name in the log. `printf %s ID | b2sum -l 64` prints it for an ID, so that an operator finds the user's
    lines. It has no key: a reader of the log who guesses an ID can confirm it.
    """
    return blake2b(user_id.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def as_is(user_id: str) -> str:
    return user_id


class RequestLog:
    """ASGI: wraps the application. `slow_s`: a slower request is logged. `access_log`: every request is."""

    def __init__(
        self,
        app: ASGIApp,
        observer: Observer,
        *,
        slow_s: float,
        access_log: bool = False,
        show_user: ShowUser = hashed,
        tracer: Tracer | None = None,
    ) -> None:
        self._app = app
        self._observer = observer
        self._slow_s = slow_s
        self._show_user = show_user
        self._tracer = tracer
        level = logging.INFO if access_log else logging.DEBUG
        self._others = level if log.isEnabledFor(level) else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            scope.get("state", {})[REPORT] = self.report
            await self._app(scope, receive, send)
            return
        record = record_of(scope)  # from now on, scope["record"]
        path_to_route(scope)
        current_caller.set(record)
        if self._tracer is not None:
            record.statements = []
        app = self._app
        try:
            await app(scope, receive, record.sends(send))
        finally:
            record.detach()
            if not record.route:
                record.route = scope.get("path_template", "")  # Litestar's word for what it routed
            client = scope.get("client")
            record.client = client[0] if client else None
            self.report(record)

    def report(self, record: RequestRecord) -> None:
        """Measures and logs a request that has ended, once."""
        if record.reported:
            return
        record.reported = True
        seconds = perf_counter() - record.began
        status = CLIENT_GONE if record.status is None else record.status
        self._observer.observe(record.route, record.method, status, seconds)
        if self._tracer is not None:
            self._tracer.trace(record, status, seconds)
        if status < 400 and record.failure is not None:
            self._log(logging.WARNING, "a response was cut off", record, status, seconds)
        elif status >= 500:
            self._log(logging.WARNING, "a request failed", record, status, seconds)
        elif seconds > self._slow_s:
            self._log(logging.WARNING, "a request was slow", record, status, seconds)
        elif self._others is not None:
            self._log(self._others, "a request was answered", record, status, seconds)

    def _log(self, level: int, message: str, record: RequestRecord, status: int, seconds: float) -> None:
        failure = record.failure
        trace = trace_of(header(record.request_headers, b"traceparent"))
        log.log(
            level,
            message,
            extra={
                "request_id": record.request_id.decode(),
                "method": record.method,
                "route": record.route,
                "status": status,
                "duration_ms": round(seconds * 1000, 1),
                "lane_wait_ms": round(record.lane_wait_s * 1000, 1),
                "database_ms": round(record.database_s * 1000, 1),
                "user": None if record.user_id is None else self._show_user(record.user_id),
                "client": record.client and record.client.removeprefix("::ffff:"),  # of IPv4, with HOST=::
                "trace_id": trace[0] if trace else None,
                "sqlstate": getattr(failure, "sqlstate", None),
                "reason": str(failure).partition("\n")[0] if failure else None,
            },
        )
