"""Batch create: 1 to 1000 tasks in one statement, answered in the order sent, all or nothing."""

import json
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.http import exchange, request
from tests.support.processes import RunningService

BATCH_BYTES = 8 * 1024 * 1024

NOT_JSON = "Request body must be valid JSON"
NOT_ARRAY = "Request body must be a JSON array"
LENGTH = "A batch must hold between 1 and 1000 tasks"
NOT_OBJECT = "Each task of a batch must be a JSON object"

GOOD = {"title": "x"}


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"title": str(n)} for n in range(count)]


@pytest.fixture
def batch(tasks: str) -> str:
    return f"{tasks}/batch"


@pytest.mark.parametrize("count", [1, 2, 999, 1000])
def test_answers_come_in_the_order_sent(client: httpx.Client, tasks: str, batch: str, count: int) -> None:
    answer = client.post(batch, json=numbered(count))
    made = answer.json()
    assert (answer.status_code, [task["title"] for task in made]) == (201, [str(n) for n in range(count)])
    assert client.get(tasks).json() == made[::-1]  # newest first: the last one is the newest
    assert len({task["created_at"] for task in made}) == 1
    assert not {"location", "etag"} & set(answer.headers)


def test_each_item_is_a_create(client: httpx.Client, tasks: str, batch: str) -> None:
    """The same rules, the same defaults, the same task."""
    items: list[dict[str, Any]] = [
        {"title": "x"},
        {"title": " x\t", "description": "", "completed": True},
        {"title": "\u65e5\u672c \U0001f600", "description": "a\n'\"\\ \u2028", "completed": False},
        {"title": "null", "description": None},
        {"title": "'; DROP TABLE tasks; --", "description": "%(user_id)s {} $1"},
        {"title": "\U0001f600" * 255, "description": "\U0001f600" * 5000},
        {"title": "x", "id": 7, "user_id": "y", "version": 9, "created_at": None, "updated_at": {}},
    ]
    times = ("id", "created_at", "updated_at")
    together = client.post(batch, json=items).json()
    singly = [client.post(tasks, json=item).json() for item in items]
    assert [[task[name] for name in task if name not in times] for task in together] == [
        [task[name] for name in task if name not in times] for task in singly
    ]


