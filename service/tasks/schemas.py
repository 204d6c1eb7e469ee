"""The wire types: what comes in, what goes out, and the rules that a body must keep.

A body is decoded strictly by msgspec in one go. Only where that fails is it looked at a second time, slowly, to say in
the contract's words what is wrong with which field.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from service.http import errors
from service.http.errors import ApiError
from service.http.limits import BATCH_LENGTH, DESCRIPTION_LENGTH, ID_MAX, TITLE_LENGTH, USER_ID_LENGTH


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
        if self.title is UNSET and self.description is UNSET and self.completed is UNSET:
            raise errors.nothing_to_update()


class TaskToggle(msgspec.Struct, forbid_unknown_fields=True):
    """Sets completed, so that a retry is safe."""

    completed: bool


Batch = Annotated[list[TaskCreate], Meta(min_length=1, max_length=BATCH_LENGTH)]

Body = TypeVar("Body", bound=msgspec.Struct)


def _decoder(kind: type[Body]) -> Callable[[bytes], Body]:
    decode = msgspec.json.Decoder(kind).decode

    def decode_body(body: bytes) -> Body:
        try:
            return decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _explain(body, kind) from error

    return decode_body


# From the bytes of a body to its struct. Each raises ApiError (400).
decode_create = _decoder(TaskCreate)
decode_update = _decoder(TaskUpdate)
decode_toggle = _decoder(TaskToggle)


_batch = msgspec.json.Decoder(Batch).decode
_raw = msgspec.json.Decoder(Raw).decode
_raw_items = msgspec.json.Decoder(list[Raw]).decode


def decode_batch(body: bytes) -> list[TaskCreate]:
    """From the bytes of a batch to its items. Raises ApiError (400), for a bad item with its index, from 0, as in
    `3.title`.
    """
    try:
        return _batch(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ApiError) as error:
        raise _explain_batch(body) from error


def _explain_batch(body: bytes) -> ApiError:
    try:
        body.decode()  # strings that stay raw are not looked into
        _raw(body)
        items = _raw_items(body)
    except msgspec.ValidationError:
        return errors.not_an_array()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return errors.invalid_json()
    if not 1 <= len(items) <= BATCH_LENGTH:
        return errors.invalid_batch_length()
    for index, item in enumerate(items):
        try:
            decode_create(bytes(item))
        except ApiError as error:
            return errors.batch_item(index, error)
    return errors.invalid_json()


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


def _explain(body: bytes, kind: type[msgspec.Struct]) -> ApiError:
    """What is wrong with a body that is not a `kind`."""
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return errors.invalid_json()
    if not isinstance(given, dict):
        return errors.not_an_object()
    return explain_object(given, kind)  # pyright: ignore[reportUnknownArgumentType]


def explain_object(given: dict[str, Any], kind: type[msgspec.Struct]) -> ApiError:
    """What is wrong with a JSON object that is not a `kind`: one field that cannot be used."""
    known = kind.__struct_fields__
    for name in given:
        if name not in known:
            return errors.unknown_field(name)
    if kind is TaskCreate and given.get("title") is None:
        return errors.title_required()
    if "title" in given and not isinstance(given["title"], str):
        return errors.title_not_text()
    if not isinstance(given.get("description"), str | None):
        return errors.description_not_text()
    if kind is TaskToggle and "completed" not in given:
        return errors.completed_required()
    return errors.completed_not_boolean()
