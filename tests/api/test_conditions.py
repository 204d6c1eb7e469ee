"""ETag, If-Match and If-None-Match: nobody loses what somebody else wrote."""

from typing import Any

import httpx
import pytest

CHANGED = {"error": "Task was changed by another request"}


@pytest.fixture
def path(client: httpx.Client, tasks: str) -> str:
    """A task at version 3."""
    path = client.post(tasks, json={"title": "Buy milk"}).headers["location"]
    for _ in range(2):
        client.patch(path + "/complete")
    return path


MATCHING = ['"3"', "*", '"1", "3"', '"1","2" ,\t"3"', ',"3",', 'W/"3", "3"', '"x", "3"', '"", "3"']
STALE = [
    *('"1"', '"2"', '"4"', 'W/"3"', '"03"', '"3!"', '"1", "2"', '"abc"', '""', '"*"'),
    *('"99999999999999999999"', '"2147483648"', '"-3"', '"\u00e9"', ", ".join(f'"{n}"' for n in range(100, 900))),
]
WRITES: list[tuple[str, str, Any]] = [
    ("PUT", "", {"title": "Buy bread"}),
    ("PUT", "", {"title": "Buy milk"}),  # which would change nothing
    ("PATCH", "/complete", None),
    ("PATCH", "/complete", {"completed": True}),
    ("PATCH", "/complete", {"completed": False}),  # which would change nothing
    ("DELETE", "", None),
]


def write(client: httpx.Client, path: str, what: tuple[str, str, Any], tag: str | bytes | list[str]) -> httpx.Response:
    method, suffix, body = what
    tags = tag if isinstance(tag, list) else [tag]
    lines = [("If-Match", part.encode("latin-1") if isinstance(part, str) else part) for part in tags]
    return client.request(method, path + suffix, json=body, headers=[(name.encode(), value) for name, value in lines])


@pytest.mark.parametrize("what", WRITES, ids=str)
@pytest.mark.parametrize("tag", MATCHING)
def test_a_matching_version_lets_a_write_through(client: httpx.Client, path: str, what: Any, tag: str) -> None:
    assert write(client, path, what, tag).status_code in (200, 204)


@pytest.mark.parametrize("what", WRITES, ids=str)
@pytest.mark.parametrize("tag", STALE, ids=lambda tag: ascii(tag)[:20])
def test_any_other_stops_it_and_tells_the_current_one(client: httpx.Client, path: str, what: Any, tag: str) -> None:
    before = client.get(path).json()
    answer = write(client, path, what, tag)
    assert (answer.status_code, answer.json(), answer.headers["etag"]) == (412, CHANGED, '"3"')
    assert client.get(path).json() == before


def test_several_if_match_lines_are_one_list(client: httpx.Client, path: str) -> None:
    assert write(client, path, WRITES[0], ['"1"', '"2"']).status_code == 412
    assert write(client, path, WRITES[0], ['"3"', '"1"']).status_code == 200
    assert write(client, path, WRITES[0], ['"3"', '"4"']).status_code == 200


@pytest.mark.parametrize("what", WRITES, ids=str)
@pytest.mark.parametrize("tag", ['"1"', "*", 'W/"1"'])
def test_a_missing_task_is_missing_whatever_the_tag(client: httpx.Client, path: str, what: Any, tag: str) -> None:
    client.delete(path)
    answer = write(client, path, what, tag)
    assert (answer.status_code, answer.json()) == (404, {"error": "Task not found"})
    assert "etag" not in answer.headers


def test_a_matching_update_moves_the_tag(client: httpx.Client, path: str) -> None:
    answer = write(client, path, WRITES[0], '"3"')
    assert (answer.headers["etag"], answer.json()["version"]) == ('"4"', 4)
    assert write(client, path, WRITES[0], '"3"').status_code == 412


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("tag", ['"3"', 'W/"3"', "*", '"1", "3"', 'W/"1" , W/"3"', '"x","3"'])
def test_a_client_that_has_the_version_gets_no_body(client: httpx.Client, path: str, method: str, tag: str) -> None:
    answer = client.request(method, path, headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"3"')
    assert "content-type" not in answer.headers


@pytest.mark.parametrize("tag", ['"2"', '"1", "4"', '"x"', '"03"', '""', '"99999999999999999999"'])
def test_another_gets_the_task(client: httpx.Client, path: str, tag: str) -> None:
    answer = client.get(path, headers={"If-None-Match": tag})
    assert (answer.status_code, answer.json()["version"], answer.headers["etag"]) == (200, 3, '"3"')


@pytest.mark.parametrize("tag", ['"3"', "*"])
def test_a_missing_task_is_not_unmodified(client: httpx.Client, path: str, tag: str) -> None:
    client.delete(path)
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 404


NONE_MATCH = [  # If-None-Match, and whether a write of a task at version 3 may go on (RFC 9110, 13.1.2)
    *((tag, False) for tag in ("*", '"3"', 'W/"3"', '"1", "3"', ',"3",', '"x", W/"3"')),
    *((tag, True) for tag in ('"2"', 'W/"4"', '"1", "2"', '"x"', '"03"', '""', '"99999999999999999999"')),
]


@pytest.mark.parametrize("what", WRITES, ids=str)
@pytest.mark.parametrize(("tag", "passes"), NONE_MATCH)
def test_write_with_the_current_tag_in_if_none_match_is_412(
    client: httpx.Client, path: str, what: Any, tag: str, passes: bool
) -> None:
    method, suffix, body = what
    before = client.get(path).json()
    answer = client.request(method, path + suffix, json=body, headers={"If-None-Match": tag})
    if passes:
        assert answer.status_code in (200, 204)
    else:
        assert (answer.status_code, answer.json(), answer.headers["etag"]) == (412, CHANGED, '"3"')
        assert client.get(path).json() == before


@pytest.mark.parametrize("what", WRITES, ids=str)
@pytest.mark.parametrize("tag", ["*", '"3"', '"1"'])
def test_write_of_a_missing_task_with_if_none_match_is_404(
    client: httpx.Client, path: str, what: Any, tag: str
) -> None:
    client.delete(path)
    method, suffix, body = what
    assert client.request(method, path + suffix, json=body, headers={"If-None-Match": tag}).status_code == 404


@pytest.mark.parametrize(
    ("match", "none_match", "passes"),
    [('"3"', '"1"', True), ('"3"', '"3"', False), ('"1"', '"1"', False), ("*", '"2"', True), ("*", "*", False)],
)
def test_if_match_and_if_none_match_must_both_hold(
    client: httpx.Client, path: str, match: str, none_match: str, passes: bool
) -> None:
    headers = {"If-Match": match, "If-None-Match": none_match}
    assert client.patch(path + "/complete", headers=headers).status_code == (200 if passes else 412)


def test_malformed_if_none_match_on_a_write_is_400(client: httpx.Client, path: str) -> None:
    answer = client.delete(path, headers={"If-None-Match": '"3'})
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "If-None-Match must be * or a list of up to 1000 entity tags"},
    )
