"""Requests from other origins: preflights, and what every response says to them. Which writes of web pages are accepted
is decided in service.http.browser_guard.

Litestar's CORS layer is not used: it lies inside load shedding, whose 503 a page could then not read; it rejects in
plain text; it leaves out `Vary` on responses to requests without an origin, so that a cache may hand such a response to
a page; and a request that passes it costs 34 µs more. Must not import the database.
"""

import re
from typing import Any

from service.http import errors
from service.http.asgi import ASGIApp, Headers, Lines, Scope, header, line
from service.http.error_handler import error_response
from service.http.request_record import record_of
from service.http.responses import EmptyResponse, Response
from service.settings import Settings

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
HEADERS = [
    "Authorization",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "Idempotency-Key",
    "X-Request-ID",
    # What tracing in browsers adds: W3C Trace Context, W3C Baggage, Sentry.
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
]
SAFE_HEADERS = ["Accept", "Accept-Language", "Content-Language"]  # always allowed (Fetch, "CORS-safelisted")
EXPOSED_HEADERS = ["ETag", "Link", "Location", "Retry-After", "X-Request-ID", "Idempotency-Replayed"]
MAX_AGE_S = 600  # for which a browser may cache the response to a preflight

_MAX_NAMES = 100  # in Access-Control-Request-Headers: a page has a few, and 30,000 commas took 0.7 ms
_METHODS = {method.encode() for method in METHODS}
_NAMES = {name.lower().encode() for name in (*HEADERS, *SAFE_HEADERS)}
_VARY = line(b"vary", b"Origin")
_EXPOSED = line(b"access-control-expose-headers", ", ".join(sorted(EXPOSED_HEADERS)).encode())
_PREFLIGHT = (
    line(b"access-control-allow-methods", ", ".join(METHODS).encode())
    + line(b"access-control-allow-headers", ", ".join(HEADERS).encode())
    + line(b"access-control-max-age", b"%d" % MAX_AGE_S)
)
_LABEL = rb"[A-Za-z0-9_-]+"  # what a * stands for


class CorsPolicy:
    """The origins that the settings allow: exact ones, ones with * for one label of the host, or all."""

    def __init__(self, settings: Settings) -> None:
        origins = [origin.encode() for origin in settings.cors_allow_origins]
        self._all = b"*" in origins
        self._exact = frozenset(origins)
        patterns = [re.escape(origin).replace(rb"\*", _LABEL) for origin in origins if b"*" in origin]
        self._pattern = re.compile(b"|".join(patterns)) if patterns and not self._all else None
        self._allowed = _EXPOSED
        if self._all:
            self._allowed += line(b"access-control-allow-origin", b"*")
        if settings.cors_allow_credentials:
            self._allowed += line(b"access-control-allow-credentials", b"true")

    def is_allowed(self, origin: bytes) -> bool:
        """Whether pages of this origin may use the API."""
        return (
            self._all or origin in self._exact or (self._pattern is not None and bool(self._pattern.fullmatch(origin)))
        )

    def lines(self, request: Headers) -> Lines:
        """What every response to a request with these headers says."""
        if self._all:
            return self._allowed
        origin = header(request, b"origin")
        if origin is None or not self.is_allowed(origin):
            return _VARY
        return line(b"access-control-allow-origin", origin) + self._allowed + _VARY

    def around(self, app: ASGIApp) -> ASGIApp:
        """ASGI: `app`, with preflights answered before it and the policy's headers on every response."""

        async def cors(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                record_of(scope).lines += self.lines(scope["headers"])
                if scope["method"] == "OPTIONS" and header(scope["headers"], b"origin"):
                    await self._preflight(scope)(scope, receive, send)
                    return
            await app(scope, receive, send)

        return cors

    def _preflight(self, scope: Scope) -> Response:
        request: Headers = scope["headers"]
        method = header(request, b"access-control-request-method")
        names = (header(request, b"access-control-request-headers") or b"").lower().split(b",", _MAX_NAMES)
        if (
            self.is_allowed(header(request, b"origin") or b"")
            and (method is None or method in _METHODS)
            and all(name.strip() in _NAMES for name in names if name.strip())
        ):
            return EmptyResponse(204, _PREFLIGHT)
        return error_response(errors.origin_not_allowed(), record_of(scope))
