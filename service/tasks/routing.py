"""Litestar's part: the task routes, and the dependency that makes a `TaskRequest` of what ASGI gives.

Must not import the database package. service.tasks.fast_path is an optimisation in front of this.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from litestar import HttpMethod, Request, Router, route
from litestar.di import Provide

from service.auth import Authenticator
from service.http import errors
from service.http.asgi import ASGIApp, Receive, Scope, line
from service.http.browser_guard import Guard
from service.http.error_handler import error_response
from service.http.errors import AuthFailure
from service.http.request_record import NO_STORE, RequestRecord, record_of
from service.http.responses import EmptyResponse
from service.tasks import handlers
from service.tasks.queries import Queries
from service.tasks.requests import TaskRequest, check_user_id, decode_segment, parse_task_id

PREFIX = "/api/{user_id:str}/tasks"

# From (scope, its record, receive, the path's user and task as sent) to the request. Raises ApiError: 401, 403, 400.
MakeTaskRequest = Callable[[Scope, RequestRecord, Receive, str, str | None], Awaitable[TaskRequest]]


def task_requests(
    authenticator: Authenticator | None,
    queries: Queries,
    auth_failures: Counter[AuthFailure],
    guard: Guard | None = None,
) -> MakeTaskRequest:
    """Makes the TaskRequest of every task request: authenticates the caller and checks the path. Without an
    `authenticator` the caller is the path's user. `guard` rejects requests that web pages must not send.
    `auth_failures` counts rejected callers by reason.
    """

    async def authenticate(record: RequestRecord, authenticator: Authenticator, user_id: str) -> None:
        record.place.give_back()  # an unknown key is fetched
        try:
            principal = await authenticator.authenticate(record.request_headers, user_id)
        except errors.ApiError as error:
            auth_failures[error.auth_failure] += 1
            raise
        record.place.retake()
        if principal.user_id != user_id:
            auth_failures[AuthFailure.ANOTHER_USER] += 1
            raise errors.access_denied()

    async def make(
        scope: Scope, record: RequestRecord, receive: Receive, user_segment: str, task_segment: str | None
    ) -> TaskRequest:
        user_id = decode_segment(user_segment)
        record.lines += NO_STORE
        if guard is not None:
            guard(record.method, record.request_headers)
        if authenticator is not None:
            await authenticate(record, authenticator, user_id)
        check_user_id(user_id)
        record.user_id = user_id
        begin = record.place.enter_user(user_id)
        if begin is not None:
            await record.place.wait_for_user(user_id, begin, record.request_headers)
        task_id = 0 if task_segment is None else parse_task_id(task_segment, errors.invalid_task_id)
        return TaskRequest(scope, record, receive, queries, user_id, task_id)

    return make


def router(make: MakeTaskRequest) -> Router:
    """The task routes. Their handlers take a `task_request`."""

    async def provide(request: Request[Any, Any, Any]) -> TaskRequest:
        parameters = request.path_params
        scope: Any = request.scope
        receive: Any = request.receive
        return await make(scope, record_of(scope), receive, parameters["user_id"], parameters.get("task_id"))

    # _options first: Litestar adds its own handler for OPTIONS to a path that has none yet, and keeps that.
    return Router(
        PREFIX, route_handlers=[_options, *handlers.HANDLERS], dependencies={"task_request": Provide(provide)}
    )


@route(sorted({path for handler in handlers.HANDLERS for path in handler.paths}), http_method=HttpMethod.OPTIONS)
async def _options(request: Request[Any, Any, Any]) -> EmptyResponse:
    """What the path allows. Litestar's own response names the methods of the first handler of a path only."""
    template = request.scope["path_template"]
    methods = next(route.methods for route in request.app.routes if route.path_format == template)
    return EmptyResponse(204, line(b"allow", ", ".join(sorted(methods)).encode()))


def exact_paths(app: ASGIApp) -> ASGIApp:
    """ASGI: `app`, with 404 for a path that has an empty segment. Litestar's router drops those, and so serves paths
    that a gateway's rule on a prefix or an exact path does not match. One slash at the end of the list's path is good.
    """

    async def exact(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if "//" in path or (path.endswith("/") and path != "/" and not _is_list(path)):
                await error_response(errors.not_found(), record_of(scope))(scope, receive, send)
                return
        await app(scope, receive, send)

    return exact


def _is_list(path: str) -> bool:
    parts = path.split("/")
    return len(parts) == 5 and parts[1] == "api" and parts[3] == "tasks"
