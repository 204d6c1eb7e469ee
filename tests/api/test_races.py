"""Races over real sockets: many requests at once on one task, one user, one version, one key."""

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import httpx
import psutil
import psycopg
import pytest

from tests.support.databases import a_day_passes, until_blocked
from tests.support.http import Response, connect, read_response, request
from tests.support.processes import RunningService, wait_ready


def at_once(service: RunningService, count: int, sent: bytes) -> list[Response]:
    """The answers to so many equal requests, each on its own connection, all connected before the first is sent."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(service.url, 30)) for _ in range(count)]
        ask(connections, [request("GET", "/livez")] * count)
        return ask(connections, [sent] * count)


def test_101_toggles_leave_an_odd_number_of_them(service: RunningService, client: httpx.Client, tasks: str) -> None:
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    replies = at_once(service, 101, request("PATCH", path + "/complete"))
    assert Counter(reply.status for reply in replies) == {200: 101}
    assert sorted(reply.json()["version"] for reply in replies) == list(range(2, 103))
    task = client.get(path).json()
    assert (task["completed"], task["version"]) == (True, 102)


def test_sets_at_once_change_it_once(service: RunningService, client: httpx.Client, tasks: str) -> None:
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    replies = at_once(service, 50, request("PATCH", path + "/complete", b'{"completed": true}'))
    assert {(reply.json()["completed"], reply.headers["etag"]) for reply in replies} == {(True, '"2"')}


def test_first_creates_at_once_make_one_user(
    service: RunningService, client: httpx.Client, shared_database_url: str, user: str, tasks: str
) -> None:
    replies = at_once(service, 50, request("POST", tasks, b'{"title": "x"}'))
    assert Counter(reply.status for reply in replies) == {201: 50}
    with psycopg.connect(shared_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM users WHERE id = %s", (user,)).fetchone() == (1,)
    assert [task["id"] for task in client.get(tasks).json()] == sorted(
        (reply.json()["id"] for reply in replies), reverse=True
    )


def test_of_50_deletes_one_deletes(service: RunningService, client: httpx.Client, tasks: str) -> None:
    path = client.post(tasks, json={"title": "x"}).headers["location"]
    replies = at_once(service, 50, request("DELETE", path))
    assert Counter(reply.status for reply in replies) == {204: 1, 404: 49}


@contextmanager
def changed_but_not_committed(url: str, path: str) -> Iterator[psycopg.Connection[Any]]:
    """Another session's change to the task: its version is one more, and nobody sees it yet."""
    with psycopg.connect(url) as other:
        task_id = int(path.rpartition("/")[2])
        other.execute(
            "UPDATE tasks SET title = 'theirs', completed = true, version = version + 1 WHERE id = %s", (task_id,)
        )
        yield other


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
            await until_blocked(shared_database_url)
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


# On two workers. What is asked for at once, half of it of each worker, and how many of each answer there are.

REPEATED = pytest.mark.parametrize("times", [1, pytest.param(100, marks=pytest.mark.slow)])

SAME = {"title": "Buy milk"}
THREE = [{"title": "Buy milk"}, {"title": "Buy bread"}, {"title": "Call home"}]
PAIR = [SAME, SAME | {"completed": True}]


class Keyed(NamedTuple):
    """A race of posts with an Idempotency-Key, each given as (path after the user's tasks, key, body)."""

    posts: list[tuple[str, str, Any]]
    created: int  # 201, made now
    replayed: int  # 201, the first answer again
    refused: int  # 422, the key was used for another body
    tasks: int  # more than before


KEYED = {
    "one create": Keyed([("", "k", SAME)] * 50, created=1, replayed=49, refused=0, tasks=1),
    "one batch": Keyed([("/batch", "k", THREE)] * 50, created=1, replayed=49, refused=0, tasks=3),
    "a key for 50 bodies": Keyed(
        [("", "k", {"title": str(n)}) for n in range(50)], created=1, replayed=0, refused=49, tasks=1
    ),
    "a key for 2 bodies": Keyed([("", "k", body) for body in PAIR] * 25, created=1, replayed=24, refused=25, tasks=1),
    "a key for 2 orders of a batch": Keyed(
        [("/batch", "k", body) for body in (THREE, THREE[::-1])] * 25, created=1, replayed=24, refused=25, tasks=3
    ),
    "a key for create and batch": Keyed(
        [("", "k", SAME), ("/batch", "k", THREE)] * 25, created=2, replayed=48, refused=0, tasks=4
    ),
    "10 keys": Keyed([("", str(n), SAME) for n in range(10)] * 5, created=10, replayed=40, refused=0, tasks=10),
    "50 keys": Keyed([("", str(n), SAME) for n in range(50)], created=50, replayed=0, refused=0, tasks=50),
}


class Tagged(NamedTuple):
    """A race of writes to one task with `If-Match: "1"`, each given as (method, path after the task's, body)."""

    writes: list[tuple[str, str, Any]]
    statuses: dict[int, int]
    version: int | None  # of the task then, and in every ETag; None: it is gone


