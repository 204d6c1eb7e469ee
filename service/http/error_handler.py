"""From any exception to the response that a client gets: the only place where failures become statuses.

The SQLSTATE behind a database failure was already looked up in service.database.failures.SQLSTATES; here each kind of
failure has its status, and each constraint its sentence.
"""

import logging
from http import HTTPStatus
from typing import Any

from litestar import MediaType, Request
from litestar import Response as LitestarResponse
from litestar.exceptions import HTTPException

from service.database import ConstraintViolation, Failure, TimedOut, Unavailable
from service.http import errors
from service.http.errors import ApiError, ErrorBody
from service.http.request_record import RequestRecord, record_of
from service.http.responses import Response, error_response_of

log = logging.getLogger("service.request")

# By constraint of the schema: the error. The service checks the same rules before the database does, so a row is used
# only where the two checks differ in some value.
CONSTRAINTS = {
    "users_id_length": errors.invalid_user_id,
    "tasks_title_length": errors.title_too_long,
    "tasks_title_trimmed": errors.title_not_trimmed,
    "tasks_description_length": errors.description_too_long,
}


def api_error_of(error: Exception) -> ApiError:
    """The error that a client gets for this exception. A defect of the service is a 500, and is logged here with its
    traceback.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Unavailable):
        return errors.unavailable()
    if isinstance(error, TimedOut):
        return errors.database_timeout()
    if isinstance(error, ConstraintViolation) and error.constraint in CONSTRAINTS:
        return CONSTRAINTS[error.constraint]()
    if isinstance(error, HTTPException) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        status = HTTPStatus(error.status_code)
        headers = tuple((name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items())
        if status == HTTPStatus.NOT_FOUND:
            return errors.not_found()
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            methods = dict(headers).get(b"allow", b"").split(b", ")
            return errors.method_not_allowed(b", ".join(sorted(methods)))  # Litestar's are of a set
        return ApiError(status, status.phrase.capitalize(), headers=headers)
    if not isinstance(error, Failure):
        # PostgreSQL's whole message may quote the row: the request log has its first line only, which does not.
        log.error("a defect", exc_info=error)
    return errors.internal_error()


def error_response(error: Exception, record: RequestRecord) -> Response:
    """The response to this exception."""
    _note(error, record)
    return error_response_of(api_error_of(error))


def handle_exception(request: Request[Any, Any, Any], error: Exception) -> LitestarResponse[ErrorBody]:
    """Litestar's exception handler: the same response, in Litestar's own form."""
    _note(error, record_of(request.scope))
    known = api_error_of(error)
    return LitestarResponse(
        ErrorBody(known.message, known.field),
        status_code=known.status,
        headers={name.decode(): value.decode("latin-1") for name, value in known.headers},
        media_type=MediaType.JSON,
    )


def _note(error: Exception, record: RequestRecord) -> None:
    """An error of the database is for the log."""
    if isinstance(error, Failure):
        record.failure = error
    record.forbid_caching()
