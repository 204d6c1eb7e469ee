"""Load shedding: a request has a place while it is worked on, and is rejected where there is none.

It gives its place back while it waits for its client (the rest of a body, a reader that is slow) or for keys, so that
slow clients cannot take every place. Probes and /metrics are never rejected for want of room: where one client sends
many of them, they wait for their turns, however many they are.
"""

import asyncio
from typing import Any

from service.http import errors
from service.http.asgi import CAPACITY, ASGIApp, Scope
from service.http.capacity import Capacity
from service.http.error_handler import error_response
from service.http.errors import ApiError
from service.http.operator_paths import UNSHED
from service.http.place import Place
from service.http.request_record import RequestRecord, record_of
from service.http.responses import Response


def shedding(app: ASGIApp, capacity: Capacity) -> ASGIApp:
    """ASGI: `app`, with a 503 in its stead where every place is taken, or where the server gives a request up."""

    async def shed(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            scope.get("state", {})[CAPACITY] = capacity
            await app(scope, receive, send)
            return
        record: RequestRecord = scope["record"]  # see RequestLog
        place = record.place = Place(capacity)
        try:
            if capacity.in_flight > capacity.max_in_flight and not _is_unshed(scope):
                raise capacity.reject_request()
            await app(scope, receive, send)
        except ApiError as error:
            await error_response(error, record)(scope, receive, send)
        except asyncio.CancelledError:
            if record.status is None:  # not the client's doing: the server stops, and its patience is over
                await error_response(errors.unavailable(), record)(scope, receive, send)
            raise
        finally:
            place.leave()
            if place.waited_s:  # the duration is the service's time, without that for which it lets a client wait
                record.began += place.waited_s

    return shed


def in_turn(app: ASGIApp) -> ASGIApp:
    """ASGI: `app`, which serves requests of no user in particular. Each client's requests have their turns."""

    async def turn(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            record = record_of(scope)
            await _turn(scope, record)
            record.place.retake(check=not _is_unshed(scope))
        await app(scope, receive, send)

    return turn


async def error_in_turn(error: ApiError, scope: Scope, record: RequestRecord) -> Response:
    """The response to this error, when it is its caller's turn. Most errors take no place of a user's share, so that
    does not slow down a client that gets nothing else. One that comes after a statement (404, 412, 422) gives its place
    back before it waits.
    """
    try:
        await _turn(scope, record)
    except ApiError as rejected:
        error = rejected
    return error_response(error, record)


async def _turn(scope: Scope, record: RequestRecord) -> None:
    """Waits for the turn of this request's user or, where that is not known, address. Raises ApiError (429) where too
    many of that caller's wait. An address's probes do not wait behind its other requests.
    """
    client, path = scope.get("client"), scope["path"]
    caller: str = record.user_id or (client[0] if client else "")
    if path in UNSHED:
        await record.place.await_turn(caller + path, record.request_headers, check=False)
    else:
        await record.place.await_turn(caller, record.request_headers)


def _is_unshed(scope: Scope) -> bool:
    """Whether the request is served where every place is taken. A response to OPTIONS costs no more than the 503."""
    return scope["path"] in UNSHED or scope["method"] == "OPTIONS"
