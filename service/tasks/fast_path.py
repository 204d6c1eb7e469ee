"""The fast path: an optimisation in front of Litestar, for the task routes.

`create_service(…, fast_path=False)` leaves it out. The API is the same without it, and its tests run both ways. But
errors, and requests to other paths, do not wait for their turns then: this module and its `otherwise` make them wait.

Litestar's own way to a handler and back costs 26 µs a request (measured, Litestar 2.25: 11 for the router, which
caches the last 1024 paths, which a service with many tasks seldom meets again, and the scope's
bookkeeping; 9 for binding arguments by signature; 6 for an exit stack and the response's conversion). Here it is one
split and a look-up.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Litestar
from litestar.routes import HTTPRoute

from service.http.asgi import ASGIApp
from service.http.error_handler import error_response
from service.http.errors import ApiError
from service.http.load_shedding import error_in_turn
from service.http.request_record import RequestRecord
from service.http.responses import AnyResponse
from service.tasks.requests import TaskRequest
from service.tasks.routing import MakeTaskRequest

Handler = Callable[[TaskRequest], Awaitable[AnyResponse]]


class FastPath:
    """ASGI: calls the handlers that take a `task_request` and nothing else, for Litestar's routes and methods. What is
    not found here (another path or method, an empty segment) goes Litestar's way: `otherwise`. Raises ValueError for
    two routes that it could not tell apart.
    """

    def __init__(self, litestar: Litestar, make: MakeTaskRequest, *, otherwise: ASGIApp) -> None:
        self._make = make
        self._otherwise = otherwise
        # By method, number of segments and the last one ("" where it is a parameter): handler, template, has a task.
        self._routes: dict[tuple[str, int, str], tuple[Handler, str, bool]] = {}
        for route in litestar.routes:
            template = route.path_format
            parts = template.split("/")
            last = "" if parts[-1].startswith("{") else parts[-1]
            for route_handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
                if route_handler.parsed_fn_signature.parameters.keys() == {"task_request"}:
                    for method in route_handler.http_methods:
                        key = (str(method), len(parts), last)
                        if key in self._routes:
                            raise ValueError(f"{method} {template} and {self._routes[key][1]} look the same")
                        self._routes[key] = (route_handler.fn, template, "{task_id}" in template)
        self._fixed = {last for _, _, last in self._routes}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            parts = scope["path"].split("/")
            last = parts[-1]
            found = self._routes.get((scope["method"], len(parts), last if last in self._fixed else ""))
            if found is not None and parts[1] == "api" and parts[3] == "tasks" and "" not in parts[2:]:
                record: RequestRecord = scope["record"]  # see RequestLog
                handler, record.route, has_task = found
                make = self._make  # one call through an attribute costs 0.1 µs more
                try:
                    request = await make(scope, record, receive, parts[2], parts[4] if has_task else None)
                    response: AnyResponse = await handler(request)
                except ApiError as error:
                    response = await error_in_turn(error, scope, record)
                except Exception as error:
                    response = error_response(error, record)
                if not response.respond(record):
                    await response(scope, receive, send)
                return
        await self._otherwise(scope, receive, send)
