"""Bodies: whatever comes in becomes a struct that the schema can hold, or a ApiError (400). Nothing else."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from service.http.errors import ApiError
from service.http.limits import DESCRIPTION_LENGTH, TITLE_LENGTH
from service.tasks.schemas import (
    TaskCreate,
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
