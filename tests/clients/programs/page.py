"""Uses the functions of the page through a network that loses requests and responses."""

import sys

import httpx
from tasks import all_tasks, create_task, send

url, token, user = sys.argv[1:]

with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client:
    for number in range(12):
        create_task(client, user, f"Task {number}")
    tasks = list(all_tasks(client, user, 5))
    assert [task["title"] for task in tasks] == [f"Task {number}" for number in reversed(range(12))]
    path = f"/api/{user}/tasks/{tasks[0]['id']}/complete"
    assert send(client, client.build_request("PATCH", path, json={"completed": True})).json()["version"] == 2
    try:
        create_task(client, user, " ")
    except httpx.HTTPStatusError as error:
        assert error.response.json() == {"error": "Title cannot be empty", "field": "title"}
    else:
        raise AssertionError("an empty title is taken")
