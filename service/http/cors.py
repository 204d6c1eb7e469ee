"""Requests from other origins: what every answer says to them, and the answers to preflights.

Which origins are let in is Litestar's CORSConfig to say. Its layer is not used: it lies inside load shedding, whose
503 a page could then not read; it refuses in plain text; it leaves out `Vary` for who has no origin, so that a cache
may hand the answer to who has one; and a request that passes it costs 34 µs more.

Knows headers. Must not know tasks, users or the database.
"""

from typing import Any

from litestar.config.cors import CORSConfig

from service.http import errors
from service.http.asgi import ASGIApp, Header, Headers, header, record_of
from service.http.error_handler import error_response
from service.http.responses import EmptyResponse, Response
from service.settings import Settings

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
HEADERS = ["Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key", "X-Request-ID"]
SAFE_HEADERS = ["Accept", "Accept-Language", "Content-Language"]  # that need no leave (Fetch, "CORS-safelisted")
EXPOSED_HEADERS = ["ETag", "Link", "Location", "Retry-After", "X-Request-ID", "Idempotency-Replayed"]
MAX_AGE_S = 600  # that a browser may remember the answer to a preflight

_METHODS = {method.encode() for method in METHODS}
_NAMES = {name.lower().encode() for name in (*HEADERS, *SAFE_HEADERS)}
_VARY: Header = (b"vary", b"Origin")
_PREFLIGHT = [
    (b"access-control-allow-methods", ", ".join(METHODS).encode()),
    (b"access-control-allow-headers", ", ".join(HEADERS).encode()),
    (b"access-control-max-age", b"%d" % MAX_AGE_S),
]


class CorsPolicy:
    """The origins that the settings let in."""

    def __init__(self, settings: Settings) -> None:
        self._config = CORSConfig(
            allow_origins=list(settings.cors_allow_origins),
            allow_credentials=settings.cors_allow_credentials,
            expose_headers=EXPOSED_HEADERS,
        )
        simple = self._config.simple_headers.items()
        self._allowed = [(name.lower().encode(), value.encode()) for name, value in simple]

    def headers(self, request: Headers) -> list[Header]:
        """What is to be said on whatever answers a request with these headers."""
        origin = header(request, b"origin")
        if self._config.is_allow_all_origins:
            return self._allowed
        if origin is None or not self._is_allowed(origin):
            return [_VARY]
        return [(b"access-control-allow-origin", origin), *self._allowed, _VARY]

    def around(self, app: ASGIApp) -> ASGIApp:
        """ASGI: `app`, with preflights answered before it and the policy's headers on every response."""

        async def cors(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                record_of(scope).headers += self.headers(scope["headers"])
                if scope["method"] == "OPTIONS" and header(scope["headers"], b"origin"):
                    await self._preflight(scope)(scope, receive, send)
                    return
            await app(scope, receive, send)

        return cors

    def _preflight(self, scope: Any) -> Response:
        request: Headers = scope["headers"]
        method = header(request, b"access-control-request-method")
        names = (header(request, b"access-control-request-headers") or b"").lower().split(b",")
        if (
            self._is_allowed(header(request, b"origin") or b"")
            and (method is None or method in _METHODS)
            and all(name.strip() in _NAMES for name in names if name.strip())
        ):
            return EmptyResponse(204, _PREFLIGHT)
        return error_response(errors.origin_not_allowed(), record_of(scope))

    def _is_allowed(self, origin: bytes) -> bool:
        return self._config.is_origin_allowed(origin.decode("latin-1"))
