"""Load shedding: how many requests are worked on at once.

Above the limit the response is 503 at once, so that what was accepted still meets its deadline. The probes always
answer. Must not import tasks.
"""

import asyncio
from typing import Any

from service.http import errors
from service.http.asgi import ASGIApp, record_of
from service.http.error_handler import error_response

ALWAYS = frozenset({"/livez", "/readyz", "/metrics"})


class Places:
    """Counts the requests in flight. `shed` is how many were rejected because every place was taken."""

    __slots__ = ("in_flight", "max_in_flight", "shed")

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self.in_flight = 0
        self.shed = 0


def shedding(app: ASGIApp, places: Places) -> ASGIApp:
    """ASGI: `app`, with a 503 in its stead where every place is taken, or where the server gives a request up."""

    async def shed(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        places.in_flight += 1
        try:
            if places.in_flight > places.max_in_flight and scope["path"] not in ALWAYS and scope["method"] != "OPTIONS":
                places.shed += 1
                await error_response(errors.unavailable(), record_of(scope))(scope, receive, send)
            else:
                await app(scope, receive, send)
        except asyncio.CancelledError:
            record = record_of(scope)
            if record.status is None:  # not the client's doing: the server stops, and its patience is over
                await error_response(errors.unavailable(), record)(scope, receive, send)
            raise
        finally:
            places.in_flight -= 1

    return shed
