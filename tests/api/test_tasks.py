"""What the contract promises of a single task: create, get, update, toggle, delete."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.support import http

Json = dict[str, Any]

FIELDS = ["id", "user_id", "title", "description", "completed", "version", "created_at", "updated_at"]
MISSING = 2**63 - 1


def create(client: httpx.Client, tasks: str, **fields: Any) -> Json:
    answer = client.post(tasks, json={"title": "Buy milk"} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def instant(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


# Create


def test_a_task_comes_back_whole_with_defaults(client: httpx.Client, user: str, tasks: str) -> None:
    answer = client.post(tasks, json={"title": "Buy milk"})
    task = answer.json()
    assert answer.status_code == 201
    assert list(task) == FIELDS
    assert task | {"id": 0, "created_at": "", "updated_at": ""} == {
        "id": 0,
        "user_id": user,
        "title": "Buy milk",
        "description": None,
        "completed": False,
        "version": 1,
        "created_at": "",
        "updated_at": "",
    }
    assert type(task["id"]) is int
    assert task["id"] > 0
    assert instant(task["created_at"]) == instant(task["updated_at"])
    assert abs(instant(task["created_at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_location_leads_to_the_task(client: httpx.Client, tasks: str) -> None:
    answer = client.post(tasks, json={"title": "Buy milk"})
    assert answer.headers["location"] == f"{tasks}/{answer.json()['id']}"
    assert client.get(answer.headers["location"]).json() == answer.json()


def test_location_leads_to_the_task_also_from_a_path_that_ends_in_a_slash(client: httpx.Client, tasks: str) -> None:
    answer = client.post(tasks + "/", json={"title": "Buy milk"})
    assert answer.headers["location"] == f"{tasks}/{answer.json()['id']}"


def test_all_fields_can_be_given(client: httpx.Client, tasks: str) -> None:
    task = create(client, tasks, description="two litres", completed=True)
    assert (task["description"], task["completed"], task["version"]) == ("two litres", True, 1)
    assert client.get(f"{tasks}/{task['id']}").json() == task


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("  Buy milk\t", "Buy milk"),
        ("\u00a0\u3000\u2028Buy\u00a0milk\x1c\x1f\x85", "Buy\u00a0milk"),
        ("\u200bBuy milk\ufeff", "\u200bBuy milk\ufeff"),  # no white space, though they show as little
        ("x" * 255, "x" * 255),
        (" " + "😀" * 255 + "\n", "😀" * 255),
        ("e\u0301" * 127, "e\u0301" * 127),
        ("\x01\x7f\ufffe\U0010ffff", "\x01\x7f\ufffe\U0010ffff"),
        ("'; DROP TABLE tasks; --", "'; DROP TABLE tasks; --"),
        ("%(user_id)s $1 {0} \\", "%(user_id)s $1 {0} \\"),
        ('"quoted"', '"quoted"'),
        ("null", "null"),
        ("\u202eevil\u202c", "\u202eevil\u202c"),
    ],
)
def test_titles_are_trimmed_and_otherwise_kept(client: httpx.Client, tasks: str, title: str, kept: str) -> None:
    task = create(client, tasks, title=title)
    assert task["title"] == kept
    assert client.get(f"{tasks}/{task['id']}").json() == task
    assert client.put(f"{tasks}/{task['id']}", json={"title": title}).json() == task


@pytest.mark.parametrize("description", [None, "", "  two\nlitres ", "x" * 5000, "😀" * 5000, "\x01"])
def test_descriptions_are_kept_as_they_are(client: httpx.Client, tasks: str, description: str | None) -> None:
    task = create(client, tasks, description=description)
    assert task["description"] == description
    assert client.get(f"{tasks}/{task['id']}").json() == task


def test_escapes_and_raw_utf8_mean_the_same(client: httpx.Client, tasks: str) -> None:
    for body in (rb'{"title": "\ud83d\ude00 \u00e9"}', '{"title": "😀 é"}'.encode()):
        assert client.post(tasks, content=body).json()["title"] == "😀 é"


def test_read_only_fields_are_accepted_and_ignored(client: httpx.Client, user: str, tasks: str) -> None:
    strange = {"id": "x", "user_id": ["someone else"], "version": 99, "created_at": None, "updated_at": {"a": 1}}
    task = create(client, tasks, **strange)
    assert (task["user_id"], task["version"]) == (user, 1)
    answer = client.put(f"{tasks}/{task['id']}", json=task | {"title": "Buy bread", "user_id": "someone else"})
    assert answer.status_code == 200
    assert answer.json() | {"updated_at": ""} == task | {"title": "Buy bread", "version": 2, "updated_at": ""}


@pytest.mark.parametrize(
    "media_type",
    [None, "application/json", "Application/JSON", "application/json; charset=utf-8", "application/json ;x=y"],
)
def test_json_is_taken_under_its_media_type_or_none(client: httpx.Client, tasks: str, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    assert client.post(tasks, content=b'{"title": "x"}', headers=headers).status_code == 201


def test_a_body_of_64_kib_is_taken(client: httpx.Client, tasks: str) -> None:
    body = b'{"title": "x"}'.ljust(64 * 1024)
    assert client.post(tasks, content=body).status_code == 201
    assert client.post(tasks, content=iter([body[:100], body[100:]])).status_code == 201  # chunked


def test_ids_are_unique_over_all_users(client: httpx.Client, tasks: str) -> None:
    ids = [create(client, path)["id"] for path in (tasks, "/api/another/tasks", tasks, "/api/a-third/tasks")]
    assert ids == sorted(set(ids))


# Get


def test_a_task_is_only_its_owners(client: httpx.Client, tasks: str) -> None:
    """Somebody else's task cannot be told from one that never was."""
    task = create(client, tasks)
    for path in (f"/api/another/tasks/{task['id']}", f"{tasks}/{MISSING}"):
        for method, url, body in (
            ("GET", path, None),
            ("PUT", path, {"title": "stolen"}),
            ("PATCH", path + "/complete", None),
            ("PATCH", path + "/complete", {"completed": True}),
            ("DELETE", path, None),
        ):
            answer = client.request(method, url, json=body)
            assert (answer.status_code, answer.json()) == (404, {"error": "Task not found"})
            assert "etag" not in answer.headers
    assert client.get(f"{tasks}/{task['id']}").json() == task


