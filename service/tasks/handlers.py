"""The handlers: from a task request to one call of a query function, and from its structs to an answer.

Knows HTTP's meaning and the structs. Must not know SQL, connections or how the caller was authenticated.
"""

from collections.abc import AsyncIterator, Sequence
from hashlib import blake2b
from urllib.parse import urlencode

from litestar import Router, delete, patch, post, put, route
from litestar.types import Middleware
from msgspec import UNSET

from service.http import errors
from service.http.asgi import GET_AND_HEAD, Header
from service.http.limits import BATCH_BYTES
from service.http.responses import EmptyResponse, Response, StreamedResponse, encode, etag
from service.tasks.queries import Changed, IdempotentCreate, Queries
from service.tasks.requests import TaskRequest, parse_list_query
from service.tasks.schemas import Task, TaskCreate, decode_batch, decode_create, decode_toggle, decode_update

# Tasks read at a time for a list without limit: what such a list holds in memory is one of these pages.
PAGE_ROWS = 250


@route("/", http_method=GET_AND_HEAD)
async def list_tasks(request: TaskRequest) -> Response:
    """The user's tasks, newest first: a page, or all of them."""
    completed, limit, after, parameters = parse_list_query(request.query_string)
    if limit is None:
        return await _list_all(request, completed, after)
    tasks = await request.queries.list(request.user_id, completed, after, limit + 1)
    if len(tasks) <= limit:
        return Response(200, encode(tasks))
    del tasks[limit:]
    query = urlencode([*parameters, ("after", str(tasks[-1].id))])
    return Response(200, encode(tasks), ((b"link", f'<{request.url}?{query}>; rel="next"'.encode()),))


@post("/")
async def create_task(request: TaskRequest) -> Response:
    """A new task."""
    key = request.idempotency_key()
    new = decode_create(await request.body())
    if key is None:
        task = await request.queries.create(request.user_id, new.title, new.description, new.completed)
        return task_response(task, 201, (_location(request, task),))
    fields = (new.title, new.description, new.completed)
    created = await request.queries.create_idempotent(request.user_id, key, fingerprint([fields]), *fields)
    (task,) = _made(request, created, [new])
    return task_response(task, 201, (_location(request, task), *_replayed(created)))


@post("/batch")
async def batch_tasks(request: TaskRequest) -> Response:
    """Many new tasks, all or nothing."""
    key = request.idempotency_key()
    items = decode_batch(await request.body(BATCH_BYTES))
    fields = [(item.title, item.description, item.completed) for item in items]
    tasks = encode([dict(zip(("title", "description", "completed"), item, strict=True)) for item in fields]).decode()
    if key is None:
        return Response(201, encode(await request.queries.create_many(request.user_id, tasks)))
    created = await request.queries.create_many_idempotent(request.user_id, key, fingerprint(fields), tasks)
    return Response(201, encode(_made(request, created, items)), _replayed(created))


@route("/{task_id:str}", http_method=GET_AND_HEAD)
async def get_task(request: TaskRequest) -> Response:
    """One task."""
    known = request.known_versions()
    task = await request.queries.get(request.user_id, request.task_id)
    if task is None:
        raise errors.task_not_found()
    if known is None or task.version in known:
        return EmptyResponse(304, (etag(task.version),))
    return task_response(task)


@put("/{task_id:str}")
async def update_task(request: TaskRequest) -> Response:
    """Changes what is sent and leaves the rest."""
    required = request.preconditions()
    new = decode_update(await request.body())
    changed = await request.queries.update(
        request.user_id,
        request.task_id,
        title=None if new.title is UNSET else new.title,
        sets_description=new.description is not UNSET,
        description=None if new.description is UNSET else new.description,
        completed=None if new.completed is UNSET else new.completed,
        required=required,
    )
    return _changed_response(changed)


@delete("/{task_id:str}", status_code=200)  # Litestar takes 204 for "returns None"; the answer has its own status
async def delete_task(request: TaskRequest) -> Response:
    """Deletes a task."""
    deleted = await request.queries.delete(request.user_id, request.task_id, request.preconditions())
    if deleted is None:
        raise errors.task_not_found()
    if not deleted.applied:
        raise errors.task_changed(deleted.version)
    return EmptyResponse(204)


@patch("/{task_id:str}/complete")
async def toggle_task(request: TaskRequest) -> Response:
    """Flips completed, or sets it."""
    required = request.preconditions()
    body = await request.body()
    completed = decode_toggle(body).completed if body else None
    changed = await request.queries.toggle(request.user_id, request.task_id, completed, required)
    return _changed_response(changed)


def router(middleware: Middleware) -> Router:
    """The task routes behind service.tasks.routing's middleware, which makes a TaskRequest of what ASGI gives."""
    return Router(
        "/api/{user_id:str}/tasks",
        route_handlers=[list_tasks, create_task, batch_tasks, get_task, update_task, delete_task, toggle_task],
        middleware=[middleware],
    )


def task_response(task: Task, status: int = 200, headers: Sequence[Header] = ()) -> Response:
    """A single task, with its ETag."""
    return Response(status, encode(task), ((b"etag", b'"%d"' % task.version), *headers))


def fingerprint(tasks: list[tuple[str, str | None, bool]]) -> bytes:
    """A digest of what was asked for, as decoded: white space and the order of keys do not count."""
    return blake2b(encode(tasks), digest_size=16).digest()


def _made(request: TaskRequest, created: IdempotentCreate, items: list[TaskCreate]) -> list[Task]:
    """The tasks as they were when they were created: a keyed request carries all of it but the ids and the time."""
    if not created.same_request:
        raise errors.idempotency_key_reused()
    return [
        Task(
            task_id,
            request.user_id,
            new.title,
            new.description,
            new.completed,
            1,
            created.created_at,
            created.created_at,
        )
        for task_id, new in zip(created.task_ids, items, strict=True)
    ]


def _replayed(created: IdempotentCreate) -> tuple[Header, ...]:
    return ((b"idempotency-replayed", b"true"),) if created.replayed else ()


def _location(request: TaskRequest, task: Task) -> Header:
    return (b"location", f"{request.url}/{task.id}".encode())


def _changed_response(changed: Changed | None) -> Response:
    if changed is None:
        raise errors.task_not_found()
    if not changed.applied:
        raise errors.task_changed(changed.task.version)
    return task_response(changed.task)


async def _list_all(request: TaskRequest, completed: bool | None, after: int | None) -> Response:
    """Every task: as one answer where a page holds them, else streamed page by page."""
    page = await request.queries.list(request.user_id, completed, after, PAGE_ROWS)
    if len(page) < PAGE_ROWS:
        return Response(200, encode(page))
    return StreamedResponse(200, _pages(request.queries, request.user_id, completed, page))


async def _pages(queries: Queries, user_id: str, completed: bool | None, page: list[Task]) -> AsyncIterator[bytes]:
    """A JSON array in pieces, beginning with `page`; the next is read only when the last was taken."""
    opening = b"["
    while page:
        yield opening + encode(page)[1:-1]
        opening = b","
        if len(page) < PAGE_ROWS:
            break
        page = await queries.list(user_id, completed, page[-1].id, PAGE_ROWS)
    yield b"]"
