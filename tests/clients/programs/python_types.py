"""What datamodel-code-generator's types say of absent and null, and that they take the service's JSON."""

import sys

import httpx
import models
import msgspec
import structs

url, token, user = sys.argv[1:]


def update(change: structs.TaskUpdate) -> bytes:
    return msgspec.json.encode(change)


assert update(structs.TaskUpdate(description=None)) == b'{"description":null}'
assert update(structs.TaskUpdate(title="x")) == b'{"title":"x"}'
structs.TaskUpdate(title=None)  # type: ignore[arg-type]  # a title cannot be null
assert models.TaskUpdate(description=None).model_dump(exclude_unset=True) == {"description": None}
assert models.TaskUpdate(title="x").model_dump(exclude_unset=True) == {"title": "x"}

with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client:
    new = models.TaskCreate(title="Buy milk", description="two litres").model_dump(exclude_unset=True)
    made = client.post(f"/api/{user}/tasks", json=new)
    task = models.Task.model_validate_json(made.content)
    struct = msgspec.json.decode(made.content, type=structs.Task)
    assert (task.id, task.title, task.description) == (struct.id, struct.title, struct.description)
    cleared = client.put(f"/api/{user}/tasks/{task.id}", content=update(structs.TaskUpdate(description=None)))
    assert msgspec.json.decode(cleared.content, type=structs.Task).description is None
    error = client.put(f"/api/{user}/tasks/{task.id}", json={"title": 5})
    assert models.ApiError.model_validate_json(error.content).field == "title"
