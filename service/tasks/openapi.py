"""The service described for programs and for the page at /docs: one OpenAPI 3.1 document, encoded once.

A task handler takes a TaskRequest and gives an Response, so its signature says nothing of what is sent: it stands here,
as tables. An error's example is the ApiError itself, headers included. Knows the wire types and the errors' sentences.
Must not know how either comes about: tests hold this against the routes and against what they really answer.
"""

from typing import Any

import msgspec

from service import __version__
from service.http import errors
from service.http.errors import ApiError, ErrorBody
from service.http.limits import (
    BATCH_BYTES,
    BATCH_LENGTH,
    BODY_BYTES,
    ID_MAX,
    IDEMPOTENCY_KEY_LENGTH,
    LIMIT_MAX,
    REQUEST_ID_LENGTH,
    USER_ID_LENGTH,
)
from service.http.responses import encode
from service.tasks.schemas import Task

Json = dict[str, Any]
Problems = tuple[ApiError, ...]

READ_ONLY = ("id", "user_id", "version", "created_at", "updated_at")


def document(*, token_needed: bool) -> bytes:
    """The document. `token_needed`: a bearer token must prove who calls; else the path's user is believed."""
    bearer: Json = {"bearer": []}
    security = [bearer] if token_needed else [{}, bearer]
    paths = _task_paths()
    for path in paths.values():
        for operation in path.values():
            operation["security"] = security
    return encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Task service",
                "summary": "Tasks of users, over HTTP.",
                "description": _INTRODUCTION,
                "version": __version__,
            },
            "tags": [
                {"name": "tasks", "description": "A user's tasks. Nobody sees or touches another user's."},
                {"name": "operations", "description": "For operators and tools. None of these needs a token."},
            ],
            "paths": paths | _operations_paths(),
            "components": {
                "schemas": _schemas(),
                "parameters": _PARAMETERS,
                "headers": _HEADERS,
                "securitySchemes": {
                    "bearer": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "JWT",
                        "description": "A JWT whose subject is the user of the path. It must have an expiry. "
                        + ("This service demands one." if token_needed else "This service believes the path instead."),
                    }
                },
            },
        }
    )


_INTRODUCTION = f"""\
Each user has tasks. Who calls must be the user in the path.

**Bodies** are JSON objects in UTF-8 of at most {BODY_BYTES // 1024} KiB (a batch: an array of at most \
{BATCH_BYTES // 1024 // 1024} MiB). A body without a `Content-Type` is taken for JSON. Types are strict: `"5"` is not \
a number. A field that no task has is an error; a read-only field of a task is accepted and ignored, so that what a \
client got it can edit and put back. Lengths count Unicode code points. U+0000 is not allowed in any text.

**Errors** have one shape, whoever makes them: `{{"error": "<one sentence>"}}`, and for a bad field also \
`"field": "<its name>"`. They are looked for in this order: unknown path (404 `{errors.not_found()}`), unknown method \
(405 `{errors.method_not_allowed(b"")}`, with `Allow`), 401, 403, path and query, 413, 415, body, 422, 404, 412. What \
does not get as far as a path is answered 400 `{errors.malformed_http()}`, 408 `{errors.request_timeout()}` or 431 \
`{errors.head_too_large()}`. Every response carries an `X-Request-ID`, which is also in the log.

**Not losing what somebody else wrote**: a single task comes with `ETag: "<version>"`. Send it as `If-Match` with a \
change, and the change is made only if nobody else made one in between (else 412). Send it as `If-None-Match` with a \
GET, and an unchanged task is not sent again (304). A create with an `Idempotency-Key` can be sent again safely.

**HEAD** is answered wherever GET is.
"""

# ---- What can go wrong, by what a request has in it ----

