"""Requests across origins: what Litestar's CORS layer is told, who has to go through it, and how it refuses.

Knows headers. Must not know tasks, users or the database.
"""

from http import HTTPStatus
from typing import Any

from litestar.config.cors import CORSConfig

from service.errors import Problem
from service.refusals import refusal
from service.requests import header
from service.settings import Settings

EXPOSED_HEADERS = ["ETag", "Link", "Location", "Retry-After", "X-Request-ID", "Idempotency-Replayed"]
MAX_AGE_S = 600  # that a browser may remember the answer to a preflight


def config(settings: Settings) -> CORSConfig | None:
    """What Litestar's CORS layer is told; None where no origin is let in."""
    if not settings.cors_allow_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_allow_origins),
        allow_credentials=settings.cors_allow_credentials,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key", "X-Request-ID"],
        expose_headers=EXPOSED_HEADERS,
        max_age=MAX_AGE_S,
    )


def by_origin(own: Any, across: Any) -> Any:
    """ASGI: `across` for requests that come with an Origin, `own` for all others: CORS has nothing to add to them."""

    async def choose(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and header(scope["headers"], b"origin") is not None:
            scope["extensions"] = {}  # no short cut: headers are added to the messages that pass `send`
            await across(scope, receive, send)
        else:
            await own(scope, receive, send)

    return choose


def refusing(app: Any) -> Any:
    """ASGI: `app`, whose CORS layer refuses a preflight in plain text and past every exception handler, with the one
    shape of every error instead.
    """

    async def reshaped(scope: Any, receive: Any, send: Any) -> None:
        refused = False

        async def unless_refused(message: Any) -> None:
            nonlocal refused
            refused = refused or message.get("status") == HTTPStatus.BAD_REQUEST
            if not refused:
                await send(message)

        if scope["method"] != "OPTIONS":
            await app(scope, receive, send)
            return
        await app(scope, receive, unless_refused)
        if refused:
            problem = Problem(HTTPStatus.BAD_REQUEST, "Origin, method or headers are not allowed across origins")
            await refusal(problem, scope)(scope, receive, send)

    return reshaped
