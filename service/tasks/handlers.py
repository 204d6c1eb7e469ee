"""The handlers: from a task request to one call of a query function, and from its structs to a response.

Must not import the database package or authenticators.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from hashlib import blake2b

from litestar import delete, patch, post, put, route
from litestar.di import NamedDependency

from service.http import errors
from service.http.asgi import GET_AND_HEAD, Lines, line
from service.http.conditional import ANY
from service.http.limits import BATCH_BYTES, BODY_BYTES
from service.http.responses import AnyResponse, EmptyResponse, Response, encode, encode_array, etag
from service.http.slices import Slices
from service.tasks.batch import decode_batch
from service.tasks.pages import respond_list
from service.tasks.queries import Changed, Created, IdempotentCreate
from service.tasks.requests import TaskRequest
from service.tasks.schemas import FIELDS, Task, TaskCreate, decode_create, decode_toggle, decode_update, values_of

LARGE_ROWS = 100
HASHED_BYTES = 256 * 1024  # at once: 0.3 ms


@route("/", http_method=GET_AND_HEAD)
async def list_tasks(task_request: NamedDependency[TaskRequest]) -> AnyResponse:
    """The user's tasks, newest first: a page, or all of them."""
    return await respond_list(task_request)


@post("/")
async def create_task(task_request: NamedDependency[TaskRequest]) -> Response:
    """A new task."""
    key = task_request.idempotency_key()
    new = decode_create(await task_request.body())
    if key is None:
        task = await task_request.queries.create(task_request.user_id, new)
        return task_response(task, 201, _location(task_request, task))
    digest = await fingerprint([values_of(new)], task_request.record.place.slices)
    created = await task_request.queries.create_idempotent(task_request.user_id, key, digest, new)
    (task,) = _made_by_key(created, [new])
    return task_response(task, 201, _location(task_request, task) + _replayed(created))


@post("/batch")
async def batch_tasks(task_request: NamedDependency[TaskRequest]) -> Response:
    """Many new tasks, all or nothing."""
    key = task_request.idempotency_key()
    body = await task_request.body(BATCH_BYTES)
    slices = task_request.record.place.slices
    items = await decode_batch(body, slices)
    values = [values_of(item) for item in items]
    array = await encode_array([dict(zip(FIELDS, item, strict=True)) for item in values], slices)
    if key is None:
        async with _write(task_request, items, array):
            rows = await task_request.queries.create_many(task_request.user_id, array)
        return Response(201, await encode_array(_made([row.id for row in rows], rows[0], items), slices))
    digest = await fingerprint(values, slices)
    async with _write(task_request, items, array):
        created = await task_request.queries.create_many_idempotent(task_request.user_id, key, digest, array)
    array = await encode_array(_made_by_key(created, items), slices)
    return Response(201, array, _replayed(created))


@route("/{task_id:str}", http_method=GET_AND_HEAD)
async def get_task(task_request: NamedDependency[TaskRequest]) -> Response:
    """One task."""
    known = task_request.known_tags()
    task = await task_request.queries.get(task_request.user_id, task_request.task_id)
    if task is None:
        raise errors.task_not_found()
    if known is not None and (known is ANY or b"%d" % task.version in known):
        return EmptyResponse(304, etag(task.version))
    return task_response(task)


@put("/{task_id:str}")
async def update_task(task_request: NamedDependency[TaskRequest]) -> Response:
    """Changes what is sent and leaves the rest."""
    required = task_request.preconditions()
    new = decode_update(await task_request.body())
    changed = await task_request.queries.update(task_request.user_id, task_request.task_id, new, required)
    return _changed_response(changed)


@delete("/{task_id:str}", status_code=200)  # Litestar takes 204 for "returns None"; the response has its own status
async def delete_task(task_request: NamedDependency[TaskRequest]) -> Response:
    """Deletes a task."""
    deleted = await task_request.queries.delete(
        task_request.user_id, task_request.task_id, task_request.preconditions()
    )
    if deleted is None:
        raise errors.task_not_found()
    if not deleted.applied:
        raise errors.task_changed(deleted.version)
    return EmptyResponse(204)


@patch("/{task_id:str}/complete")
async def toggle_task(task_request: NamedDependency[TaskRequest]) -> Response:
    """Flips completed, or sets it."""
    required = task_request.preconditions()
    body = await task_request.body()
    completed = decode_toggle(body).completed if body else None
    changed = await task_request.queries.toggle(task_request.user_id, task_request.task_id, completed, required)
    return _changed_response(changed)


HANDLERS = [list_tasks, create_task, batch_tasks, get_task, update_task, delete_task, toggle_task]


def task_response(task: Task, status: int = 200, lines: Lines = b"") -> Response:
    """A single task, with its ETag."""
    return Response(status, encode(task), etag(task.version) + lines)


def _write(task_request: TaskRequest, items: Sequence[TaskCreate], array: bytes) -> AbstractAsyncContextManager[None]:
    """Around a batch's statement: to take 1000 rows costs as much as to send 8 MiB."""
    large = len(items) > LARGE_ROWS or len(array) > BODY_BYTES
    return task_request.record.place.large_write() if large else nullcontext()


async def fingerprint(tasks: Sequence[tuple[str, str | None, bool]], slices: Slices) -> bytes:
    """A digest of what was asked for, as decoded: white space and the order of keys do not count."""
    encoded = await encode_array(tasks, slices)
    if len(encoded) <= HASHED_BYTES:
        return blake2b(encoded, digest_size=16).digest()
    digest = blake2b(digest_size=16)
    await slices.begin()
    for begin in range(0, len(encoded), HASHED_BYTES):
        digest.update(encoded[begin : begin + HASHED_BYTES])
        await slices.pause()
    return digest.digest()


def _made_by_key(created: IdempotentCreate, items: Sequence[TaskCreate]) -> list[Task]:
    if not created.same_request:
        raise errors.idempotency_key_reused()
    return _made(created.task_ids, created, items)


def _made(task_ids: Sequence[int], created: Created | IdempotentCreate, items: Sequence[TaskCreate]) -> list[Task]:
    """The tasks as they were when they were created: the request carries all of them but the ids and the time, which is
    the same for all that one request makes.
    """
    made_at = created.created_at
    return [
        Task(task_id, created.user_id, *values_of(new), 1, made_at, made_at)
        for task_id, new in zip(task_ids, items, strict=True)
    ]


def _replayed(created: IdempotentCreate) -> Lines:
    return b"idempotency-replayed: true\r\n" if created.replayed else b""


def _location(task_request: TaskRequest, task: Task) -> Lines:
    return line(b"location", f"{task_request.url}/{task.id}".encode())


def _changed_response(changed: Changed | None) -> Response:
    if changed is None:
        raise errors.task_not_found()
    if not changed.applied:
        raise errors.task_changed(changed.task.version)
    return task_response(changed.task)
