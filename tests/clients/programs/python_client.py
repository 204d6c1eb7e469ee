"""Drives all seven operations through openapi-python-client: errors, pages, tags, keys. Fails by assertion."""

import sys
from uuid import uuid4

import httpx
from task_client import AuthenticatedClient
from task_client.api.tasks import (
    batch_tasks,
    create_task,
    delete_task,
    get_task,
    list_tasks,
    toggle_task,
    update_task,
)
from task_client.models import ApiError, Task, TaskCreate, TaskToggle, TaskUpdate
from task_client.types import UNSET, Unset

url, token, user = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=token)

# create, with a key and without
key = str(uuid4())
new = TaskCreate(title=" Buy milk ")
first = create_task.sync_detailed(user, client=client, body=new, idempotency_key=key)
task = first.parsed
assert first.status_code == 201
assert isinstance(task, Task)
assert (task.title, task.description, task.completed) == ("Buy milk", None, False)
assert first.headers["location"] == f"/api/{user}/tasks/{task.id}"
again = create_task.sync_detailed(user, client=client, body=new, idempotency_key=key)
assert (again.headers["idempotency-replayed"], again.parsed) == ("true", task)
reused = create_task.sync_detailed(user, client=client, body=TaskCreate(title="Other"), idempotency_key=key)
assert reused.status_code == 422
assert isinstance(reused.parsed, ApiError)
assert reused.parsed.error == "Idempotency-Key was already used for another request"
body = TaskCreate(title="Call Ada", description="About the engine", completed=True)
described = create_task.sync(user, client=client, body=body)
assert isinstance(described, Task)
assert described.description == "About the engine"

# batch
many = [TaskCreate(title=f"Task {number}") for number in range(5)]
batch = batch_tasks.sync(user, client=client, body=many)
assert isinstance(batch, list)
assert [made.title for made in batch] == [asked.title for asked in many]
bad_item = batch_tasks.sync(user, client=client, body=[TaskCreate(title="x"), TaskCreate(title=" ")])
assert bad_item == ApiError("Title cannot be empty", "1.title")

# list, in pages
ids: list[int] = []
after: int | Unset = UNSET
while True:
    page = list_tasks.sync_detailed(user, client=client, limit=3, after=after)
    assert isinstance(page.parsed, list)
    ids += [found.id for found in page.parsed]
    if "link" not in page.headers:
        break
    after = int(httpx.URL(page.headers["link"].partition(">")[0][1:]).params["after"])
everything = list_tasks.sync(user, client=client)
assert isinstance(everything, list)
assert ids == [found.id for found in everything]
assert len(ids) == 7
still_open = list_tasks.sync(user, client=client, completed=False)
assert isinstance(still_open, list)
assert len(still_open) == 6
assert list_tasks.sync(user, client=client, limit=0) == ApiError("limit must be between 1 and 1000", "limit")

# get, with a tag
got = get_task.sync_detailed(user, task.id, client=client)
tag = got.headers["etag"]
assert tag == f'"{task.version}"'
assert get_task.sync_detailed(user, task.id, client=client, if_none_match=tag).status_code == 304
assert get_task.sync(user, 10**15, client=client) == ApiError("Task not found")

# update, with a tag; absent and null are two things
update = update_task.sync(user, task.id, client=client, body=TaskUpdate(description="two litres"), if_match=tag)
assert isinstance(update, Task)
assert (update.title, update.description) == ("Buy milk", "two litres")
stale = update_task.sync_detailed(user, task.id, client=client, body=TaskUpdate(title="Lost"), if_match=tag)
assert (stale.status_code, stale.headers["etag"]) == (412, '"2"')
kept = update_task.sync(user, task.id, client=client, body=TaskUpdate(title="Milk"))
assert isinstance(kept, Task)
assert kept.description == "two litres"
cleared = update_task.sync(user, task.id, client=client, body=TaskUpdate(description=None))
assert isinstance(cleared, Task)
assert cleared.description is None
null = TaskUpdate(title=None)  # type: ignore[arg-type]  # a title cannot be null
assert update_task.sync(user, task.id, client=client, body=null) == ApiError("Title must be a string", "title")

# toggle: flips, or sets
flipped = toggle_task.sync(user, task.id, client=client)
assert isinstance(flipped, Task)
assert flipped.completed
done = toggle_task.sync(user, task.id, client=client, body=TaskToggle(completed=True))
assert isinstance(done, Task)
assert done.completed

# delete
assert delete_task.sync_detailed(user, task.id, client=client, if_match=tag).status_code == 412
assert delete_task.sync_detailed(user, task.id, client=client).status_code == 204
assert delete_task.sync_detailed(user, task.id, client=client).status_code == 404

# the wrong user, and a wrong token
assert list_tasks.sync("somebody-else", client=client) == ApiError("Access denied")
nobody = list_tasks.sync_detailed(user, client=AuthenticatedClient(base_url=url, token="x"))
assert (nobody.status_code, nobody.parsed) == (401, ApiError("Invalid token"))