@pytest.mark.parametrize("place", [0, 1, 499, 999])
@pytest.mark.parametrize(
    ("bad", "field", "message"),
    [
        ({}, "title", "Title is required"),
        ({"title": None}, "title", "Title is required"),
        ({"title": " "}, "title", "Title cannot be empty"),
        ({"title": "x" * 256}, "title", "Title must be 255 characters or less"),
        ({"title": "a\0b"}, "title", "Title must not contain the character U+0000"),
        ({"title": 5}, "title", "Title must be a string"),
        ({"title": "x", "description": "x" * 5001}, "description", "Description must be 5000 characters or less"),
        ({"title": "x", "completed": "true"}, "completed", "Completed must be true or false"),
        ({"title": "x", "titel": "y"}, "titel", 'Unknown field: "titel"'),
        ([], None, NOT_OBJECT),
        (None, None, NOT_OBJECT),
        ("x", None, NOT_OBJECT),
        (5, None, NOT_OBJECT),
        ([{"title": "x"}], None, NOT_OBJECT),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_one_bad_item_is_named_and_nothing_is_stored(
    client: httpx.Client,
    shared_database_url: str,
    user: str,
    batch: str,
    place: int,
    bad: Any,
    field: str | None,
    message: str,
) -> None:
    items: list[Any] = numbered(1000)
    items[place] = bad
    answer = client.post(batch, json=items, headers={"Idempotency-Key": "k"})
    name = str(place) if field is None else f"{place}.{field}"
    assert (answer.status_code, answer.json()) == (400, {"error": message, "field": name})
    assert_nothing_stored(shared_database_url, user)


def test_of_several_bad_items_the_first_is_named(client: httpx.Client, batch: str) -> None:
    answer = client.post(batch, json=[GOOD, {"title": 5}, {}, None])
    assert answer.json() == {"error": "Title must be a string", "field": "1.title"}


MANY = json.dumps(numbered(1000)).encode()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"[]", 400, LENGTH),
        (b"[ ]", 400, LENGTH),
        (json.dumps([GOOD] * 1001).encode(), 400, LENGTH),
        (json.dumps([None] * 1001).encode(), 400, LENGTH),
        (b"[" + b"{}," * 2_000_000 + b"{}]", 400, LENGTH),
        (b"{}", 400, NOT_ARRAY),
        (b'{"title":"x"}', 400, NOT_ARRAY),
        (b'{"0":{"title":"x"}}', 400, NOT_ARRAY),
        (b"null", 400, NOT_ARRAY),
        (b"5", 400, NOT_ARRAY),
        (b'"[]"', 400, NOT_ARRAY),
        (b"", 400, NOT_JSON),
        (b" ", 400, NOT_JSON),
        (b"[", 400, NOT_JSON),
        (b'[{"title":"x"}', 400, NOT_JSON),
        (b'[{"title":"x"},]', 400, NOT_JSON),
        (b'[{"title":"x"} {"title":"y"}]', 400, NOT_JSON),
        (b'{"title":"x"}\n{"title":"y"}', 400, NOT_JSON),
        (b'[{"title":"\xff"}]', 400, NOT_JSON),
        (b'[{"title":5},{"title":"\xff"}]', 400, NOT_JSON),
        (rb'[{"title":"\ud800"}]', 400, NOT_JSON),
        (b"[" * 100_000 + b"]" * 100_000, 400, NOT_JSON),
        (MANY + b" " * (BATCH_BYTES + 1 - len(MANY)), 413, "Request body must be 8192 KiB or less"),
    ],
    ids=lambda value: f"{value[:20]!r} {len(value)}" if isinstance(value, bytes) else "",
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_what_is_no_batch_is_refused(
    service: RunningService,
    shared_database_url: str,
    user: str,
    batch: str,
    body: bytes,
    status: int,
    message: str,
    framing: str,
) -> None:
    headers = {"Idempotency-Key": "k"}
    if framing == "chunked":
        headers["Transfer-Encoding"] = "chunked"
        body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    reply = exchange(service.url, request("POST", batch, body, headers))
    assert (reply.status, reply.json()) == (status, {"error": message})
    assert_nothing_stored(shared_database_url, user)


def test_8_mib_are_taken(client: httpx.Client, tasks: str, batch: str) -> None:
    """White space or tasks."""
    assert client.post(batch, content=MANY + b" " * (BATCH_BYTES - len(MANY))).status_code == 201
    description = "\u00fc" * ((BATCH_BYTES - 100_000) // 2 // 1000)
    full = json.dumps([task | {"description": description} for task in numbered(1000)], ensure_ascii=False).encode()
    assert BATCH_BYTES - 100_000 < len(full) <= BATCH_BYTES
    made = client.post(batch, content=full, headers={"Idempotency-Key": "k"})
    assert made.status_code == 201
    assert {task["description"] for task in made.json()} == {description}
    assert client.post(batch, content=full, headers={"Idempotency-Key": "k"}).content == made.content
    assert len(client.get(tasks).json()) == 2000


@pytest.mark.parametrize("key", [None, "k"])
def test_what_the_database_refuses_is_refused_as_a_whole(
    client: httpx.Client, shared_database_url: str, user: str, batch: str, key: str | None
) -> None:
    """Even where it finds out at the last task."""
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE tasks ADD CONSTRAINT tasks_no_999 CHECK (title <> '999 {user}')".encode())
        try:
            items = [*numbered(999), {"title": f"999 {user}"}]
            answer = client.post(batch, json=items, headers={"Idempotency-Key": key} if key else {})
        finally:
            connection.execute("ALTER TABLE tasks DROP CONSTRAINT tasks_no_999")
    assert (answer.status_code, answer.json()) == (500, {"error": "Internal server error"})
    assert_nothing_stored(shared_database_url, user)
    # What failed is not remembered.
    again = client.post(batch, json=items, headers={"Idempotency-Key": key} if key else {})
    assert (again.status_code, "idempotency-replayed" in again.headers, len(again.json())) == (201, False, 1000)


def assert_nothing_stored(url: str, user: str) -> None:
    """Not even the user, without whom there is neither a task nor an idempotency record."""
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT FROM users WHERE id = %s", (user,)).rowcount == 0
