"""Whose tasks: a user's id is opaque text, taken as given, and nobody sees anybody else's tasks."""

from urllib.parse import quote

import httpx
import psycopg
import pytest

from tests.support.http import exchange, request
from tests.support.processes import RunningService

IDS = [
    "7f9c24e8-3b12-4fef-91e0-5f7d6a1c2b3d",
    "anna@example.com",
    "auth0|5f7c8ec7c33c6c004bbafe82",
    "a/b",
    "/",
    "//",
    "../admin",
    ".",
    "..",
    "...",
    "a%2Fb",
    "%",
    "%25",
    "%00",  # as text: a percent sign and two noughts
    "a?b=c",
    "a#b",
    "a b",
    " a",
    "a ",
    "a+b",
    "a&b=c;d",
    "a>b<c",
    'a"b',
    "a\\b",
    "a\nb\r\nX-Evil: 1",
    "\x01\x7f",
    "Jürgen",
    "Ju\u0308rgen",  # another one: text is not normalised
    "日本語",
    "😀",
    "\u200b",
    "\ufeff",
    "\U0010ffff",
    "{user_id}",
    "tasks",
    "batch",
    "livez",
    "null",
    "0",
    "x" * 255,
    "😀" * 255,
    "/" * 255,
]


@pytest.mark.parametrize("user", IDS, ids=lambda user: ascii(user)[:24])
def test_any_text_can_be_a_user(service: RunningService, user: str) -> None:
    """Every endpoint, with the path as a careful client writes it."""
    path = f"/api/{quote(user, safe='')}/tasks"

    def ask(method: str, path: str, body: bytes = b"") -> tuple[int, object]:
        reply = exchange(service.url, request(method, path, body))
        return reply.status, reply.json() if reply.body else None

    made = exchange(service.url, request("POST", path, b'{"title": "x"}'))
    task = made.json()
    assert (made.status, task["user_id"]) == (201, user)
    one = made.headers["location"]
    assert one == f"{path}/{task['id']}"
    exchange(service.url, request("POST", path, b'{"title": "y"}'))
    page = exchange(service.url, request("GET", path + "?limit=1"))
    link, _, relation = page.headers["link"].partition("; ")
    assert relation == 'rel="next"'
    assert ask("GET", link.strip("<>")) == (200, [task])
    assert ask("GET", one) == (200, task)
    assert ask("PATCH", one + "/complete")[0] == 200
    assert ask("PUT", one, b'{"title": "z"}')[0] == 200
    assert ask("DELETE", one) == (204, None)
    assert ask("GET", one)[0] == 404


def test_similar_users_are_not_the_same(client: httpx.Client, user: str) -> None:
    similar = (f"{user}/x", f"{user}%2Fx", f"{user}/X", f"{user}/x ")
    paths = [f"/api/{quote(name, safe='')}/tasks" for name in similar]
    for path in paths:
        assert client.post(path, json={"title": path}).status_code == 201
    for path in paths:
        assert [task["title"] for task in client.get(path).json()] == [path]


def test_a_letter_may_be_encoded_or_not(client: httpx.Client) -> None:
    """RFC 3986, section 2.3: the two are the same path."""
    client.post("/api/encoded/tasks", json={"title": "x"})
    assert client.get("/api/%65ncod%65d/tasks").json() == client.get("/api/encoded/tasks").json() != []


@pytest.mark.parametrize("user", ["a>b", "a<b", 'a"b', "a|b", "a^b", "a`b", "a{b}"])
def test_what_a_client_forgot_to_encode_is_encoded_in_links(service: RunningService, user: str) -> None:
    """Such a character would end the URL within a Link (RFC 8288, section 3)."""
    made = [exchange(service.url, request("POST", f"/api/{user}/tasks", b'{"title": "x"}')) for _ in range(2)]
    page = exchange(service.url, request("GET", f"/api/{user}/tasks?limit=1"))
    path = f"/api/{quote(user, safe='')}/tasks"
    assert made[0].headers["location"] == f"{path}/{made[0].json()['id']}"
    assert page.headers["link"].startswith(f"<{path}?")


def test_a_user_comes_into_being_with_the_first_task(client: httpx.Client, shared_database_url: str, user: str) -> None:
    tasks = f"/api/{user}/tasks"

    def rows() -> list[tuple[object, ...]]:
        with psycopg.connect(shared_database_url) as connection:
            return connection.execute("SELECT id, email FROM users WHERE id = %s", (user,)).fetchall()

    assert client.get(tasks).json() == []
    assert client.get(tasks + "/1").status_code == 404
    assert client.post(tasks, json={"title": ""}).status_code == 400
    assert rows() == []
    client.post(tasks, json={"title": "x"})
    client.post(tasks, json={"title": "y"})
    assert rows() == [(user, None)]
