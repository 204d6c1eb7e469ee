"""Uses tasks.py in a network whose faults are those of test_page.LIMITS, in their order. Fails by assertion."""

import sys
from collections.abc import Callable
from typing import TypeVar

import httpx
from tasks import Task, all_tasks, create_task, task_client, tasks_url

url, token, user = sys.argv[1:]
Error = TypeVar("Error", bound=Exception)


def error_of(kind: type[Error], call: Callable[[], object]) -> Error:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("no error")


with task_client(url, lambda: token) as client:
    one = f"{tasks_url(user)}/{create_task(client, user, {'title': 'First'}, 'first')['id']}"

    def post() -> httpx.Response:
        return client.post(tasks_url(user), json={"title": "No key"})

    def second() -> Task:
        return create_task(client, user, {"title": "Second"}, "second")

    # a lost response is an error if a retry could be a second change
    error_of(httpx.RemoteProtocolError, post)
    error_of(httpx.RemoteProtocolError, lambda: client.patch(f"{one}/complete"))
    assert client.get(one).json()["completed"]
    # and is none for a toggle that sets
    assert client.patch(f"{one}/complete", json={"completed": True}).json()["version"] == 2
    # a 429 was not started, a 503 may have been
    assert post().status_code == 201
    assert post().status_code == 503
    # a wait that is too long
    assert client.get(one).status_code == 503
    # a proxy's page, and nothing at all
    for _ in ("page", "nothing"):
        error = error_of(httpx.HTTPStatusError, lambda: create_task(client, user, {"title": "Never"}, "never"))
        assert error.response.status_code == 502
    # given up, with the task created
    error_of(httpx.RemoteProtocolError, second)
    second()
    assert [task["title"] for task in all_tasks(client, user)] == ["Second", "No key", "No key", "First"]
