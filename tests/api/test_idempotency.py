"""Idempotency-Key: what is sent again is answered again, and done once. At once and on two workers: test_races.py."""

import json
import string
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest

from tests.support.databases import a_day_passes
from tests.support.http import exchange, request
from tests.support.processes import HTTP_PROTOCOL, RunningService

USED = {"error": "Idempotency-Key was already used for another request"}
UNUSABLE = {"error": "Idempotency-Key must be given once, as 1 to 255 visible characters"}
MALFORMED = {"error": "Malformed HTTP request"}
VISIBLE = string.digits + string.ascii_letters + string.punctuation

SAME = {"title": "Buy milk", "description": None, "completed": False}
# Other ways to write it: what counts is what was asked for.
EQUAL = [
    b'{"title":"Buy milk"}',
    b' {\r\n\t"title" : "Buy milk" }\n',
    b'{"completed":false,"description":null,"title":"Buy milk"}',
    rb'{"title":"\u0042uy\u0020milk"}',
    b'{"title":"  Buy milk\\n"}',
    b'{"title":"Sell milk","title":"Buy milk"}',
    b'{"id":7,"user_id":"x","version":9,"created_at":null,"updated_at":[],"title":"Buy milk"}',
]
OTHER: list[Any] = [
    {"title": "Buy Milk"},
    {"title": "Buy  milk"},
    {"title": "Buy milk", "description": ""},
    {"title": "Buy milk", "description": "null"},
    {"title": "Buy milk", "completed": True},
]


class Operation(NamedTuple):
    """A way to create. `wrapped` makes its body of a task's JSON."""

    suffix: str
    wrapped: bytes

    def body(self, task: bytes | dict[str, Any]) -> bytes:
        return self.wrapped % (task if isinstance(task, bytes) else json.dumps(task).encode())


CREATE = Operation("", b"%s")
CREATE_MANY = Operation("/batch", b' [ {"title":"before"},%s , {"title":"after"}]')


@pytest.fixture(params=[CREATE, CREATE_MANY], ids=["create", "batch"])
def operation(request: pytest.FixtureRequest) -> Operation:
    return request.param


def post(
    client: httpx.Client, tasks: str, operation: Operation, task: bytes | dict[str, Any] = SAME, key: str = "k"
) -> httpx.Response:
    return client.post(tasks + operation.suffix, content=operation.body(task), headers={"Idempotency-Key": key})


def assert_replays(again: httpx.Response, first: httpx.Response) -> None:
    """`again` is `first`, and says that it is a replay."""
    assert (first.status_code, "idempotency-replayed" in first.headers) == (201, False)
    assert (again.status_code, again.headers.get("idempotency-replayed"), again.content) == (201, "true", first.content)
    for name in ("location", "etag", "content-type"):
        assert again.headers.get(name) == first.headers.get(name)


@pytest.mark.parametrize("task", EQUAL, ids=lambda task: task.decode()[:50])
def test_the_same_again_is_answered_again(client: httpx.Client, tasks: str, operation: Operation, task: bytes) -> None:
    first = post(client, tasks, operation)
    listed = client.get(tasks).content
    for _ in range(2):
        assert_replays(post(client, tasks, operation, task), first)
    assert client.get(tasks).content == listed


def test_the_first_answer_is_that_of_a_create(client: httpx.Client, tasks: str) -> None:
    new = {"title": " Buy milk ", "description": "", "completed": True}
    answer = post(client, tasks, CREATE, new)
    task = answer.json()
    assert task | {"title": "Buy milk", "description": "", "completed": True, "version": 1} == task
    assert task["created_at"] == task["updated_at"]
    assert (answer.headers["etag"], answer.headers["location"]) == ('"1"', f"{tasks}/{task['id']}")
    assert client.get(answer.headers["location"]).content == answer.content
    assert client.get(tasks).json() == [task]


