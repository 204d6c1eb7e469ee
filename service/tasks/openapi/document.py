"""Puts the document together, and introduces the API to its reader."""

from functools import lru_cache

from service import __version__
from service.http import errors
from service.http.limits import BATCH_BYTES, BODY_BYTES
from service.http.responses import encode
from service.tasks.openapi.components import HEADERS, PARAMETERS, schemas
from service.tasks.openapi.elements import Json
from service.tasks.openapi.operations import service_paths, task_paths

_INTRODUCTION = f"""\
**Bodies** are JSON objects in UTF-8 of at most {BODY_BYTES // 1024} KiB (a batch: an array of at most \
{BATCH_BYTES // 1024 // 1024} MiB). A body without a `Content-Type` is taken for JSON. Types are strict: `"5"` is not \
a number. An unknown field is an error; a read-only field of a task is accepted and ignored, so that a client can edit \
a task that it got and send it back. Lengths count Unicode code points. U+0000 is not allowed in any text.

**Errors** are `{{"error": "<one sentence>"}}`, and for an invalid field also `"field": "<its name>"`. The service \
checks in this order: unknown path (404 `{errors.not_found()}`), unknown method (405 \
`{errors.method_not_allowed(b"")}`, with `Allow`), 401, 403, path and query, 413, 415, body, 422, 404, 412. A request \
above its user's share waits for 2 seconds at most, then gets 429. Before all of these, bytes that are not a request \
get 400 `{errors.malformed_http()}`, \
slow ones 408 `{errors.request_timeout()}`, large ones 414 or 431; 417, 501 and 505 are \
for what HTTP has and the service has not. Every response carries a `Date`, and an `X-Request-ID` that is also in the \
log.

**Lost updates**: a single task comes with `ETag: "<version>"`. Send it as `If-Match` with a change, and the change is \
made only if nobody else made one in between (else 412). Send it as `If-None-Match` with a GET, and an unchanged task \
is not sent again (304).

**Retries**: a create with an `Idempotency-Key` can be sent again safely.

**HEAD** works wherever GET does.
"""
_BEARER = """\
Each user has tasks. The caller must be the user in the path, and proves it with a token: a JWT whose subject is that \
user and which expires. It comes from the identity provider of this service; where the service shares a secret with it \
(`AUTH_JWT_SECRET`), `tasks-service token user-1` prints one for development. Paste it at **Authorize**.
"""
_NO_BEARER = """\
Each user has tasks. This service needs no token: the user in the path is taken as the caller.
"""


@lru_cache(8)
def document(prefix: str = "", *, token_needed: bool) -> bytes:
    """The document as JSON.

    `prefix`: of paths, which a proxy strips. `token_needed`: a bearer token must prove the caller; else the path's user
    is the caller.
    """
    bearer: Json = {"bearer": []}
    authentication = _BEARER if token_needed else _NO_BEARER
    paths = task_paths() | service_paths()
    for path, operations in paths.items():
        for operation in operations.values():
            needs = [bearer] if token_needed else [{}, bearer]
            operation["security"] = needs if path.startswith("/api/") else []
    return encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Task service",
                "summary": "Tasks of users, over HTTP.",
                "description": f"{authentication}\n{_INTRODUCTION}",
                "version": __version__,
                "contact": {"name": "The operators of this service"},
                # The project has no licence. Redocly warns without this object, and without one of identifier and url.
                "license": {"name": "No licence is granted", "url": "https://choosealicense.com/no-permission/"},
            },
            "servers": [{"url": prefix or "/"}],
            "tags": [
                {"name": "tasks", "description": "A user's tasks. No user can read or change another user's."},
                {"name": "operations", "description": "For operators and tools. None of these needs a token."},
            ],
            "paths": paths,
            "components": {
                "schemas": schemas(),
                "parameters": PARAMETERS,
                "headers": HEADERS,
                "securitySchemes": {
                    "bearer": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "JWT",
                        "description": authentication,
                    }
                },
            },
        }
    )
