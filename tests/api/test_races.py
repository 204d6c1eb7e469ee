"""Races over real sockets: many requests at once on one task, one user, one version."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.running import RunningService


async def at_once(service: RunningService, method: str, path: str, count: int, **what: Any) -> list[httpx.Response]:
    """The answers to `count` requests, each on a connection of its own, all connected before the first is sent."""
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(base_url=service.url, timeout=30, limits=limits, verify=False) as client:
        await asyncio.gather(*(client.get("/livez") for _ in range(count)))
        return await asyncio.gather(*(client.request(method, path, **what) for _ in range(count)))


async def test_101_toggles_leave_an_odd_number_of_them(
    service: RunningService, client: httpx.Client, tasks: str
) -> None:
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    answers = await at_once(service, "PATCH", path + "/complete", 101)
    assert Counter(answer.status_code for answer in answers) == {200: 101}
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 103))
    task = client.get(path).json()
    assert (task["completed"], task["version"]) == (True, 102)


async def test_sets_at_once_change_it_once(service: RunningService, client: httpx.Client, tasks: str) -> None:
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    answers = await at_once(service, "PATCH", path + "/complete", 50, json={"completed": True})
    assert {(answer.json()["completed"], answer.headers["etag"]) for answer in answers} == {(True, '"2"')}


async def test_first_creates_at_once_make_one_user(
    service: RunningService, client: httpx.Client, shared_database_url: str, user: str, tasks: str
) -> None:
    answers = await at_once(service, "POST", tasks, 50, json={"title": "x"})
    assert Counter(answer.status_code for answer in answers) == {201: 50}
    with psycopg.connect(shared_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM users WHERE id = %s", (user,)).fetchone() == (1,)
    assert [task["id"] for task in client.get(tasks).json()] == sorted(
        (answer.json()["id"] for answer in answers), reverse=True
    )


async def test_of_50_updates_of_one_version_one_gets_through(
    service: RunningService, client: httpx.Client, tasks: str
) -> None:
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    answers = await at_once(service, "PUT", path, 50, json={"title": "y"}, headers={"If-Match": '"1"'})
    assert Counter((answer.status_code, answer.headers["etag"]) for answer in answers) == {
        (200, '"2"'): 1,
        (412, '"2"'): 49,
    }
    assert client.get(path).json()["version"] == 2


async def test_of_50_deletes_one_deletes(service: RunningService, client: httpx.Client, tasks: str) -> None:
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    answers = await at_once(service, "DELETE", path, 50)
    assert Counter(answer.status_code for answer in answers) == {204: 1, 404: 49}


@contextmanager
def changed_but_not_committed(url: str, path: str) -> Iterator[psycopg.Connection[Any]]:
    """Another session's change to the task: its version is one more, and nobody sees it yet."""
    with psycopg.connect(url) as other:
        task_id = int(path.rpartition("/")[2])
        other.execute(
            "UPDATE tasks SET title = 'theirs', completed = true, version = version + 1 WHERE id = %s", (task_id,)
        )
        yield other


async def until_it_waits(url: str) -> None:
    """Returns when a statement waits for another session's lock."""
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        async with asyncio.timeout(10):
            while not (await connection.execute(query)).rowcount:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "suffix", "body"),
    [
        ("PUT", "", {"title": "mine"}),
        ("PUT", "", {"title": "x"}),  # as it is, until theirs is committed
        ("PUT", "", {"description": None, "completed": False}),
        ("PATCH", "/complete", None),
        ("PATCH", "/complete", {"completed": False}),
        ("DELETE", "", None),
    ],
    ids=str,
)
@pytest.mark.parametrize("tag", [None, '"1"', '"2"', '"1", "2"', "*"])
async def test_a_write_that_waited_says_what_it_did(
    service: RunningService,
    client: httpx.Client,
    shared_database_url: str,
    tasks: str,
    method: str,
    suffix: str,
    body: Any,
    tag: str | None,
) -> None:
    """What the statement saw when it began may be over when it has its lock."""
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    async with httpx.AsyncClient(base_url=service.url, timeout=30, verify=False) as slow:
        with changed_but_not_committed(shared_database_url, path) as other:
            headers = {"If-Match": tag} if tag else {}
            waiting = asyncio.create_task(slow.request(method, path + suffix, json=body, headers=headers))
            await until_it_waits(shared_database_url)
            other.commit()
        answer = await waiting
    if method == "DELETE" and tag != '"1"':
        assert (answer.status_code, client.get(path).status_code) == (204, 404)
        return
    task = client.get(path).json()
    theirs = {"title": "theirs", "description": None, "completed": True}
    if tag == '"1"':
        assert (answer.status_code, answer.headers["etag"]) == (412, '"2"')
        assert task | theirs | {"version": 2} == task
    else:
        assert (answer.status_code, answer.json()) == (200, task)
        assert task | theirs | (body or {"completed": False}) | {"version": 3} == task
