"""The parts that several operations share: schemas, parameters and headers.

The forms are those that every generator of tests/clients understands: one pattern for a header, no `default`, no
`anyOf` around an object.
"""

from typing import Any

import msgspec

from service.http.limits import ID_MAX, IDEMPOTENCY_KEY_LENGTH, LIMIT_MAX, REQUEST_ID_LENGTH, USER_ID_LENGTH
from service.tasks.schemas import FIELDS, Task

Json = dict[str, Any]

_ID: Json = {"type": "integer", "format": "int64", "minimum": 1, "maximum": ID_MAX}
# RFC 9110, 8.8.3 and 13.1.1. One pattern: openapi-python-client leaves out operations whose headers have an anyOf.
_ENTITY_TAG = r'(W/)?"[!#-~]*"'
_ENTITY_TAGS: Json = {"type": "string", "pattern": rf"^(\*|{_ENTITY_TAG}( *, *{_ENTITY_TAG})*)$"}
_NO_NUL = r"^[^\u0000]*$"
# A character that str.strip leaves, and no U+0000.
_TITLE = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"

PARAMETERS: Json = {
    "user_id": {
        "name": "user_id",
        "in": "path",
        "required": True,
        # A URL library removes the segments . and .. (WHATWG URL), also where they are percent-encoded.
        "description": f"The owner: any text of 1 to {USER_ID_LENGTH} characters, percent-encoded. `.` and `..` work "
        "only with clients that send a path as it is: browsers and most libraries remove such segments.",
        "schema": {"type": "string", "minLength": 1, "maxLength": USER_ID_LENGTH, "pattern": r"^[^\u0000]+$"},
        "example": "user-1",
    },
    "task_id": {
        "name": "task_id",
        "in": "path",
        "required": True,
        "description": "The `id` of a task.",
        "schema": _ID,
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
        "description": "Maximum number of tasks in the response. Absent: all.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
    },
    "after": {
        "name": "after",
        "in": "query",
        "description": "Only tasks older than the one with this ID. The URL in `Link` has it.",
        "schema": _ID,
    },
    "If-None-Match": {
        "name": "If-None-Match",
        "in": "header",
        "description": "The ETag that the client has, a list of ETags, or `*` for any. A read of such a version is "
        "answered 304, a write to it 412.",
        "schema": _ENTITY_TAGS,
    },
    "If-Match": {
        "name": "If-Match",
        "in": "header",
        "description": "The ETag that the task must still have, a list of ETags, or `*` for any. A weak one never "
        "matches.",
        "schema": _ENTITY_TAGS,
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes this request safe to retry: within 24 hours the same key with the same body, from the "
        "same user for the same operation, creates nothing and gets the first response again. Errors are not kept.",
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

HEADERS: Json = {
    "Date": {"description": "When the response was made (RFC 9110, 6.6.1).", "schema": {"type": "string"}},
    "ETag": {"description": "The task's version, in quotes.", "schema": {"type": "string", "pattern": '^"[0-9]+"$'}},
    "ListETag": {
        "description": "Weak: a hash of the list's ids and versions. Absent from a list that is streamed.",
        "schema": {"type": "string", "pattern": '^W/"[0-9a-f]+"$'},
    },
    "Location": {"description": "The path of the new task.", "schema": {"type": "string", "format": "uri-reference"}},
    "Link": {
        "description": 'If there is more: `</api/user-1/tasks?limit=2&after=41>; rel="next"`, with every other '
        "parameter as it was (RFC 8288).",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "This is the first response to this key, sent again.",
        "schema": {"type": "string", "const": "true"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {
        "description": 'The challenge of RFC 6750: `Bearer`, with `error="invalid_token"` where a token was sent.',
        "schema": {"type": "string"},
    },
    "X-Request-ID": {
        "description": "The request's own, or a new one.",
        "schema": {"type": "string"},
    },
}


def schemas() -> Json:
    """The schemas by name. Lengths and ranges of a task's fields come from the struct."""
    fields: Json = msgspec.json.schema_components([Task])[1]["Task"]["properties"]
    fields["id"]["format"] = "int64"
    fields["title"] |= {"description": "Trimmed of white space at both ends.", "pattern": _TITLE}
    description: Json = {"type": ["string", "null"], "maxLength": fields["description"]["anyOf"][0]["maxLength"]}
    fields["description"] = description | {"pattern": _NO_NUL}
    fields["created_at"] |= {"format": "date-time", "description": "RFC 3339, in UTC."}
    fields["updated_at"] |= {"format": "date-time", "description": "Time of the last change. RFC 3339, in UTC."}
    writable = {name: fields[name] for name in FIELDS}

    def schema(description: str, properties: Json, **more: Any) -> Json:
        return {"type": "object", "description": description, "properties": properties, **more}

    return {
        "Task": schema("A task.", fields, required=list(fields)),
        "TaskCreate": schema(
            "A new task. Without `description` it has none (null); without `completed` it is not completed.",
            writable,
            required=["title"],
            additionalProperties=False,
        ),
        "TaskUpdate": schema(
            "What to change: at least one field. An absent field stays as it is; null clears the description.",
            writable,
            minProperties=1,
            additionalProperties=False,
        ),
        "TaskToggle": schema(
            "Sets `completed`.",
            {"completed": fields["completed"]},
            required=["completed"],
            additionalProperties=False,
        ),
        "ApiError": schema(
            "The JSON of every error.",
            {
                "error": {"type": "string", "description": "One sentence, for people."},
                "field": {"type": "string", "description": "The invalid field, if it is one field."},
            },
            required=["error"],
        ),
    }
