"""Which error is answered where a request breaks several rules: unknown path, 405, 401, 403, path and query, 413, 415,
body, 422, 404, 412, in this order.

Each request here breaks one rule more than the next, so that every pair of neighbours is seen.
"""

import httpx
import pytest

LARGE = b" " * 70_000
XML = {"Content-Type": "application/xml"}
MISSING = 2**63 - 1


def ask(client: httpx.Client, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    answer = client.request(method, path, content=body, headers=headers)
    return answer.status_code, answer.json()["error"]


@pytest.mark.parametrize("path", ["x", "1/x", "1/complete/x"])
def test_an_unknown_path_is_the_first_thing_said(client: httpx.Client, tasks: str, path: str) -> None:
    assert ask(client, "PUT", f"{tasks}/0/{path}", LARGE, XML) == (404, "Not found")


def test_create(client: httpx.Client, tasks: str) -> None:
    steps = [
        ("PUT", "/api/%00/tasks", LARGE, XML),
        ("POST", "/api/%00/tasks", LARGE, XML),
        ("POST", tasks, LARGE, XML),
        ("POST", tasks, b"{", XML),
        ("POST", tasks, b'{"title": ""', {}),
        ("POST", tasks, b'{"titel": 1, "title": ""}', {}),
    ]
    assert [ask(client, *step) for step in steps] == [
        (405, "Method not allowed"),
        (400, "Invalid user ID"),
        (413, "Request body must be 64 KiB or less"),
        (415, "Request body must be application/json"),
        (400, "Request body must be valid JSON"),
        (400, 'Unknown field: "titel"'),
    ]


@pytest.mark.parametrize(("method", "suffix", "good"), [("PUT", "", b'{"title":"y"}'), ("PATCH", "/complete", b"")])
def test_update_and_toggle(client: httpx.Client, tasks: str, method: str, suffix: str, good: bytes) -> None:
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    stale = {"If-Match": '"7"'}
    steps = [
        ("POST", f"/api/%00/tasks/0{suffix}", LARGE, XML | {"If-Match": "7"}),
        (method, f"/api/%00/tasks/0{suffix}", LARGE, XML | {"If-Match": "7"}),
        (method, f"{tasks}/0{suffix}", LARGE, XML | {"If-Match": "7"}),
        (method, f"{tasks}/{MISSING}{suffix}", LARGE, XML | {"If-Match": "7"}),
        (method, f"{tasks}/{MISSING}{suffix}", LARGE, XML | stale),
        (method, f"{tasks}/{MISSING}{suffix}", b"{", XML | stale),
        (method, f"{tasks}/{MISSING}{suffix}", b"{", stale),
        (method, f"{tasks}/{MISSING}{suffix}", good, stale),
        (method, path + suffix, good, stale),
    ]
    assert [ask(client, *step) for step in steps] == [
        (405, "Method not allowed"),
        (400, "Invalid user ID"),
        (400, "Invalid task ID"),
        (400, "If-Match must be * or a list of up to 1000 entity tags"),
        (413, "Request body must be 64 KiB or less"),
        (415, "Request body must be application/json"),
        (400, "Request body must be valid JSON"),
        (404, "Task not found"),
        (412, "Task was changed by another request"),
    ]


def test_get_and_list(client: httpx.Client, tasks: str) -> None:
    steps = [
        ("GET", "/api/%00/tasks/0", b"", {"If-None-Match": "7"}),
        ("GET", f"{tasks}/0", b"", {"If-None-Match": "7"}),
        ("GET", f"{tasks}/{MISSING}", b"", {"If-None-Match": "7"}),
        ("GET", f"{tasks}/{MISSING}", b"", {}),
        ("GET", "/api/%00/tasks?limit=0", b"", {}),
        ("GET", f"{tasks}?limit=0", b"", {}),
    ]
    assert [ask(client, *step) for step in steps] == [
        (400, "Invalid user ID"),
        (400, "Invalid task ID"),
        (400, "If-None-Match must be * or a list of up to 1000 entity tags"),
        (404, "Task not found"),
        (400, "Invalid user ID"),
        (400, "limit must be between 1 and 1000"),
    ]