_CALLER: Problems = (
    errors.authentication_required(),
    errors.invalid_token(),
    errors.token_expired(),
    errors.access_denied(),
    errors.invalid_user_id(),
)
_TASK_ID: Problems = (errors.invalid_task_id(), errors.task_not_found())
_QUERY: Problems = (
    errors.invalid_completed_filter(),
    errors.invalid_limit(),
    errors.invalid_after(),
    errors.parameter_repeated("limit"),
    errors.invalid_query_string(),
)
_IF_NONE_MATCH: Problems = (errors.invalid_condition("If-None-Match"),)
_IF_MATCH: Problems = (errors.invalid_condition("If-Match"), errors.task_changed(3))
_IDEMPOTENCY_KEY: Problems = (errors.invalid_idempotency_key(), errors.idempotency_key_reused())
_TITLE: Problems = (
    errors.title_not_text(),
    errors.title_empty(),
    errors.title_too_long(),
    errors.title_with_nul(),
)
_DESCRIPTION: Problems = (
    errors.description_not_text(),
    errors.description_too_long(),
    errors.description_with_nul(),
)
_COMPLETED: Problems = (errors.completed_not_boolean(),)
_CREATE: Problems = (errors.title_required(), *_TITLE, *_DESCRIPTION, *_COMPLETED)
_UPDATE: Problems = (errors.nothing_to_update(), *_TITLE, *_DESCRIPTION, *_COMPLETED)
_TOGGLE: Problems = (errors.completed_required(), *_COMPLETED)
_BATCH: Problems = (
    errors.not_an_array(),
    errors.invalid_batch_length(),
    *(errors.batch_item(3, error) for error in (errors.not_an_object(), errors.unknown_field("titel"), *_CREATE)),
)
_SERVICE: Problems = (errors.internal_error(), errors.unavailable(), errors.database_timeout())


def _body_problems(limit: int = BODY_BYTES) -> Problems:
    return (errors.invalid_json(), errors.body_timeout(), errors.body_too_large(limit), errors.body_not_json())


_OBJECT = (*_body_problems(), errors.not_an_object(), errors.unknown_field("titel"))

# What each status means, once for all operations.
_MEANINGS = {
    400: "Something in the path, the query, a header or the body breaks a rule: the sentence says which.",
    401: "No token, or one that does not hold.",
    403: "The path's user is not the one who calls.",
    404: "No such task, or not this user's: the two cannot be told apart.",
    408: "The body did not arrive in time. The connection is closed.",
    412: "The task is not at a version that `If-Match` names; `ETag` has the one it is at. Nothing was changed.",
    413: "The body is too large. The connection is closed.",
    415: "The body is not plain JSON.",
    422: "The key was used within 24 hours for a request with another body. Nothing was created.",
    500: "A defect of the service.",
    503: "The service cannot answer now. Try again after `Retry-After` seconds.",
    504: "The database took longer than it may.",
}

# ---- The operations ----

_EXAMPLE: Json = {
    "id": 42,
    "user_id": "user-1",
    "title": "Buy milk",
    "description": None,
    "completed": False,
    "version": 1,
    "created_at": "2026-11-21T04:22:00.123456Z",
    "updated_at": "2026-11-21T04:22:00.123456Z",
}
_CHANGED_EXAMPLE: Json = _EXAMPLE | {"completed": True, "version": 2, "updated_at": "2026-11-21T05:00:00.654321Z"}
_OTHER_EXAMPLE: Json = _EXAMPLE | {"id": 43, "title": "Call Ada", "description": "About the engine"}
_NEW_EXAMPLES: Json = {
    "title alone": {"title": "Buy milk"},
    "everything": {"title": "Call Ada", "description": "About the engine", "completed": False},
}


