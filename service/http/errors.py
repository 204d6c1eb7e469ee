"""What goes wrong, as a client sees it: one exception, one shape, and the sentences of the contract.

Every answer that is not a success is `{"error": "<one sentence>"}`, for a bad field also `"field": "<name>"`.
"""

import msgspec


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """The one shape of every error."""

    error: str
    field: str | None = None


class ApiError(Exception):
    """An answer that is not a success. Raised anywhere below the HTTP layer's error handler, which answers it.

    `headers` are ready for ASGI: lower-case names, bytes.
    """

    __slots__ = ("field", "headers", "message", "status")

    def __init__(
        self, status: int, message: str, field: str | None = None, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field
        self.headers = headers


RETRY_AFTER = ((b"retry-after", b"1"),)


def bad_field(field: str, message: str) -> ApiError:
    """400: what the client sent in `field` cannot be used."""
    return ApiError(400, message, field)


def task_not_found() -> ApiError:
    """404, for a task that does not exist and for one that is somebody else's: the two cannot be told apart."""
    return ApiError(404, "Task not found")


def access_denied() -> ApiError:
    """403: the path's user is not the one who calls."""
    return ApiError(403, "Access denied")


def unauthenticated(message: str, *, token_sent: bool = True) -> ApiError:
    """401 with the challenge of RFC 6750, section 3: `error` only where a token was sent."""
    challenge = b'Bearer error="invalid_token"' if token_sent else b"Bearer"
    return ApiError(401, message, headers=((b"www-authenticate", challenge),))


def unavailable() -> ApiError:
    """503: the database is away, the service is full, or it is shutting down."""
    return ApiError(503, "Service is temporarily unavailable", headers=RETRY_AFTER)


def too_slow() -> ApiError:
    """504: the database took longer than the statement limit."""
    return ApiError(504, "The request took too long")
