"""Reading a request: entity tags, path segments, the list's query, the body."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http import errors
from service.http.body import read_body
from service.http.capacity import Capacity
from service.http.conditional import ANY, entity_tags, preconditions
from service.http.errors import ApiError
from service.http.place import Place
from service.http.request_record import RequestRecord
from service.tasks.requests import check_user_id, decode_segment, parse_list_query, parse_task_id

TAG_PARTS = st.sampled_from(['"', "W/", "*", ",", " ", "\t", "1", "2147483647", "2147483648", "x", "é", "\\"])


@given(st.lists(TAG_PARTS, max_size=12).map("".join))
def test_a_conditional_header_is_understood_or_a_400(text: str) -> None:
    """The shape by the grammar of RFC 9110, sections 8.8.3 and 5.6.1, another way round."""
    members = [member.strip(" \t") for member in split(text)]
    wellformed = text.strip() == "*" or (any(members) and all(is_tag(member) for member in members if member))
    try:
        tags = entity_tags([(b"if-match", text.encode("latin-1"))], b"if-match", "If-Match")
    except ApiError as problem:
        assert problem.status == 400
        assert not wellformed
    else:
        assert wellformed
        assert tags is not None
        assert tags is ANY or [weak for _, weak in tags] == [member.startswith("W/") for member in members if member]


def split(text: str) -> list[str]:
    """At commas that stand in no quotes."""
    members, quoted = [""], False
    for character in text:
        quoted ^= character == '"'
        if character == "," and not quoted:
            members.append("")
        else:
            members[-1] += character
    return members


def is_tag(member: str) -> bool:
    opaque = member.removeprefix("W/")
    inner = opaque[1:-1]
    return len(opaque) > 1 and opaque[0] == opaque[-1] == '"' and not set(inner) & set('" \t')


@pytest.mark.parametrize(
    ("lines", "tags"),
    [
        ([], None),
        ([b" *\t"], ANY),
        ([b'"1",' * 1000], [(b"1", False)] * 1000),
        ([b'"1"'], [(b"1", False)]),
        ([b'W/"1"', b'"2"'], [(b"1", True), (b"2", False)]),
        ([b'"01"', b'""', b'"a,b"'], [(b"01", False), (b"", False), (b"a,b", False)]),
    ],
)
def test_tags_are_split_at_the_right_commas(lines: list[bytes], tags: object) -> None:
    assert entity_tags([(b"if-match", line) for line in lines], b"if-match", "If-Match") == tags


def test_a_hundred_parameters_are_read_and_no_more() -> None:
    assert parse_list_query(b"a=%41&" * 99 + b"limit=5")[1] == 5
    for query in (b"a=%41&" * 100 + b"limit=5", b"&" * 100):
        with pytest.raises(ApiError, match="up to 100 parameters"):
            parse_list_query(query)


def test_the_longest_user_id_may_be_encoded_and_a_longer_one_is_none() -> None:
    longest = "\U0001f600" * 255
    assert decode_segment(quote(longest)) == longest
    check_user_id(longest)
    for segment in (quote(longest + "a"), "%41" * 10_000):
        with pytest.raises(ApiError, match="Invalid user ID"):
            check_user_id(decode_segment(segment))
    assert decode_segment("%41" * 10_000).startswith("%41")  # it was not decoded first, which takes 1.5 ms


def test_more_than_a_thousand_tags_are_a_400() -> None:
    for header in (b'"1",' * 1001, b"," * 32_000 + b'"1"'):
        with pytest.raises(ApiError, match="a list of up to 1000 entity tags"):
            preconditions([(b"if-match", header)])


def test_only_tags_that_a_task_may_have_are_versions() -> None:
    header = b'"1", W/"2", "2147483647", "2147483648", "01", "", "0", "x"'
    assert preconditions([(b"if-match", header)]).versions == [1, 2147483647]
    assert preconditions([(b"if-none-match", header)]).excluded_versions == [1, 2, 2147483647]


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_a_segment_is_decoded_as_it_was_encoded(text: str) -> None:
    encoded = "".join(f"%{byte:02x}" for byte in text.encode())
    assert decode_segment(encoded) == text


@given(st.text(st.sampled_from("%0129afAFgx-"), max_size=12))
def test_any_segment_is_a_user_or_a_400(segment: str) -> None:
    user_id = decode_segment(segment)
    try:
        check_user_id(user_id)
    except ApiError as problem:
        assert (problem.status, problem.field) == (400, "user_id")
    else:
        assert user_id.encode()
        assert "\0" not in user_id


@given(st.integers(-(2**70), 2**70))
def test_a_task_id_is_a_positive_bigint(number: int) -> None:
    try:
        assert parse_task_id(str(number), errors.invalid_task_id) == number
        assert 1 <= number < 2**63
    except ApiError as problem:
        assert (problem.status, problem.message) == (400, "Invalid task ID")
        assert not 1 <= number < 2**63


@given(st.binary(max_size=30) | st.text(st.sampled_from("limitafercompd=&%+0159-"), max_size=40).map(str.encode))
def test_any_query_is_understood_or_a_400(query: bytes) -> None:
    try:
        _, limit, after, rest = parse_list_query(query)
    except ApiError as problem:
        assert problem.status == 400
    else:
        assert limit is None or 1 <= limit <= 1000
        assert after is None or 1 <= after < 2**63
        assert rest == urlencode([pair for pair in parse_qsl(query.decode(), True) if pair[0] != "after"])


@pytest.mark.parametrize(
    ("value", "taken"), [(b"a", True), (b"x" * 128, True), (b"x" * 129, False), (b"a b", False), (b"", False)]
)
def test_a_request_id_is_one_visible_word(value: bytes, taken: bool) -> None:
    assert (RequestRecord("GET", [(b"x-request-id", value)]).request_id == value) is taken


def receiving(*messages: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """ASGI's receive, which gives these messages and then waits."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.get_running_loop().create_future()
        return left.pop(0)

    return receive


def part(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def a_place() -> Place:
    return Place(Capacity(1, max_per_user=1, max_buffered=1_000_000))


async def test_a_body_in_pieces_is_put_together() -> None:
    receive = receiving(part(b'{"a', True), part(b"", True), part(b'":1}', False))
    assert await read_body(a_place(), [], receive, 100) == b'{"a":1}'


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([part(b"x" * 60, True), part(b"x" * 60, True)], 413),
        ([part(b"x" * 101, False)], 413),
        ([part(b"x", True), {"type": "http.disconnect"}], 400),
        ([{"type": "http.disconnect"}], 400),
        ([part(b"x", True)], 408),
    ],
)
async def test_a_body_that_is_too_long_cut_off_or_endless_is_refused(
    messages: list[dict[str, Any]], status: int
) -> None:
    with pytest.raises(ApiError) as caught:
        await read_body(a_place(), [], receiving(*messages), 100, timeout_s=0.02)
    assert caught.value.status == status


async def test_a_body_announced_as_too_long_is_not_even_read() -> None:
    with pytest.raises(ApiError) as caught:
        await read_body(a_place(), [(b"content-length", b"101")], receiving(), 100)
    assert caught.value.status == 413
