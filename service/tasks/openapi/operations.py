"""The operations: what each accepts and returns, and its errors.

An error's example is what the error catalogue returns, headers included.
"""

from service.http import errors
from service.http.limits import BATCH_BYTES, BATCH_LENGTH, BODY_BYTES
from service.tasks.openapi.elements import Errors, Json, body, operation, reference, response

# ---- Errors, by the part of the request that they concern ----

_HTTP: Errors = (errors.malformed_http(), errors.target_too_long(), errors.head_too_large())
_CALLER: Errors = (
    errors.authentication_required(),
    errors.invalid_token(),
    errors.token_expired(),
    errors.access_denied(),
    errors.invalid_user_id(),
)
_TASK_ID: Errors = (errors.invalid_task_id(), errors.task_not_found())
_QUERY: Errors = (
    errors.invalid_completed_filter(),
    errors.invalid_limit(),
    errors.invalid_after(),
    errors.parameter_repeated("limit"),
    errors.invalid_query_string(),
)
_IF_NONE_MATCH: Errors = (errors.invalid_condition("If-None-Match"),)
_CONDITIONS: Errors = (errors.invalid_condition("If-Match"), *_IF_NONE_MATCH, errors.task_changed(3))
_IDEMPOTENCY_KEY: Errors = (errors.invalid_idempotency_key(), errors.idempotency_key_reused())
_TITLE: Errors = (errors.title_not_text(), errors.title_empty(), errors.title_too_long(), errors.title_with_nul())
_DESCRIPTION: Errors = (errors.description_not_text(), errors.description_too_long(), errors.description_with_nul())
_COMPLETED: Errors = (errors.completed_not_boolean(),)
_CREATE: Errors = (errors.title_required(), *_TITLE, *_DESCRIPTION, *_COMPLETED)
_UPDATE: Errors = (errors.nothing_to_update(), *_TITLE, *_DESCRIPTION, *_COMPLETED)
_TOGGLE: Errors = (errors.completed_required(), *_COMPLETED)
_BATCH: Errors = (
    errors.not_an_array(),
    errors.invalid_batch_length(),
    errors.batch_item_too_large(3),
    *(errors.batch_item(3, error) for error in (errors.not_an_object(), errors.unknown_field("titel"), *_CREATE)),
)
_SERVICE: Errors = (
    errors.too_many_requests(),
    errors.internal_error(),
    errors.unavailable(),
    errors.database_timeout(),
)
_EVERY_TASK_OPERATION: Errors = (*_HTTP, *_CALLER, *_SERVICE)


def _body_errors(limit: int) -> Errors:
    return (errors.invalid_json(), errors.body_timeout(), errors.body_too_large(limit), errors.body_not_json())


_OBJECT: Errors = (*_body_errors(BODY_BYTES), errors.not_an_object(), errors.unknown_field("titel"))

# ---- Examples ----

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

_TASK, _TASK_CREATE = reference("schemas", "Task"), reference("schemas", "TaskCreate")
_TASKS: Json = {"type": "array", "items": _TASK}
_NEW_TASKS: Json = {"type": "array", "items": _TASK_CREATE, "minItems": 1, "maxItems": BATCH_LENGTH}
_CHANGED = {200: response("The task as it is now.", _TASK, {"task": _CHANGED_EXAMPLE}, "ETag")}


def task_paths() -> Json:
    """The paths of the seven operations on tasks."""
    collection: Json = {"get": _list_tasks(), "post": _create_task()}
    one: Json = {"get": _get_task(), "put": _update_task(), "delete": _delete_task()}
    return {
        "/api/{user_id}/tasks": collection,
        "/api/{user_id}/tasks/batch": {"post": _batch_tasks()},
        "/api/{user_id}/tasks/{task_id}": one,
        "/api/{user_id}/tasks/{task_id}/complete": {"patch": _toggle_task()},
    }


def _list_tasks() -> Json:
    examples: Json = {"two tasks": [_OTHER_EXAMPLE, _EXAMPLE], "none": []}
    return operation(
        "list_tasks",
        "List tasks",
        "The user's tasks, newest first. Without `limit` all of them, however many; with `limit` one page and, "
        'if there is more, a `Link` to the next with `rel="next"`. With `If-None-Match` a list that did not change is '
        "not sent again.",
        {
            200: response("The tasks.", _TASKS, examples, "ListETag", "Link"),
            304: response("The client has this list already.", None, {}, "ListETag"),
        },
        (*_EVERY_TASK_OPERATION, *_QUERY, *_IF_NONE_MATCH),
        parameters=("user_id", "completed", "limit", "after", "If-None-Match", "X-Request-ID"),
    )


def _create_task() -> Json:
    created = response("The task.", _TASK, {"task": _EXAMPLE}, "ETag", "Location", "Idempotency-Replayed")
    return operation(
        "create_task",
        "Create a task",
        "A user needs no registration.",
        {201: created},
        (*_EVERY_TASK_OPERATION, *_IDEMPOTENCY_KEY, *_OBJECT, *_CREATE),
        parameters=("user_id", "Idempotency-Key", "X-Request-ID"),
        body=body(_TASK_CREATE, _NEW_EXAMPLES),
    )


