"""Bodies: whatever comes in becomes a struct that the schema can hold, or a ApiError (400). Nothing else."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw, UnsetType

from service.http import errors
from service.http.errors import ApiError
from service.http.limits import DESCRIPTION_LENGTH, TITLE_LENGTH
from service.http.slices import LargeWork, Slices
from service.tasks.batch import decode_batch
from service.tasks.schemas import (
    TaskCreate,
    TaskToggle,
    TaskUpdate,
    decode_create,
    decode_toggle,
    decode_update,
)

DECODERS = [decode_create, decode_update, decode_toggle]

# JSON as clients get it wrong: the right names with any values, near misses, any nesting.
NAMES = st.sampled_from(["title", "description", "completed", "id", "user_id", "version", "created_at", "titel"])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=10) | st.sampled_from(
    [" ", "x" * 255, "x" * 256, "\0", "😀" * 255, "d" * 5000, "d" * 5001]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
DOCUMENTS = st.dictionaries(NAMES | TEXTS, VALUES, max_size=5) | VALUES


def fits(title: Any, description: Any, completed: Any) -> bool:
    """Whether the schema's CHECKs would hold."""
    return (
        (title is UNSET or (1 <= len(title) <= TITLE_LENGTH and title == title.strip() and "\0" not in title))
        and (description in (UNSET, None) or (len(description) <= DESCRIPTION_LENGTH and "\0" not in description))
        and (completed is UNSET or isinstance(completed, bool))
    )


@given(DOCUMENTS)
def test_any_json_becomes_a_body_that_fits_or_a_problem(document: object) -> None:
    body = json.dumps(document).encode()
    for decode in DECODERS:
        try:
            struct = decode(body)
        except ApiError as problem:
            assert problem.status == 400
            assert problem.message
        else:
            if isinstance(struct, TaskCreate | TaskUpdate):
                assert fits(struct.title, struct.description, struct.completed)
            else:
                assert isinstance(struct.completed, bool)


@given(st.binary(max_size=40))
def test_any_bytes_become_a_body_or_a_problem(body: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(body)
        except ApiError as problem:
            assert problem.status == 400


@given(TEXTS)
def test_a_title_is_what_strip_leaves_of_it(text: str) -> None:
    try:
        title = decode_create(msgspec.json.encode({"title": text})).title
    except ApiError as problem:
        assert problem.field == "title"
        assert not 1 <= len(text.strip()) <= TITLE_LENGTH or "\0" in text
    else:
        assert title == text.strip()


def test_absent_null_and_value_are_three_things() -> None:
    assert decode_update(b'{"title":"x"}').description is UNSET
    assert decode_update(b'{"description":null}').description is None
    assert decode_update(b'{"description":""}').description == ""
    new = decode_create(b'{"title":"x"}')
    assert (new.description, new.completed) == (None, False)


@pytest.mark.parametrize("size", [10, 1_000, 100_000])
def test_depth_is_refused_and_does_not_overflow(size: int) -> None:
    for body in (b"[" * size, b'{"id":' * size, b'{"title":"x","id":' + b"[" * size + b"]" * size + b"}"):
        for decode in DECODERS[:2]:
            try:
                decode(body)
            except ApiError as problem:
                assert problem.status == 400


# What a body is, and what must be said of it. `{}` stands for a batch of the object, too.
WRONG = [
    (b'{"title":1,"title":"b"}', errors.title_not_text()),
    (b'{"title":"x","description":5,"description":"y"}', errors.description_not_text()),
    (b'{"title":"x","completed":1,"completed":true}', errors.completed_not_boolean()),
    (b'{"title":"x","completed":null,"title":"y"}', errors.completed_not_boolean()),
    (b'{"title":"x","titel":1,"title":"y"}', errors.unknown_field("titel")),
    (b'{"title":null,"title":"b"}', errors.title_required()),
    (b'{"completed":true}', errors.title_required()),
    (b'{"a` - at `$[7]`":1}', errors.unknown_field("a` - at `$[7]`")),
    (b'{"a` - at `$.title`":1}', errors.unknown_field("a` - at `$.title`")),
    (b'{"missing required field `title`":1}', errors.unknown_field("missing required field `title`")),
    (rb'{"\u0000\ud83d\ude00`":1}', errors.unknown_field("\0\U0001f600`")),
    (b"[]", errors.not_an_object()),
    (b"null", errors.not_an_object()),
    (b'"title"', errors.not_an_object()),
    (b'{"title":"x","id":"\xff"}', errors.invalid_json()),
    (b'{"title":"x","user_id":{"\xff":1}}', errors.invalid_json()),
    (b'{"title":"x","version":["\xed\xa0\x80"]}', errors.invalid_json()),
    (b'{"title":"x","created_at":"\xc0\xaf"}', errors.invalid_json()),
    (b'{"title":5,"id":"\xff"}', errors.invalid_json()),
    (b'{"title":5', errors.invalid_json()),
    (b'{"titel":5}}', errors.invalid_json()),
    (b'{"title":5,"id":01}', errors.invalid_json()),
]


@pytest.mark.parametrize(
    ("decode", "valid", "name"),
    [
        (decode, valid, field.name)
        for decode, struct, valid in (
            (decode_create, TaskCreate, {"title": "x"}),
            (decode_update, TaskUpdate, {"title": "x"}),
            (decode_toggle, TaskToggle, {"completed": True}),
        )
        for field in msgspec.structs.fields(struct)
        if field.type != Raw | UnsetType  # any JSON is accepted and ignored
    ],
)
def test_a_field_of_a_wrong_type_is_blamed_by_its_own_name(
    decode: Callable[[bytes], object], valid: dict[str, object], name: str
) -> None:
    with pytest.raises(ApiError) as raised:
        decode(msgspec.json.encode({**valid, name: {}}))
    assert raised.value.field == name


def said(error: ApiError) -> tuple[str, str | None]:
    return error.message, error.field


@pytest.mark.parametrize(("body", "error"), WRONG, ids=lambda value: ascii(value)[:40])
async def test_the_wrong_field_is_blamed(body: bytes, error: ApiError) -> None:
    with pytest.raises(ApiError) as single:
        decode_create(body)
    assert said(single.value) == said(error)
    with pytest.raises(ApiError) as batch:
        await decode_batch(b'[{"title":"x"},' + body + b"]", Slices(LargeWork(), "u"))
    is_json = error.message != errors.invalid_json().message
    assert said(batch.value) == said(errors.batch_item(1, error) if is_json else error)


@pytest.mark.parametrize("name", ["id", "user_id", "version", "created_at", "updated_at"])
def test_an_ignored_field_may_hold_any_json(name: str) -> None:
    for value in (b"null", b"-1.5e300", '"\u00fc\U0001f600"'.encode(), b'{"a":[1,{"b":null}]}', b"9" * 100):
        assert decode_create(b'{"title":"x","%b":%b}' % (name.encode(), value)).title == "x"
