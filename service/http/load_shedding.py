"""The outermost layer: how many requests are worked on at once, and what became of each.

Above the limit the answer is 503 at once, so that what was accepted still meets its deadline. The probes always answer.
Knows ASGI. Must not know tasks.
"""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

from service.http import errors
from service.http.asgi import ASGIApp, Header, Headers, request_id
from service.http.error_handler import refusal

log = logging.getLogger("service.request")

ALWAYS = frozenset({"/livez", "/readyz", "/metrics"})
REFUSED = 0  # answered by service.http.protocol, which has told `refused`
CLIENT_GONE = 499  # nginx's number for a client that did not wait for the answer
SLOW_S = 1.0  # a request slower than this is logged


class Observer(Protocol):
    """Told of each request's end."""

    def observe(self, route: str, method: str, status: int, seconds: float) -> None: ...


class Limits:
    """Wraps the application; counts what is in flight and sheds what is too much."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_in_flight: int,
        headers: Callable[[Headers], list[Header]] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._app = app
        self._max = max_in_flight
        self._headers = headers  # more of them for any answer, by those of its request
        self._observer = observer
        self._logs_all = log.isEnabledFor(logging.DEBUG)
        self.in_flight = 0
        self.shed = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            scope.get("state", {})["refused"] = (
                self.refused
            )  # for service.http.protocol, which answers bad HTTP by itself
            await self._app(scope, receive, send)
            return
        raw = scope.get("raw_path")
        if raw is not None and b"%" in raw:
            # Routed as sent: a user's id may hold an encoded slash, which decoding would make a separator.
            scope["path"] = raw.partition(b"?")[0].decode("ascii")
        identifier = request_id(scope["headers"])
        if identifier is not None:
            scope["request_id"] = identifier
            send = _adding(scope, send, [(b"x-request-id", identifier)])
        if self._headers is not None:
            send = _adding(scope, send, self._headers(scope["headers"]))
        begin = perf_counter()
        self.in_flight += 1
        try:
            if self.in_flight > self._max and scope["path"] not in ALWAYS and scope["method"] != "OPTIONS":
                self.shed += 1
                await refusal(errors.unavailable(), scope)(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if "status" not in scope:  # not the client's doing: the server stops, and its patience is over
                await refusal(errors.unavailable(), scope)(scope, receive, send)
            raise
        finally:
            self.in_flight -= 1
            self._ended(scope, perf_counter() - begin)

    def refused(self, status: int, identifier: bytes) -> None:
        """Takes account of an answer to what never became a request."""
        self._ended({"method": "", "status": status, "request_id": identifier}, 0.0)

    def _ended(self, scope: Any, seconds: float) -> None:
        status = scope.get("status", CLIENT_GONE)
        if status == REFUSED:
            return
        if self._observer is not None:
            self._observer.observe(scope.get("path_template", ""), scope["method"], status, seconds)
        if status < 400 and "failure" in scope:
            self._log(logging.WARNING, "an answer was cut off", scope, status, seconds)
        elif status >= 500:
            self._log(logging.WARNING, "a request failed", scope, status, seconds)
        elif seconds > SLOW_S:
            self._log(logging.WARNING, "a request was slow", scope, status, seconds)
        elif self._logs_all:
            self._log(logging.DEBUG, "a request was answered", scope, status, seconds)

    def _log(self, level: int, message: str, scope: Any, status: int, seconds: float) -> None:
        failure = scope.get("failure")
        log.log(
            level,
            message,
            extra={
                "request_id": scope.get("request_id", b"").decode(),
                "method": scope["method"],
                "route": scope.get("path_template", ""),
                "status": status,
                "duration_ms": round(seconds * 1000, 1),
                "sqlstate": getattr(failure, "sqlstate", None),
                "reason": str(failure).partition("\n")[0] if failure else None,
            },
        )


def _adding(scope: Any, send: Any, added: list[Header]) -> Any:
    """`send`, with these headers on whatever is answered, by whomever; also of a response given whole."""
    if respond := scope.get("extensions", {}).get("respond"):

        def respond_adding(status: int, headers: list[Header], body: bytes) -> None:
            respond(status, headers + added, body)

        scope["extensions"]["respond"] = respond_adding

    async def send_adding(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *added]
        await send(message)

    return send_adding
