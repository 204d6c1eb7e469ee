"""Load shedding: a request has a place while it is worked on, and is rejected where there is none.

It gives its place back while it waits for its client (the rest of a body, a reader that is slow) or for keys, so that
slow clients cannot take every place. The probes are never rejected. Must not import tasks.
"""

import asyncio
from typing import Any

from service.http import errors
from service.http.asgi import CAPACITY, ASGIApp, record_of
from service.http.capacity import Capacity
from service.http.error_handler import error_response
from service.http.errors import ApiError

ALWAYS = frozenset({"/livez", "/readyz", "/metrics"})


def shedding(app: ASGIApp, capacity: Capacity) -> ASGIApp:
    """ASGI: `app`, with a 503 in its stead where every place is taken, or where the server gives a request up."""

    async def shed(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            scope.get("state", {})[CAPACITY] = capacity
            await app(scope, receive, send)
            return
        record = record_of(scope)
        record.enter(capacity)
        try:
            if scope["path"] not in ALWAYS and scope["method"] != "OPTIONS":
                capacity.check_places()
            await app(scope, receive, send)
        except ApiError as error:
            await error_response(error, record)(scope, receive, send)
        except asyncio.CancelledError:
            if record.status is None:  # not the client's doing: the server stops, and its patience is over
                await error_response(errors.unavailable(), record)(scope, receive, send)
            raise
        finally:
            record.leave()

    return shed
