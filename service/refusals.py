"""From any exception to the answer a client gets: the one place where failures become statuses.

The SQLSTATE behind a database failure was already looked up in service.database.failures.SQLSTATES; here each kind of
failure has its status, and each constraint its sentence.
"""

import logging
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from litestar import Request, Response
from litestar.exceptions import HTTPException

from service import errors
from service.database import Failure, Rejected, TimedOut, Unavailable
from service.errors import Problem
from service.requests import request_id
from service.responses import Answer, problem_answer

log = logging.getLogger("service.request")

# What the schema's constraints say, in the contract's words. The service checks all of it before the database does:
# these rows are for the day when the two disagree by a hair.
CONSTRAINTS = {
    "users_id_length": ("user_id", "Invalid user ID"),
    "tasks_title_length": ("title", "Title must be 255 characters or less"),
    "tasks_title_trimmed": ("title", "Title must not begin or end with white space"),
    "tasks_description_length": ("description", "Description must be 5000 characters or less"),
}
_MESSAGES = {
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.METHOD_NOT_ALLOWED: "Method not allowed",
}


def problem_of(error: Exception) -> Problem:
    """The problem that answers this exception. A defect answers 500; the service's own is logged here, with its
    traceback."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Unavailable):
        return errors.unavailable()
    if isinstance(error, TimedOut):
        return errors.too_slow()
    if isinstance(error, Rejected) and error.constraint in CONSTRAINTS:
        field, message = CONSTRAINTS[error.constraint]
        return errors.bad_field(field, message)
    if isinstance(error, HTTPException) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        status = HTTPStatus(error.status_code)
        headers = tuple((name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items())
        return Problem(status, _MESSAGES.get(status) or status.phrase.capitalize(), headers=headers)
    if not isinstance(error, Failure):
        # PostgreSQL's whole message may quote the row: service.limits logs its first line, which does not.
        log.error("a defect", exc_info=error)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error")


def refusal(error: Exception, scope: Any) -> Answer:
    """The answer to this exception. It gets a request ID, unless one came in: service.limits echoes that."""
    answer = problem_answer(problem_of(error))
    identifier = request_id(scope["headers"])
    if identifier is None:
        identifier = uuid4().hex.encode()
        answer.headers.append((b"x-request-id", identifier))
    scope["request_id"] = identifier
    if isinstance(error, Failure):
        scope["failure"] = error
    return answer


class _Refusal(Response[None]):
    """An Answer in the shape that Litestar's exception handlers return."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer


def handle_exception(request: Request[Any, Any, Any], error: Exception) -> Response[None]:
    """Litestar's exception handler: for what is raised outside the task routes, the router's 404 and 405 among them."""
    return _Refusal(refusal(error, request.scope))