def test_the_first_answer_is_that_of_a_batch(client: httpx.Client, tasks: str) -> None:
    made = post(client, tasks, CREATE_MANY).json()
    assert [task["title"] for task in made] == ["before", "Buy milk", "after"]
    assert client.get(tasks).json() == made[::-1]


@pytest.mark.parametrize("task", OTHER, ids=str)
def test_another_body_is_refused(client: httpx.Client, tasks: str, operation: Operation, task: dict[str, Any]) -> None:
    first = post(client, tasks, operation)
    listed = client.get(tasks).content
    answer = post(client, tasks, operation, task)
    assert (answer.status_code, answer.json()) == (422, USED)
    assert client.get(tasks).content == listed
    assert_replays(post(client, tasks, operation), first)


def test_a_batch_is_another_with_more_or_less_or_in_another_order(client: httpx.Client, tasks: str) -> None:
    items = [{"title": "a"}, {"title": "b"}]
    headers = {"Idempotency-Key": "k"}
    assert client.post(f"{tasks}/batch", json=items, headers=headers).status_code == 201
    for other in (items[:1], items[::-1], [*items, items[0]], [{"title": "a", "description": "b"}]):
        assert client.post(f"{tasks}/batch", json=other, headers=headers).status_code == 422
    assert len(client.get(tasks).json()) == 2


def test_a_key_belongs_to_the_user(client: httpx.Client, tasks: str, operation: Operation) -> None:
    other = tasks.replace("user-", "other-")
    assert post(client, tasks, operation).status_code == 201
    answer = post(client, other, operation, {"title": "Buy bread"})
    assert (answer.status_code, "idempotency-replayed" in answer.headers) == (201, False)


def test_a_key_belongs_to_the_operation(client: httpx.Client, tasks: str) -> None:
    """Even where one task is asked for in the same words."""
    single = Operation("/batch", b"[%s]")
    one, some = post(client, tasks, CREATE), post(client, tasks, single)
    assert "idempotency-replayed" not in some.headers
    assert some.json()[0]["id"] != one.json()["id"]
    assert_replays(post(client, tasks, CREATE), one)
    assert_replays(post(client, tasks, single), some)


def test_keys_are_compared_letter_by_letter(client: httpx.Client, tasks: str) -> None:
    keys = ["k", "K", "k.", "kk", "'", '"', '"k"', "%6B", "k,k", "\\", "{}", "k" * 254, "k" * 255, VISIBLE]
    made = {post(client, tasks, CREATE, key=key).json()["id"] for key in keys}
    assert len(made) == len(keys)
    assert {post(client, tasks, CREATE, key=key).json()["id"] for key in keys} == made


def test_white_space_around_a_key_is_not_of_it(service: RunningService, client: httpx.Client, tasks: str) -> None:
    first = post(client, tasks, CREATE)
    again = exchange(service.url, request("POST", tasks, b'{"title":"Buy milk"}', {"Idempotency-Key": " \tk\t "}))
    assert (again.status, again.body) == (201, first.content)


def test_what_became_of_the_task_does_not_matter(client: httpx.Client, tasks: str, operation: Operation) -> None:
    first = post(client, tasks, operation)
    changed, deleted = (f"{tasks}/{task['id']}" for task in (client.get(tasks).json() * 2)[:2])
    client.put(changed, json={"title": "Buy bread", "description": "x", "completed": True})
    assert_replays(post(client, tasks, operation), first)
    client.delete(deleted)
    listed = client.get(tasks).content
    assert_replays(post(client, tasks, operation), first)
    assert client.get(deleted).status_code == 404
    assert client.get(tasks).content == listed