def _task_paths() -> Json:
    task, tasks = _reference("schemas", "Task"), {"type": "array", "items": _reference("schemas", "Task")}
    changed = {200: _answer("The task as it is now.", task, {"task": _CHANGED_EXAMPLE}, "ETag")}
    return {
        "/api/{user_id}/tasks": {
            "get": _operation(
                "list_tasks",
                "List tasks",
                "The user's tasks, newest first. Without `limit` all of them, however many; with `limit` one page and, "
                'if there is more, a `Link` to the next with `rel="next"`.',
                {200: _answer("The tasks.", tasks, {"two tasks": [_OTHER_EXAMPLE, _EXAMPLE], "none": []}, "Link")},
                (*_CALLER, *_QUERY, *_SERVICE),
                parameters=("user_id", "completed", "limit", "after", "X-Request-ID"),
            ),
            "post": _operation(
                "create_task",
                "Create a task",
                "A user needs no registration: the first task makes the user known.",
                {201: _answer("The task.", task, {"task": _EXAMPLE}, "ETag", "Location", "Idempotency-Replayed")},
                (*_CALLER, *_IDEMPOTENCY_KEY, *_OBJECT, *_CREATE, *_SERVICE),
                parameters=("user_id", "Idempotency-Key", "X-Request-ID"),
                body=_body(_reference("schemas", "TaskCreate"), _NEW_EXAMPLES),
            ),
        },
        "/api/{user_id}/tasks/batch": {
            "post": _operation(
                "batch_tasks",
                "Create many tasks",
                f"1 to {BATCH_LENGTH} tasks, all or nothing. An error names item and field, from 0: `3.title`.",
                {
                    201: _answer(
                        "The tasks, in the order sent.",
                        tasks,
                        {"two tasks": [_EXAMPLE, _OTHER_EXAMPLE]},
                        "Idempotency-Replayed",
                    )
                },
                (*_CALLER, *_IDEMPOTENCY_KEY, *_body_problems(BATCH_BYTES), *_BATCH, *_SERVICE),
                parameters=("user_id", "Idempotency-Key", "X-Request-ID"),
                body=_body(
                    {
                        "type": "array",
                        "items": _reference("schemas", "TaskCreate"),
                        "minItems": 1,
                        "maxItems": BATCH_LENGTH,
                    },
                    {"two tasks": list(_NEW_EXAMPLES.values())},
                ),
            ),
        },
        "/api/{user_id}/tasks/{task_id}": {
            "get": _operation(
                "get_task",
                "Get a task",
                "With `If-None-Match` it is sent only if the client does not have it already.",
                {
                    200: _answer("The task.", task, {"task": _EXAMPLE}, "ETag"),
                    304: _answer("The client has this version already.", None, {}, "ETag"),
                },
                (*_CALLER, *_TASK_ID, *_IF_NONE_MATCH, *_SERVICE),
                parameters=("user_id", "task_id", "If-None-Match", "X-Request-ID"),
            ),
            "put": _operation(
                "update_task",
                "Update a task",
                "Changes what is sent and leaves the rest: absent is not null. `version` moves only if something "
                "really changes.",
                changed,
                (*_CALLER, *_TASK_ID, *_IF_MATCH, *_OBJECT, *_UPDATE, *_SERVICE),
                parameters=("user_id", "task_id", "If-Match", "X-Request-ID"),
                body=_body(
                    _reference("schemas", "TaskUpdate"),
                    {
                        "one field": {"completed": True},
                        "clear the description": {"description": None},
                        "what came, edited": _EXAMPLE | {"title": "Buy oat milk"},
                    },
                ),
            ),
            "delete": _operation(
                "delete_task",
                "Delete a task",
                "For good.",
                {204: _answer("It is gone.", None, {})},
                (*_CALLER, *_TASK_ID, *_IF_MATCH, *_SERVICE),
                parameters=("user_id", "task_id", "If-Match", "X-Request-ID"),
            ),
        },
        "/api/{user_id}/tasks/{task_id}/complete": {
            "patch": _operation(
                "toggle_task",
                "Complete a task, or take that back",
                "Without a body `completed` flips; with one it is set, so that a retry is safe.",
                changed,
                (*_CALLER, *_TASK_ID, *_IF_MATCH, *_OBJECT, *_TOGGLE, *_SERVICE),
                parameters=("user_id", "task_id", "If-Match", "X-Request-ID"),
                body=_body(
                    _reference("schemas", "TaskToggle"),
                    {"complete": {"completed": True}, "not complete": {"completed": False}},
                    required=False,
                ),
            ),
        },
    }