def test_head_answers_like_get_without_a_body(client: httpx.Client, tasks: str) -> None:
    task = create(client, tasks)
    for path, status in (
        (tasks, 200),
        (f"{tasks}/{task['id']}", 200),
        (f"{tasks}/{MISSING}", 404),
        (tasks + "/x", 400),
    ):
        get, head = client.get(path), client.head(path)
        assert (get.status_code, head.status_code, head.content) == (status, status, b"")
        assert dict(head.headers) | {"x-request-id": ""} == dict(get.headers) | {"x-request-id": ""}


def test_head_of_a_long_list_says_nothing_of_its_length(client: httpx.Client, tasks: str) -> None:
    """RFC 9110, 8.6: Content-Length is that of GET's answer, which is sent as it comes, or left out."""
    client.post(tasks + "/batch", json=[{"title": "x"}] * 600)
    head = client.head(tasks)
    assert (head.status_code, head.headers.get("content-length")) == (200, None)


# Update


@pytest.mark.parametrize(
    ("sent", "changed"),
    [
        ({"title": "Buy bread"}, {"title": "Buy bread"}),
        ({"title": " Buy bread "}, {"title": "Buy bread"}),
        ({"description": "soon"}, {"description": "soon"}),
        ({"description": None}, {"description": None}),
        ({"description": ""}, {"description": ""}),
        ({"completed": True}, {"completed": True}),
        (
            {"title": "x", "description": None, "completed": True},
            {"title": "x", "description": None, "completed": True},
        ),
    ],
)
def test_update_changes_what_is_sent_and_leaves_the_rest(
    client: httpx.Client, tasks: str, sent: Json, changed: Json
) -> None:
    task = create(client, tasks, description="two litres")
    answer = client.put(f"{tasks}/{task['id']}", json=sent)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    after = answer.json()
    assert after | {"updated_at": ""} == task | changed | {"version": 2, "updated_at": ""}
    assert instant(after["updated_at"]) > instant(task["updated_at"])
    assert client.get(f"{tasks}/{task['id']}").json() == after


