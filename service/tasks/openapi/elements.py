"""How an operation, a response and a body are written in OpenAPI.

Must not import the schemas of tasks.
"""

from typing import Any

from service.http.errors import ApiError, ErrorBody
from service.tasks.openapi.components import HEADERS

Json = dict[str, Any]
Errors = tuple[ApiError, ...]

# What each status means, for all operations alike.
_MEANINGS = {
    400: "The request, its path, its query, a header or the body breaks a rule: the sentence says which.",
    401: "No token, or an invalid one.",
    403: "The path's user is not the authenticated one, or a page of another site sent this.",
    404: "No such task, or another user's: a client cannot tell them apart.",
    408: "The body did not arrive in time. The connection is closed.",
    412: "The condition of `If-Match` or `If-None-Match` does not hold; `ETag` is the task's present version. Nothing "
    "was changed.",
    413: "The body is too large. The connection is closed.",
    414: "The request's target is too long. The connection is closed.",
    415: "The body is not plain JSON.",
    422: "The key was used within 24 hours for a request with another body. Nothing was created.",
    429: "This user has too many requests in flight, for 2 s already. Retry after `Retry-After` seconds.",
    431: "The request's headers are too large. The connection is closed.",
    500: "A defect of the service.",
    503: "The service cannot do this now. Retry after `Retry-After` seconds.",
    504: "The database took longer than the statement limit.",
}


def reference(kind: str, name: str) -> Json:
    """A reference to a component: `kind` is schemas, parameters or headers."""
    return {"$ref": f"#/components/{kind}/{name}"}


def operation(
    name: str,
    summary: str,
    description: str,
    responses: dict[int, Json],
    errors: Errors,
    *,
    parameters: tuple[str, ...] = (),
    body: Json | None = None,
    tag: str = "tasks",
) -> Json:
    """An operation whose successes are `responses`. `errors` become one response for each status, with examples."""
    by_status: dict[int, list[ApiError]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    described: Json = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "responses": {str(status): success for status, success in responses.items()}
        | {str(status): _error_response(status, by_status[status]) for status in sorted(by_status)},
    }
    if parameters:
        described["parameters"] = [reference("parameters", name) for name in parameters]
    if body is not None:
        described["requestBody"] = body
    return described


def response(
    description: str, schema: Json | None, examples: Json, *headers: str, media_type: str = "application/json"
) -> Json:
    """A response with these headers, each a name in components.HEADERS. Without a schema it has no body."""
    names = {"ETag" if name == "ListETag" else name: name for name in ("Date", *headers, "X-Request-ID")}
    described: Json = {
        "description": description,
        "headers": {name: reference("headers", component) for name, component in names.items()},
    }
    if schema is not None:
        described["content"] = _content(schema, examples, media_type)
    return described


def body(schema: Json, examples: Json, *, required: bool = True) -> Json:
    """A request's body."""
    return {"required": required, "content": _content(schema, examples)}


def _error_response(status: int, errors: list[ApiError]) -> Json:
    headers = [name for name in HEADERS if any(name.lower().encode() == given for given, _ in errors[0].headers)]
    examples = {error.message: ErrorBody(error.message, error.field) for error in errors}
    return response(_MEANINGS[status], reference("schemas", "ApiError"), examples, *headers)


def _content(schema: Json, examples: Json, media_type: str = "application/json") -> Json:
    named = {name: {"value": value} for name, value in examples.items()}
    return {media_type: {"schema": schema} | ({"examples": named} if named else {})}
