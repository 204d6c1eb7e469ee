"""The wire types: request and response bodies, and the rules for each field.

A body is decoded strictly by msgspec in one go. Where that fails, msgspec's message becomes the contract's sentence.
"""

import re
from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from service.http import errors
from service.http.errors import ApiError
from service.http.limits import DESCRIPTION_LENGTH, ID_MAX, TITLE_LENGTH, USER_ID_LENGTH


class Task(msgspec.Struct, frozen=True, gc=False):
    """A task as it goes out. The fields stand in the order in which every statement selects them."""

    id: Annotated[int, Meta(ge=1, le=ID_MAX, description="Assigned by the database, unique over all users.")]
    user_id: Annotated[
        str, Meta(min_length=1, max_length=USER_ID_LENGTH, description="The owner, as given in the path.")
    ]
    title: Annotated[str, Meta(min_length=1, max_length=TITLE_LENGTH)]
    description: Annotated[str, Meta(max_length=DESCRIPTION_LENGTH)] | None
    completed: bool
    version: Annotated[int, Meta(ge=1, description="1 at creation, one more at every change. Also the ETag.")]
    created_at: datetime
    updated_at: datetime


class _ReadOnly(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Fields of a task that a client may send back but not set: accepted and ignored."""

    id: Raw | UnsetType = UNSET
    user_id: Raw | UnsetType = UNSET
    version: Raw | UnsetType = UNSET
    created_at: Raw | UnsetType = UNSET
    updated_at: Raw | UnsetType = UNSET


class TaskCreate(_ReadOnly):
    """A new task. Raises ApiError (400) for a title or description that breaks a rule."""

    title: str
    description: str | None = None
    completed: bool = False

    def __post_init__(self) -> None:
        self.title = _title(self.title)
        if self.description is not None:
            _check_description(self.description)


class TaskUpdate(_ReadOnly):
    """What is to change: absent is not null. Raises ApiError (400) for a value that breaks a rule, or with no field."""

    title: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    completed: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.title is not UNSET:
            self.title = _title(self.title)
        if isinstance(self.description, str):
            _check_description(self.description)
        if _changes_of(self) == _NO_CHANGES:
            raise errors.nothing_to_update()


# The fields that clients set, in the order of a Task's fields.
FIELDS = TaskCreate.__struct_fields__[: -len(_ReadOnly.__struct_fields__)]
values_of: Callable[[TaskCreate], tuple[str, str | None, bool]] = attrgetter(*FIELDS)
_changes_of: Callable[[TaskUpdate], tuple[object, ...]] = attrgetter(*FIELDS)
_NO_CHANGES = (UNSET,) * len(FIELDS)


class TaskToggle(msgspec.Struct, forbid_unknown_fields=True):
    """Sets completed, so that a retry is safe."""

    completed: bool


Body = TypeVar("Body", bound=msgspec.Struct)


def _decoder(kind: type[Body]) -> Callable[[bytes], Body]:
    decode = msgspec.json.Decoder(kind).decode

    def decode_body(body: bytes) -> Body:
        try:
            struct = decode(body)
            if not body.isascii():
                body.decode()  # msgspec does not look into the strings of ignored fields
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _explain(error, body, kind) from error
        return struct

    return decode_body


# From the bytes of a body to its struct. Each raises ApiError (400).
decode_create = _decoder(TaskCreate)
decode_update = _decoder(TaskUpdate)
decode_toggle = _decoder(TaskToggle)


def _title(text: str) -> str:
    title = text.strip()
    if not title:
        raise errors.title_empty()
    if len(title) > TITLE_LENGTH:
        raise errors.title_too_long()
    if "\0" in title:
        raise errors.title_with_nul()
    return title


def _check_description(text: str) -> None:
    if len(text) > DESCRIPTION_LENGTH:
        raise errors.description_too_long()
    if "\0" in text:
        raise errors.description_with_nul()


# ---- What is wrong, for a body that could not be decoded ----
# msgspec's message names the first wrong field, so that the body need not be decoded again. Its wording is held by
# tests/unit/test_structs.py.

# A field that is not in its table is a defect of the service: a KeyError, so 500, and never another field's sentence.
_REQUIRED = {"title": errors.title_required, "completed": errors.completed_required}
_WRONG_TYPE = {
    "title": errors.title_not_text,
    "description": errors.description_not_text,
    "completed": errors.completed_not_boolean,
}
_UNKNOWN = "Object contains unknown field `"
_FIELD = re.compile(r"(?: - at `\$\.|missing required field `)([a-z0-9_]+)`$")


def _explain(error: Exception, body: bytes, kind: type[msgspec.Struct]) -> ApiError:
    if not isinstance(error, msgspec.ValidationError) or not is_json(body):
        return errors.invalid_json()
    message = str(error)
    if message.startswith(_UNKNOWN):
        return errors.unknown_field(message.removeprefix(_UNKNOWN).removesuffix("`"))
    match = _FIELD.search(message)
    if match is None:
        return errors.not_an_object()
    name = match[1]
    if "missing" in message or (name == "title" and kind is TaskCreate and "got `null`" in message):
        return _REQUIRED[name]()
    return _WRONG_TYPE[name]()


_skip = msgspec.json.Decoder(Raw).decode


def is_json(body: bytes) -> bool:
    """Whether this is JSON in UTF-8."""
    try:
        _skip(body)
        body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