@pytest.mark.parametrize(
    "sent",
    [
        {"title": "Buy milk"},
        {"title": "  Buy milk "},
        {"description": "two litres"},
        {"completed": False},
        {"title": "Buy milk", "description": "two litres", "completed": False},
    ],
)
def test_an_update_to_what_is_there_already_changes_nothing(client: httpx.Client, tasks: str, sent: Json) -> None:
    task = create(client, tasks, description="two litres")
    answer = client.put(f"{tasks}/{task['id']}", json=sent)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    assert answer.json() == task


def test_a_description_comes_and_goes(client: httpx.Client, tasks: str) -> None:
    path = f"{tasks}/{create(client, tasks)['id']}"
    seen = [
        (task["description"], task["version"])
        for task in (client.put(path, json={"description": text}).json() for text in (None, "", "", None, None, "x"))
    ]
    assert seen == [(None, 1), ("", 2), ("", 2), (None, 3), (None, 3), ("x", 4)]


def test_what_was_got_can_be_edited_and_put_back(client: httpx.Client, tasks: str) -> None:
    task = create(client, tasks)
    assert client.put(f"{tasks}/{task['id']}", json=task).json() == task


# Toggle


def test_toggle_flips(client: httpx.Client, tasks: str) -> None:
    task = create(client, tasks)
    path = f"{tasks}/{task['id']}/complete"
    for completed, version in ((True, 2), (False, 3), (True, 4)):
        answer = client.patch(path)
        assert (answer.status_code, answer.headers["etag"]) == (200, f'"{version}"')
        before, task = task, answer.json()
        assert task | {"updated_at": ""} == before | {"completed": completed, "version": version, "updated_at": ""}
        assert instant(task["updated_at"]) > instant(before["updated_at"])


def test_toggle_sets_and_a_retry_changes_nothing(client: httpx.Client, tasks: str) -> None:
    path = f"{tasks}/{create(client, tasks)['id']}/complete"
    answers = [client.patch(path, json={"completed": completed}) for completed in (False, True, True, False, False)]
    assert [answer.status_code for answer in answers] == [200] * 5
    seen = [(answer.json()["completed"], answer.json()["version"], answer.headers["etag"]) for answer in answers]
    assert seen == [(False, 1, '"1"'), (True, 2, '"2"'), (True, 2, '"2"'), (False, 3, '"3"'), (False, 3, '"3"')]
    assert answers[1].json() == answers[2].json()


