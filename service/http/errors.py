"""The error catalogue: every sentence that a client can read, each made by one function.

To add an error, add a function here and raise what it returns. The response to an error is `{"error": "<sentence>"}`,
for a bad field also `"field": "<name>"`. service.tasks.openapi builds its examples from the same functions.

One file, although it is long, so that the sentences can be compared with each other. Must not import anything of
the service but limits.
"""

import json
from enum import StrEnum

import msgspec

from service.http.limits import (
    BATCH_LENGTH,
    BODY_BYTES,
    CONDITION_LENGTH,
    DESCRIPTION_LENGTH,
    IDEMPOTENCY_KEY_LENGTH,
    LIMIT_MAX,
    QUERY_LENGTH,
    TITLE_LENGTH,
)

_RETRY_AFTER = ((b"retry-after", b"1"),)
# After these errors the rest of the request is not read, so the connection cannot carry another one.
_CLOSE = ((b"connection", b"close"),)
_SHOWN_LENGTH = 100  # characters of a name that the client sent


class AuthFailure(StrEnum):
    """Why a caller was not let through, for the metric."""

    ABSENT = "no_token"
    INVALID = "invalid_token"
    EXPIRED = "expired_token"
    NO_KEYS = "no_keys"  # the provider's keys could not be fetched
    ANOTHER_USER = "another_user"
    OTHER = "other"  # an authenticator's own reason


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """The JSON of every error."""

    error: str
    field: str | None = None