RENAMES = [("PUT", "", {"title": str(n)}) for n in range(50)]
FLIP = ("PATCH", "/complete", None)
TAGGED = {
    "updates": Tagged(RENAMES, {200: 1, 412: 49}, version=2),
    "flips": Tagged([FLIP] * 50, {200: 1, 412: 49}, version=2),
    "sets": Tagged([("PATCH", "/complete", {"completed": True})] * 50, {200: 1, 412: 49}, version=2),
    "updates and flips": Tagged([*RENAMES[:25], *[FLIP] * 25], {200: 1, 412: 49}, version=2),
    "updates that change nothing": Tagged([("PUT", "", SAME)] * 50, {200: 50}, version=1),
    "deletes": Tagged([("DELETE", "", None)] * 50, {204: 1, 404: 49}, version=None),
}


@pytest.fixture(scope="module")
def two_workers(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(
        tmp_path_factory.mktemp("workers"),
        DATABASE_URL=shared_database_url,
        AUTH_MODE="none",
        WORKERS="2",
    ) as running:
        wait_ready(running.url)
        yield running


@pytest.fixture(scope="module")
def connections(two_workers: RunningService) -> Iterator[list[socket.socket]]:
    """50 connections, every other one to the other worker."""
    end = time.monotonic() + 20
    with ExitStack() as stack:
        made: list[socket.socket] = []
        while True:
            more = [stack.enter_context(connect(two_workers.url, 30)) for _ in range(25)]
            ask(more, [request("GET", "/livez")] * len(more))  # which makes sure that somebody has taken it
            made += more
            workers = taken_by(two_workers, made)
            if len(workers) == 2 and min(map(len, workers)) >= 25:
                yield [one for both in zip(*workers, strict=False) for one in both][:50]
                return
            assert time.monotonic() < end, f"one worker took nearly all: {list(map(len, workers))}"


def taken_by(service: RunningService, connections: list[socket.socket]) -> list[list[socket.socket]]:
    """The connections, by the process that answers on them."""
    workers = psutil.Process(service.process.pid).children(recursive=True)
    ports = [{at.raddr.port for at in worker.net_connections("tcp4") if at.raddr} for worker in workers]
    found = [[one for one in connections if one.getsockname()[1] in taken] for taken in ports]
    return [some for some in found if some]


def ask(connections: list[socket.socket], sent: list[bytes]) -> list[Response]:
    """The responses to these requests, one connection each, all sent before one is read."""
    for connection, one in zip(connections, sent, strict=True):
        connection.sendall(one)
    return [read_response(connection) for connection in connections]


def post(path: str, key: str, body: Any) -> bytes:
    return request("POST", path, json.dumps(body).encode(), {"Idempotency-Key": key})


@REPEATED
@pytest.mark.parametrize("race", KEYED.values(), ids=KEYED)
@pytest.mark.parametrize("used", [False, True], ids=["new keys", "keys used a day ago"])
def test_a_key_makes_one_thing(
    connections: list[socket.socket],
    client: httpx.Client,
    shared_database_url: str,
    user: str,
    race: Keyed,
    used: bool,
    times: int,
) -> None:
    for n in range(times):
        tasks = f"/api/{user}-{n}/tasks"
        if used:
            for path, key in {(path, key) for path, key, _ in race.posts}:
                client.post(tasks + path, json=[SAME] if path else SAME, headers={"Idempotency-Key": key})
            a_day_passes(shared_database_url, f"{user}-{n}")
        before = len(client.get(tasks).json())
        replies = ask(connections, [post(tasks + path, key, body) for path, key, body in race.posts])
        assert Counter((reply.status, reply.headers.get("idempotency-replayed")) for reply in replies) == Counter(
            {(201, None): race.created, (201, "true"): race.replayed, (422, None): race.refused}
        )
        answers: dict[tuple[str, str], set[tuple[bytes, str | None, str | None]]] = {}
        for (path, key, _), reply in zip(race.posts, replies, strict=True):
            if reply.status == 201:
                answer = (reply.body, reply.headers.get("location"), reply.headers.get("etag"))
                answers.setdefault((path, key), set()).add(answer)
            else:
                assert reply.json() == {"error": "Idempotency-Key was already used for another request"}
        assert [len(equal) for equal in answers.values()] == [1] * race.created
        assert len(client.get(tasks).json()) - before == race.tasks


@REPEATED
@pytest.mark.parametrize("race", TAGGED.values(), ids=TAGGED)
def test_a_version_lets_one_write_through(
    connections: list[socket.socket], client: httpx.Client, tasks: str, race: Tagged, times: int
) -> None:
    for _ in range(times):
        path = client.post(tasks, json=SAME).headers["location"]
        sent = [
            request(method, path + suffix, b"" if body is None else json.dumps(body).encode(), {"If-Match": '"1"'})
            for method, suffix, body in race.writes
        ]
        replies = ask(connections, sent)
        assert Counter(reply.status for reply in replies) == race.statuses
        task = client.get(path)
        if race.version is None:
            assert task.status_code == 404
            continue
        assert {reply.headers.get("etag") for reply in replies} == {f'"{race.version}"'} == {task.headers["etag"]}
        assert {reply.body for reply in replies if reply.status == 200} == {task.content}