def test_an_empty_body_flips_whatever_its_media_type(client: httpx.Client, tasks: str) -> None:
    path = f"{tasks}/{create(client, tasks)['id']}/complete"
    answer = client.patch(path, headers={"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "0"})
    assert answer.json()["completed"] is True


# Delete


def test_delete_answers_nothing_and_the_task_is_gone(client: httpx.Client, tasks: str) -> None:
    path = f"{tasks}/{create(client, tasks)['id']}"
    answer = client.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    for method in ("DELETE", "GET"):
        assert client.request(method, path).status_code == 404


# What holds for all


def test_a_request_id_is_echoed_by_every_answer(client: httpx.Client, tasks: str) -> None:
    path = f"{tasks}/{create(client, tasks)['id']}"
    for method, url, status in (
        ("POST", tasks, 201),
        ("GET", path, 200),
        ("HEAD", path, 200),
        ("GET", tasks, 200),
        ("OPTIONS", tasks, 204),
        ("PUT", path, 200),
        ("PATCH", path + "/complete", 400),
        ("GET", path + "/x", 404),
        ("POST", path, 405),
        ("DELETE", path, 204),
        ("GET", path, 404),
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
    ):
        body = {"title": "x"} if method in ("POST", "PUT", "PATCH") else None
        answer = client.request(method, url, json=body, headers={"X-Request-ID": "abc-123"})
        assert (method, answer.status_code) == (method, status)
        assert answer.headers.get_list("x-request-id") == ["abc-123"], (method, url)


def test_every_error_has_a_request_id_and_no_two_the_same(client: httpx.Client, tasks: str) -> None:
    given = [client.get(tasks + path).headers["x-request-id"] for path in ("/0", "/1", "/1/2/3", "/0")]
    assert len(set(given)) == 4


@pytest.mark.parametrize("strange", ["x" * 129, "a b", "é"])
def test_a_request_id_that_could_spoil_a_log_is_replaced(client: httpx.Client, tasks: str, strange: str) -> None:
    answer = client.get(tasks + "/0", headers=[(b"X-Request-ID", strange.encode())])
    assert answer.headers["x-request-id"] not in (strange, "")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/batch", {"POST", "OPTIONS"}),
        ("/1", {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}),
        ("/1/complete", {"PATCH", "OPTIONS"}),
    ],
)
def test_what_a_path_allows(client: httpx.Client, tasks: str, path: str, allowed: set[str]) -> None:
    options = client.options(tasks + path)
    assert (options.status_code, options.content) == (204, b"")
    other = min({"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed)
    refused = client.request(other, tasks + path)
    assert (refused.status_code, refused.json()) == (405, {"error": "Method not allowed"})
    for answer in (options, refused):
        assert answer.headers["allow"] == ", ".join(sorted(allowed))


@pytest.mark.parametrize(
    "path",
    [
        "/{tasks}/1",
        "/api//{user}/tasks/1",
        "/api/{user}//tasks",
        "/api/{user}/tasks//",
        "/api/{user}/tasks/1/",
        "/api/{user}/tasks//1",
        "/api/{user}/tasks/1//complete",
        "/api/{user}/tasks/1/complete/",
        "/api/{user}/tasks/batch/",
        "//metrics",
        "/metrics/",
        "/livez/",
        "//docs",
        "/docs/",
        "/docs//swagger-ui.css",
        "//",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_path_with_an_empty_segment_is_404(client: httpx.Client, user: str, tasks: str, path: str, method: str) -> None:
    """A gateway's rule on a prefix or an exact path cannot be walked around."""
    target = path.format(user=user, tasks=tasks)
    reply = http.exchange(str(client.base_url), http.request(method, target, headers={"Content-Length": "0"}))
    assert (reply.status, reply.json()) == (404, {"error": "Not found"})


def test_one_slash_may_end_the_path_of_the_list(client: httpx.Client, tasks: str) -> None:
    assert client.post(tasks + "/", json={"title": "x"}).status_code == 201
    assert len(client.get(tasks + "/").json()) == 1


def test_responses_of_task_routes_are_not_stored(client: httpx.Client, tasks: str) -> None:
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    for method, target in (
        ("GET", tasks),
        ("GET", path),
        ("HEAD", path),
        ("PUT", path),
        ("GET", tasks + "/0"),
        ("GET", path + "/complete"),
        ("PATCH", tasks),
        ("GET", "/api/nowhere"),
        ("GET", tasks + "/1/"),
    ):
        reply = client.request(method, target)
        assert reply.headers.get_list("cache-control") == ["private, no-store"], (method, target, reply.status_code)
    assert "private" not in client.get("/docs").headers["cache-control"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_what_is_asked_for_the_present_state_is_not_stored(client: httpx.Client, path: str) -> None:
    """Varnish keeps a 200 without Cache-Control for two minutes, and /readyz would be an old one."""
    assert client.get(path).headers.get_list("cache-control") == ["no-store"]


def test_the_root_leads_to_the_docs(client: httpx.Client) -> None:
    for method in ("GET", "HEAD"):
        reply = client.request(method, "/")
        assert (reply.status_code, reply.headers["location"]) == (307, "/docs")
    assert client.get("/", follow_redirects=True).headers["content-type"] == "text/html; charset=utf-8"