def _batch_tasks() -> Json:
    examples: Json = {"two tasks": [_EXAMPLE, _OTHER_EXAMPLE]}
    return operation(
        "batch_tasks",
        "Create many tasks",
        f"1 to {BATCH_LENGTH} tasks, all or nothing. An error names item and field, from 0: `3.title`.",
        {201: response("The tasks, in the order sent.", _TASKS, examples, "Idempotency-Replayed")},
        (*_EVERY_TASK_OPERATION, *_IDEMPOTENCY_KEY, *_body_errors(BATCH_BYTES), *_BATCH),
        parameters=("user_id", "Idempotency-Key", "X-Request-ID"),
        body=body(_NEW_TASKS, {"two tasks": list(_NEW_EXAMPLES.values())}),
    )


def _get_task() -> Json:
    return operation(
        "get_task",
        "Get a task",
        "With `If-None-Match` the task is sent only if the client does not have it already.",
        {
            200: response("The task.", _TASK, {"task": _EXAMPLE}, "ETag"),
            304: response("The client has this version already.", None, {}, "ETag"),
        },
        (*_EVERY_TASK_OPERATION, *_TASK_ID, *_IF_NONE_MATCH),
        parameters=("user_id", "task_id", "If-None-Match", "X-Request-ID"),
    )


def _update_task() -> Json:
    return operation(
        "update_task",
        "Update a task",
        "Changes the fields that are sent. `version` moves only if something really changes. The read-only fields of a "
        "task (`id`, `user_id`, `version`, `created_at`, `updated_at`) are accepted and ignored: what protects another "
        "client's change is `If-Match`.",
        _CHANGED,
        (*_EVERY_TASK_OPERATION, *_TASK_ID, *_CONDITIONS, *_OBJECT, *_UPDATE),
        parameters=("user_id", "task_id", "If-Match", "If-None-Match", "X-Request-ID"),
        body=body(
            reference("schemas", "TaskUpdate"),
            {
                "one field": {"completed": True},
                "clear the description": {"description": None},
                "several fields": {"title": "Buy oat milk", "description": "A litre"},
            },
        ),
    )


def _delete_task() -> Json:
    return operation(
        "delete_task",
        "Delete a task",
        "Deletes the task for good.",
        {204: response("The task is deleted.", None, {})},
        (*_EVERY_TASK_OPERATION, *_TASK_ID, *_CONDITIONS),
        parameters=("user_id", "task_id", "If-Match", "If-None-Match", "X-Request-ID"),
    )


def _toggle_task() -> Json:
    return operation(
        "toggle_task",
        "Complete a task, or reopen it",
        "Without a body `completed` flips. With a body it is set, so that a retry is safe.",
        _CHANGED,
        (*_EVERY_TASK_OPERATION, *_TASK_ID, *_CONDITIONS, *_OBJECT, *_TOGGLE),
        parameters=("user_id", "task_id", "If-Match", "If-None-Match", "X-Request-ID"),
        body=body(
            reference("schemas", "TaskToggle"),
            {"complete": {"completed": True}, "reopen": {"completed": False}},
            required=False,
        ),
    )


# ---- For operators and tools ----


def service_paths() -> Json:
    """The paths that need no token: probes, metrics, this document and its page."""

    def get(name: str, summary: str, description: str, success: Json, errors: Errors = ()) -> Json:
        return {"get": operation(name, summary, description, {200: success}, (*_HTTP, *errors), tag="operations")}

    def state(word: str) -> Json:
        schema = {"type": "object", "properties": {"status": {"const": word}}, "required": ["status"]}
        return response("Yes.", schema, {word: {"status": word}})

    def text(description: str, media_type: str) -> Json:
        return response(description, {"type": "string"}, {}, media_type=media_type)

    return {
        "/livez": get("livez", "Liveness", "The process responds. Never asks the database.", state("ok")),
        "/readyz": get(
            "readyz",
            "Readiness",
            "Whether the service can serve, from what is known already: it never asks the database, so that probes do "
            "not keep a suspended one awake.",
            state("ready"),
            (
                errors.shutting_down(),
                errors.database_unreachable(),
                errors.schema_mismatch(),
                errors.database_read_only(),
            ),
        ),
        "/metrics": get(
            "metrics",
            "Metrics",
            "All workers together, in Prometheus's text format.",
            text("The metrics.", "text/plain"),
        ),
        "/openapi.json": get(
            "openapi",
            "This document",
            "OpenAPI 3.1.",
            response("The document.", {"type": "object"}, {}),
            (errors.unavailable(),),
        ),
        "/docs": get(
            "docs",
            "This document as a page",
            "Operations can be tried out there. Works without internet.",
            text("The page.", "text/html"),
            (errors.unavailable(),),
        ),
    }