def _operations_paths() -> Json:
    def get(name: str, summary: str, description: str, answers: dict[int, Json], problems: Problems) -> Json:
        return {"get": _operation(name, summary, description, answers, problems, tag="operations")}

    def state(word: str) -> Json:
        schema = {"type": "object", "properties": {"status": {"const": word}}, "required": ["status"]}
        return _answer("Yes.", schema, {word: {"status": word}})

    def text(description: str, media_type: str) -> Json:
        return _answer(description, {"type": "string"}, {}, media_type=media_type)

    not_ready = (errors.shutting_down(), errors.database_unreachable(), errors.schema_mismatch())
    busy = (errors.unavailable(),)
    return {
        "/livez": get("livez", "Does the process turn?", "Never asks the database.", {200: state("ok")}, ()),
        "/readyz": get(
            "readyz",
            "Can the service serve?",
            "From what is known already: never asks the database, so a probe every second does not keep one awake that "
            "would sleep.",
            {200: state("ready")},
            not_ready,
        ),
        "/metrics": get(
            "metrics",
            "What the service did",
            "The figures of all workers together, in Prometheus's text format.",
            {200: text("The figures.", "text/plain")},
            (),
        ),
        "/openapi.json": get(
            "openapi",
            "This document",
            "OpenAPI 3.1.",
            {200: _answer("The document.", {"type": "object"}, {})},
            busy,
        ),
        "/docs": get(
            "docs",
            "This document as a page",
            "Operations can be tried out there. Works without internet.",
            {200: text("The page.", "text/html")},
            busy,
        ),
    }


# ---- What a request carries and an answer brings ----

