"""Uses tasks.py in a network where each first try meets a fault and its retry does not. Fails by assertion."""

import sys
from typing import Any
from uuid import uuid4

import httpx
from tasks import Task, all_tasks, create_task, poll, task_client, update_task

url, token, user = sys.argv[1:]
tokens = 0
COUNT = 8  # each fault once


def fresh() -> str:
    global tokens
    tokens += 1
    return token


with task_client(url, fresh) as client:
    for number in range(COUNT):
        create_task(client, user, {"title": f"Task {number}"}, str(uuid4()))
    assert tokens == COUNT
    titles = [task["title"] for task in all_tasks(client, user, 5)]
    assert titles == [f"Task {number}" for number in reversed(range(COUNT))]

    stale = task = create_task(client, user, {"title": "Milk"}, str(uuid4()))
    for _ in range(COUNT):
        task = update_task(client, task, lambda task: {"title": f" {task['title']}! "})
    assert task["title"] == "Milk" + "!" * COUNT
    assert task["version"] == 1 + COUNT

    decided: list[str] = []

    def describe(task: Task) -> dict[str, Any]:
        decided.append(task["title"])
        return {"description": f"was {task['title']}"}

    changed = update_task(client, stale, describe)
    assert decided == ["Milk", task["title"]]
    assert (changed["title"], changed["description"]) == (task["title"], f"was {task['title']}")

    newest = poll(client, user, 5)
    assert [task["title"] for task in newest() or []] == [task["title"], *titles[:4]]
    for _ in range(COUNT):
        assert newest() is None
    create_task(client, user, {"title": "New"}, str(uuid4()))
    assert (newest() or [])[0]["title"] == "New"

    try:
        create_task(client, user, {"title": " "}, "k")
    except httpx.HTTPStatusError as error:
        assert error.response.json() == {"error": "Title cannot be empty", "field": "title"}
    else:
        raise AssertionError("an empty title is taken")