class ApiError(Exception):
    """A response that is not a success. Raised anywhere below service.http.error_handler, which sends it.

    `headers` are ready for ASGI: lower-case names, bytes. `auth_failure` is for the errors of an authenticator.
    """

    __slots__ = ("auth_failure", "field", "headers", "message", "status")

    def __init__(
        self,
        status: int,
        message: str,
        field: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        auth_failure: AuthFailure = AuthFailure.OTHER,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field
        self.headers = headers
        self.auth_failure = auth_failure


class InvalidJson(ApiError):
    """The body is not JSON. Of a part of a body, this is said of the whole."""


def _bad_field(field: str, message: str) -> ApiError:
    return ApiError(400, message, field)


# ---- The HTTP message itself: service.http.protocol closes the connection after these ----


def malformed_http() -> ApiError:
    """400, for bytes that are not an HTTP/1.1 request."""
    return ApiError(400, "Malformed HTTP request")


def request_timeout() -> ApiError:
    """408, for a head that does not arrive in time."""
    return ApiError(408, "Request did not arrive in time")


def target_too_long() -> ApiError:
    """414 (RFC 9112, 3)."""
    return ApiError(414, "Request target is too long")


def unknown_expectation() -> ApiError:
    """417, for an Expect that is not 100-continue (RFC 9110, 10.1.1)."""
    return ApiError(417, "Expectation is not supported")


def head_too_large() -> ApiError:
    """431 (RFC 6585, 5)."""
    return ApiError(431, "Request headers are too large")


def method_not_implemented() -> ApiError:
    """501, for a method that no path of the service has (RFC 9110, 9.1)."""
    return ApiError(501, "Method is not implemented")


def transfer_coding_not_implemented() -> ApiError:
    """501 (RFC 9112, 6.1)."""
    return ApiError(501, "Transfer coding is not implemented")


def version_not_supported() -> ApiError:
    """505, for a major version of HTTP other than 1."""
    return ApiError(505, "HTTP version is not supported")


# ---- The request's path, and its caller ----


def not_found() -> ApiError:
    """404, for a path that the service does not have."""
    return ApiError(404, "Not found")


def method_not_allowed(allow: bytes) -> ApiError:
    """405. `allow` lists the methods of the path, joined by commas."""
    return ApiError(405, "Method not allowed", headers=((b"allow", allow),))


def origin_not_allowed() -> ApiError:
    """400, for a CORS preflight outside the policy."""
    return ApiError(400, "Origin, method or headers are not allowed across origins")


def unauthenticated(
    message: str, *, token_sent: bool = True, auth_failure: AuthFailure = AuthFailure.OTHER
) -> ApiError:
    """401 with the challenge of RFC 6750, 3: it names an error only where a token was sent."""
    challenge = b'Bearer error="invalid_token"' if token_sent else b"Bearer"
    return ApiError(401, message, headers=((b"www-authenticate", challenge),), auth_failure=auth_failure)


def authentication_required() -> ApiError:
    """401, without a token."""
    return unauthenticated("Authentication required", token_sent=False, auth_failure=AuthFailure.ABSENT)


def invalid_token() -> ApiError:
    """401. One sentence for every defect of a token: a forger learns nothing from it."""
    return unauthenticated("Invalid token", auth_failure=AuthFailure.INVALID)


def token_expired() -> ApiError:
    """401, for a token that was valid until its expiry."""
    return unauthenticated("Token has expired", auth_failure=AuthFailure.EXPIRED)


def access_denied() -> ApiError:
    """403: the path's user is not the principal, or another site's page sent a write."""
    return ApiError(403, "Access denied")


# ---- The path, the query, the headers ----


def invalid_user_id() -> ApiError:
    """400."""
    return _bad_field("user_id", "Invalid user ID")


def invalid_task_id() -> ApiError:
    """400."""
    return _bad_field("task_id", "Invalid task ID")


def invalid_query_string() -> ApiError:
    """400."""
    return ApiError(400, f"Query string must be percent-encoded UTF-8, with up to {QUERY_LENGTH} parameters")


def parameter_repeated(name: str) -> ApiError:
    """400, for a query parameter of the service that is given twice. `name` is not the client's text."""
    return _bad_field(name, f"{name} must be given once")


def invalid_completed_filter() -> ApiError:
    """400."""
    return _bad_field("completed", "completed must be true or false")


def invalid_limit() -> ApiError:
    """400."""
    return _bad_field("limit", f"limit must be between 1 and {LIMIT_MAX}")


def invalid_after() -> ApiError:
    """400."""
    return _bad_field("after", "after must be a task ID")


def invalid_condition(header: str) -> ApiError:
    """400, for an If-Match or If-None-Match outside the grammar of RFC 9110, 13.1, or with too many tags."""
    return ApiError(400, f"{header} must be * or a list of up to {CONDITION_LENGTH} entity tags")


def invalid_idempotency_key() -> ApiError:
    """400."""
    return ApiError(400, f"Idempotency-Key must be given once, as 1 to {IDEMPOTENCY_KEY_LENGTH} visible characters")


# ---- The body ----


def body_cut_off() -> ApiError:
    """400, for a body that ends before its length. Its client is usually gone."""
    return ApiError(400, "Request body was cut off")


def body_timeout() -> ApiError:
    """408, for a body that does not arrive in time."""
    return ApiError(408, "Request body did not arrive in time", headers=_CLOSE)


def body_too_large(limit: int = BODY_BYTES) -> ApiError:
    """413. `limit` in bytes."""
    return ApiError(413, f"Request body must be {limit // 1024} KiB or less", headers=_CLOSE)


def body_not_json() -> ApiError:
    """415, for a media type or content coding other than plain JSON."""
    return ApiError(415, "Request body must be application/json")


def invalid_json() -> ApiError:
    """400, also for no body where one is needed."""
    return InvalidJson(400, "Request body must be valid JSON")


def not_an_object() -> ApiError:
    """400."""
    return ApiError(400, "Request body must be a JSON object")


def not_an_array() -> ApiError:
    """400, for the body of a batch."""
    return ApiError(400, "Request body must be a JSON array")


def invalid_batch_length() -> ApiError:
    """400."""
    return ApiError(400, f"A batch must hold between 1 and {BATCH_LENGTH} tasks")


def batch_item(index: int, error: ApiError) -> ApiError:
    """400: `error` in the task at `index`, from 0. Its field becomes `<index>.<field>`."""
    if error.field is None:
        return _bad_field(str(index), "Each task of a batch must be a JSON object")
    return _bad_field(f"{index}.{error.field}", error.message)


def batch_item_too_large(index: int) -> ApiError:
    """400: the task at `index`, from 0, has more bytes than a body that creates one."""
    return _bad_field(str(index), f"Each task of a batch must be {BODY_BYTES // 1024} KiB or less")


# ---- The fields of a task ----


def unknown_field(name: str) -> ApiError:
    """400. `name` is the client's text: shortened, and with what cannot be printed escaped as in JSON."""
    shown = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in name[:_SHOWN_LENGTH])
    if len(name) > _SHOWN_LENGTH:
        shown += "…"
    return _bad_field(shown, f'Unknown field: "{shown}"')