@pytest.mark.parametrize(
    ("refused", "headers", "status"),
    [
        (b'{"title":""}', {}, 400),
        (b'{"title":"x","titel":"y"}', {}, 400),
        (b"{", {}, 400),
        (b'{"title":"x"}' + b" " * 8 * 1024 * 1024, {}, 413),
        (b'{"title":"Buy milk"}', {"Content-Type": "text/plain"}, 415),
    ],
    ids=["no title", "an unknown field", "no JSON", "too large", "another type"],
)
def test_what_was_refused_is_not_remembered(
    client: httpx.Client, tasks: str, operation: Operation, refused: bytes, headers: dict[str, str], status: int
) -> None:
    answer = client.post(
        tasks + operation.suffix, content=operation.body(refused), headers={"Idempotency-Key": "k"} | headers
    )
    assert answer.status_code == status
    first = post(client, tasks, operation)
    assert_replays(post(client, tasks, operation), first)


def test_a_key_is_good_for_24_hours(
    client: httpx.Client, shared_database_url: str, user: str, tasks: str, operation: Operation
) -> None:
    post(client, tasks, operation)
    listed = client.get(tasks).content
    a_day_passes(shared_database_url, user, less="1 min")
    again = post(client, tasks, operation)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert post(client, tasks, operation, {"title": "Buy bread"}).status_code == 422
    assert client.get(tasks).content == listed


@pytest.mark.parametrize("task", [SAME, {"title": "Buy bread"}], ids=["the same body", "another"])
def test_an_expired_key_is_as_if_never_used(
    client: httpx.Client, shared_database_url: str, user: str, tasks: str, operation: Operation, task: dict[str, Any]
) -> None:
    """Before anybody prunes it, and again for 24 hours."""
    first = post(client, tasks, operation)
    before = client.get(tasks).json()
    for _ in range(2):
        a_day_passes(shared_database_url, user)
        second = post(client, tasks, operation, task)
        assert second.status_code == 201
        assert second.content != first.content
        assert_replays(post(client, tasks, operation, task), second)
        assert post(client, tasks, operation, {"title": "Call home"}).status_code == 422
    assert len(client.get(tasks).json()) == 3 * len(before)


@pytest.mark.parametrize(
    "lines",
    [
        [b""],
        [b" "],
        [b"k" * 256],
        [b"k" * 5_000],
        [b"a b"],
        [b"a\tb"],
        [b"a\x01b"],
        [b"\x7f"],
        [b"\x00"],
        ["schlüssel".encode()],
        ["schlüssel".encode("latin-1")],
        ["🔑".encode()],
        [b"\xff"],
        [b"k", b"k"],
        [b"k", b"l"],
        [b"k", b""],
    ],
    ids=lambda lines: ascii(b" and ".join(lines))[2:-1][:30] or "nothing",
)
def test_a_key_that_cannot_be_used_is_refused(
    service: RunningService,
    client: httpx.Client,
    shared_database_url: str,
    user: str,
    tasks: str,
    operation: Operation,
    lines: list[bytes],
) -> None:
    body = operation.body(SAME)
    head = b"".join(b"Idempotency-Key: %s\r\n" % line for line in lines)
    sent = request("POST", tasks + operation.suffix, body).replace(b"\r\n\r\n", b"\r\n" + head + b"\r\n", 1)
    reply = exchange(service.url, sent)
    # What no header may hold at all, the server refuses before anybody asks what the header is.
    malformed = {byte for line in lines for byte in line} & {*range(9), *range(10, 32), 127}
    if malformed and HTTP_PROTOCOL:  # uvicorn's class answers in plain text
        assert reply.status == 400
    else:
        assert (reply.status, reply.json()) == (400, MALFORMED if malformed else UNUSABLE)
    assert client.get(tasks).json() == []
    with psycopg.connect(shared_database_url) as connection:
        query = "SELECT FROM users WHERE id = %s"  # whom a record would need
        assert connection.execute(query, (user,)).rowcount == 0


def test_without_a_key_the_same_is_done_again(client: httpx.Client, tasks: str, operation: Operation) -> None:
    answers = [client.post(tasks + operation.suffix, content=operation.body(SAME)) for _ in range(2)]
    assert answers[0].content != answers[1].content
    assert all("idempotency-replayed" not in answer.headers for answer in answers)
