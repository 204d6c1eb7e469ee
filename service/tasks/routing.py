"""The entrance to the task routes: after routing and before a handler, who calls is found out and the path is checked.

A Litestar middleware, because that is where a request is known to have a route (404 and 405 come first) and its body is
still unread. It calls the handler itself: a handler here takes one argument and returns an ASGI callable, so what
Litestar does between the two (binding arguments by signature, an exit stack, converting the response: 6 of 15 µs
in-process) has nothing to do.

`FastPath` goes the same way without asking Litestar's router, for the requests that it can tell at a glance.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from litestar.routes import BaseRoute, HTTPRoute

from service.auth import Authenticator
from service.http import errors
from service.http.asgi import ASGIApp, record_of
from service.http.error_handler import error_response
from service.http.responses import EmptyResponse, Response
from service.tasks.queries import Queries
from service.tasks.requests import TaskRequest, check_user_id, decode_segment, parse_task_id

PREFIX = "/api/{user_id}/tasks"

Handler = Callable[[TaskRequest], Awaitable[Response]]
# From (scope, receive, the handler, the path's user and task as sent) to an answer; never raises an Exception.
Entrance = Callable[[Any, Any, Handler, str, str | None], Awaitable[Response]]


def entrance(authenticator: Authenticator, queries: Queries) -> Entrance:
    """What every task request goes through."""
    authenticate = authenticator.authenticate

    async def enter(
        scope: Any, receive: Any, handler: Handler, user_segment: str, task_segment: str | None
    ) -> Response:
        try:
            user_id = decode_segment(user_segment)
            principal = await authenticate(scope["headers"], user_id)
            if principal.user_id != user_id:
                raise errors.access_denied()
            check_user_id(user_id)
            task_id = 0 if task_segment is None else parse_task_id(task_segment)
            return await handler(TaskRequest(scope, receive, queries, user_id, task_id))
        except Exception as error:
            return error_response(error, record_of(scope))

    return enter


def middleware(enter: Entrance) -> Callable[[ASGIApp], ASGIApp]:
    """The entrance as Litestar's middleware. Functions all the way: Litestar copies any other object deeply."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def stack(scope: Any, receive: Any, send: Any) -> None:
            if scope["method"] == "OPTIONS":
                answer = _options(scope)
            else:
                parameters = scope["path_params"]
                handler = scope["route_handler"].fn
                answer = await enter(scope, receive, handler, parameters["user_id"], parameters.get("task_id"))
            await answer(scope, receive, send)

        return stack

    return wrap


class FastPath:
    """From a path to its handler by one split, for the routes and methods that Litestar was told of.

    Litestar's own way there (its router, two layers of exception handling, the scope's bookkeeping) is 11 µs long, most
    of it the router: it remembers the last 1024 paths, among which a service with many tasks never meets one again.
    What is not found here (another path or method, an empty segment) goes Litestar's way: `otherwise`.
    """

    def __init__(self, routes: Sequence[BaseRoute], enter: Entrance, *, otherwise: ASGIApp) -> None:
        self._enter = enter
        self._otherwise = otherwise
        # By method, number of segments and the last one ("" where it is a parameter): handler, template, has a task.
        self._routes: dict[tuple[str, int, str], tuple[Handler, str, bool]] = {}
        for route in routes:
            template = route.path_format
            if not isinstance(route, HTTPRoute) or not template.startswith(PREFIX):
                continue
            parts = template.split("/")
            last = "" if parts[-1].startswith("{") else parts[-1]
            for route_handler in route.route_handlers:
                for method in route_handler.http_methods - {"OPTIONS"}:
                    found = (route_handler.fn, template, "{task_id}" in template)
                    self._routes[str(method), len(parts), last] = found
        self._fixed = {last for _, _, last in self._routes}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            parts = scope["path"].split("/")
            last = parts[-1]
            found = self._routes.get((scope["method"], len(parts), last if last in self._fixed else ""))
            if found is not None and parts[1] == "api" and parts[3] == "tasks" and "" not in parts[2:]:
                handler, record_of(scope).route, has_task = found
                answer = await self._enter(scope, receive, handler, parts[2], parts[4] if has_task else None)
                await answer(scope, receive, send)
                return
        await self._otherwise(scope, receive, send)


def _options(scope: Any) -> Response:
    """What the path allows. Litestar's own answer names the methods of the first handler of a path only."""
    methods = next(
        route.methods for route in scope["litestar_app"].routes if route.path_format == scope["path_template"]
    )
    return EmptyResponse(204, ((b"allow", ", ".join(sorted(methods)).encode()),))