_ENTITY_TAGS: Json = {  # RFC 9110, 8.8.3 and 13.1.1
    "type": "string",
    "anyOf": [{"const": "*"}, {"pattern": r'^(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*$'}],
    "examples": ['"1"', '"1", "2"', "*"],
}
_PARAMETERS: Json = {
    "user_id": {
        "name": "user_id",
        "in": "path",
        "required": True,
        "description": f"The owner: any text of 1 to {USER_ID_LENGTH} characters, percent-encoded.",
        "schema": {"type": "string", "minLength": 1, "maxLength": USER_ID_LENGTH, "pattern": r"^[^\u0000]+$"},
        "example": "user-1",
    },
    "task_id": {
        "name": "task_id",
        "in": "path",
        "required": True,
        "schema": {"type": "integer", "format": "int64", "minimum": 1, "maximum": ID_MAX},
        "example": 42,
    },
    "completed": {
        "name": "completed",
        "in": "query",
        "description": "Only tasks that are, or are not, completed.",
        "schema": {"type": "boolean"},
    },
    "limit": {
        "name": "limit",
        "in": "query",
        "description": "The most tasks in one answer. Absent: all.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
    },
    "after": {
        "name": "after",
        "in": "query",
        "description": "Only tasks older than the one with this ID. `Link` has it ready.",
        "schema": {"type": "integer", "format": "int64", "minimum": 1, "maximum": ID_MAX},
    },
    "If-None-Match": {
        "name": "If-None-Match",
        "in": "header",
        "description": 'The ETag of the version that the client has: `"1"`, or a list of them; `*`: any.',
        "schema": _ENTITY_TAGS,
    },
    "If-Match": {
        "name": "If-Match",
        "in": "header",
        "description": 'The ETag that the task must still have: `"1"`, or one of a list; `*`: any. A weak tag is none.',
        "schema": _ENTITY_TAGS,
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes it safe to send this again: within 24 hours the same key with the same body, from the "
        "same user for the same operation, creates nothing and gets the first answer again. What was refused is not "
        "remembered.",
        "schema": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_LENGTH, "pattern": "^[!-~]+$"},
    },
    "X-Request-ID": {
        "name": "X-Request-ID",
        "in": "header",
        "description": f"Up to {REQUEST_ID_LENGTH} visible ASCII characters, repeated in response and log. "
        "Anything else is ignored.",
        "schema": {"type": "string"},
    },
}
_HEADERS: Json = {
    "ETag": {"description": "The task's version, in quotes.", "schema": {"type": "string", "pattern": '^"[0-9]+"$'}},
    "Location": {"description": "The path of the new task.", "schema": {"type": "string", "format": "uri-reference"}},
    "Link": {
        "description": 'If there is more: `</api/user-1/tasks?limit=2&after=41>; rel="next"`, with every other '
        "parameter as it was (RFC 8288).",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "The first answer to this key, again.",
        "schema": {"type": "string", "const": "true"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {
        "description": 'The challenge of RFC 6750: `Bearer`, with `error="invalid_token"` where a token was sent.',
        "schema": {"type": "string"},
    },
    "X-Request-ID": {
        "description": "The one that came in, or a new one.",
        "schema": {"type": "string"},
    },
}


def _schemas() -> Json:
    fields: Json = msgspec.json.schema_components([Task])[1]["Task"]["properties"]
    for name in READ_ONLY:
        fields[name]["readOnly"] = True
    fields["id"]["format"] = "int64"
    for name, text in (
        ("created_at", "RFC 3339, in UTC."),
        ("updated_at", "The time of the last change. RFC 3339, in UTC."),
    ):
        fields[name] |= {"format": "date-time", "description": text}
    fields["title"] |= {
        "description": "Counted after white space at both ends is taken away.",
        # something besides white space, and no U+0000
        "pattern": r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$",
    }
    fields["description"]["anyOf"][0]["pattern"] = r"^[^\u0000]*$"

    def schema(description: str, names: Json, **more: Any) -> Json:
        return {"type": "object", "description": description, "properties": names, **more}

    return {
        "Task": schema("A task.", fields, required=list(fields)),
        "TaskCreate": schema(
            "A new task.",
            fields
            | {
                "description": fields["description"] | {"default": None},
                "completed": fields["completed"] | {"default": False},
            },
            required=["title"],
            additionalProperties=False,
        ),
        "TaskUpdate": schema(
            "What is to change. At least one of title, description and completed.",
            fields,
            anyOf=[{"required": [name]} for name in fields if name not in READ_ONLY],
            additionalProperties=False,
        ),
        "TaskToggle": schema(
            "Sets `completed`.",
            {"completed": fields["completed"]},
            required=["completed"],
            additionalProperties=False,
        ),
        "Error": schema(
            "The one shape of every error.",
            {
                "error": {"type": "string", "description": "One sentence, for people."},
                "field": {"type": "string", "description": "The field that cannot be used, where it is one."},
            },
            required=["error"],
        ),
    }


# ---- How an operation is put together ----


def _operation(
    name: str,
    summary: str,
    description: str,
    answers: dict[int, Json],
    problems: Problems,
    *,
    parameters: tuple[str, ...] = (),
    body: Json | None = None,
    tag: str = "tasks",
) -> Json:
    by_status: dict[int, list[ApiError]] = {}
    for problem in problems:
        by_status.setdefault(problem.status, []).append(problem)
    operation: Json = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "responses": {str(status): answer for status, answer in answers.items()}
        | {str(status): _refusal(status, by_status[status]) for status in sorted(by_status)},
    }
    if parameters:
        operation["parameters"] = [_reference("parameters", name) for name in parameters]
    if body is not None:
        operation["requestBody"] = body
    return operation


def _refusal(status: int, problems: list[ApiError]) -> Json:
    headers = [name for name in _HEADERS if any(name.lower().encode() == given for given, _ in problems[0].headers)]
    examples = {problem.message: ErrorBody(problem.message, problem.field) for problem in problems}
    return _answer(_MEANINGS[status], _reference("schemas", "Error"), examples, *headers)


def _answer(
    description: str, schema: Json | None, examples: Json, *headers: str, media_type: str = "application/json"
) -> Json:
    answer: Json = {
        "description": description,
        "headers": {name: _reference("headers", name) for name in (*headers, "X-Request-ID")},
    }
    if schema is not None:
        answer["content"] = _content(schema, examples, media_type)
    return answer


def _body(schema: Json, examples: Json, *, required: bool = True) -> Json:
    return {"required": required, "content": _content(schema, examples)}


def _content(schema: Json, examples: Json, media_type: str = "application/json") -> Json:
    named = {name: {"value": value} for name, value in examples.items()}
    return {media_type: {"schema": schema} | ({"examples": named} if named else {})}


def _reference(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}
