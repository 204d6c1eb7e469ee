"""The end of each request: measured for the metrics, and logged where it matters. The outermost layer.

5xx and responses that were cut off are always logged, slow requests above a threshold, the rest at debug.
"""

import logging
from time import perf_counter
from typing import Any, Protocol

from service.http.asgi import CLIENT_GONE, REPORT, ASGIApp, RequestRecord, record_of

log = logging.getLogger("service.request")

SLOW_S = 1.0  # a request slower than this is logged


class Observer(Protocol):
    """Told of each request's end."""

    def observe(self, route: str, method: str, status: int, seconds: float) -> None: ...


class RequestLog:
    """ASGI: wraps the application."""

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app = app
        self._observer = observer
        self._logs_all = log.isEnabledFor(logging.DEBUG)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            scope.get("state", {})[REPORT] = self.report
            await self._app(scope, receive, send)
            return
        record = record_of(scope)
        record.began = perf_counter()
        try:
            await self._app(scope, receive, record.sends(send))
        finally:
            record.release()
            if not record.route:
                record.route = scope.get("path_template", "")  # Litestar's word for what it routed
            self.report(record)

    def report(self, record: RequestRecord) -> None:
        """Measures and logs a request that has ended, once."""
        if record.reported:
            return
        record.reported = True
        seconds = perf_counter() - record.began
        status = CLIENT_GONE if record.status is None else record.status
        self._observer.observe(record.route, record.method, status, seconds)
        if status < 400 and record.failure is not None:
            self._log(logging.WARNING, "a response was cut off", record, status, seconds)
        elif status >= 500:
            self._log(logging.WARNING, "a request failed", record, status, seconds)
        elif seconds > SLOW_S:
            self._log(logging.WARNING, "a request was slow", record, status, seconds)
        elif self._logs_all:
            self._log(logging.DEBUG, "a request was answered", record, status, seconds)

    def _log(self, level: int, message: str, record: RequestRecord, status: int, seconds: float) -> None:
        failure = record.failure
        log.log(
            level,
            message,
            extra={
                "request_id": record.request_id.decode(),
                "method": record.method,
                "route": record.route,
                "status": status,
                "duration_ms": round(seconds * 1000, 1),
                "sqlstate": getattr(failure, "sqlstate", None),
                "reason": str(failure).partition("\n")[0] if failure else None,
            },
        )