def nothing_to_update() -> ApiError:
    """400."""
    return ApiError(400, "At least one field (title, description or completed) must be provided")


def title_required() -> ApiError:
    """400, for a create whose title is absent or null."""
    return _bad_field("title", "Title is required")


def title_not_text() -> ApiError:
    """400."""
    return _bad_field("title", "Title must be a string")


def title_empty() -> ApiError:
    """400, for a title of which trimming leaves nothing."""
    return _bad_field("title", "Title cannot be empty")


def title_too_long() -> ApiError:
    """400."""
    return _bad_field("title", f"Title must be {TITLE_LENGTH} characters or less")


def title_not_trimmed() -> ApiError:
    """400. The service trims titles itself: this is the sentence of the database's CHECK, should the two differ."""
    return _bad_field("title", "Title must not begin or end with white space")


def title_with_nul() -> ApiError:
    """400: PostgreSQL's text cannot hold U+0000."""
    return _bad_field("title", "Title must not contain the character U+0000")


def description_not_text() -> ApiError:
    """400."""
    return _bad_field("description", "Description must be a string or null")


def description_too_long() -> ApiError:
    """400."""
    return _bad_field("description", f"Description must be {DESCRIPTION_LENGTH} characters or less")


def description_with_nul() -> ApiError:
    """400: PostgreSQL's text cannot hold U+0000."""
    return _bad_field("description", "Description must not contain the character U+0000")


def completed_required() -> ApiError:
    """400, for the body of a toggle without it."""
    return _bad_field("completed", "Completed is required")


def completed_not_boolean() -> ApiError:
    """400."""
    return _bad_field("completed", "Completed must be true or false")


# ---- The state of a task or a key ----


def task_not_found() -> ApiError:
    """404, for a task that does not exist and for another user's: a client cannot tell them apart."""
    return ApiError(404, "Task not found")


def task_changed(version: int) -> ApiError:
    """412: the condition of If-Match or If-None-Match does not hold. `version` is the task's present one."""
    return ApiError(412, "Task was changed by another request", headers=((b"etag", b'"%d"' % version),))


def idempotency_key_reused() -> ApiError:
    """422: the key was used for another body."""
    return ApiError(422, "Idempotency-Key was already used for another request")


# ---- The state of the service ----


def too_many_requests() -> ApiError:
    """429: this user has too many requests in flight, or too much memory."""
    return ApiError(429, "Too many requests", headers=_RETRY_AFTER)


def internal_error() -> ApiError:
    """500: a defect."""
    return ApiError(500, "Internal server error")


def unavailable(auth_failure: AuthFailure = AuthFailure.OTHER) -> ApiError:
    """503: the database is away, the service is full, or it is shutting down."""
    return ApiError(503, "Service is temporarily unavailable", headers=_RETRY_AFTER, auth_failure=auth_failure)


def database_timeout() -> ApiError:
    """504: the database took longer than the statement limit."""
    return ApiError(504, "The request took too long")


# ---- Why /readyz is 503 ----


def shutting_down() -> ApiError:
    """503."""
    return ApiError(503, "The service is shutting down", headers=_RETRY_AFTER)


def database_unreachable() -> ApiError:
    """503."""
    return ApiError(503, "The database cannot be reached", headers=_RETRY_AFTER)


def database_read_only() -> ApiError:
    """503."""
    return ApiError(503, "The database is set to read-only, so writes fail", headers=_RETRY_AFTER)


def schema_mismatch() -> ApiError:
    """503."""
    return ApiError(503, "The database's schema does not fit this version of the service", headers=_RETRY_AFTER)
