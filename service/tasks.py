"""The handlers: from a task request to one call of a query function, and from its structs to an answer.

Knows HTTP's meaning and the structs. Must not know SQL, connections or how the caller was authenticated.
"""

from collections.abc import AsyncIterator
from urllib.parse import urlencode

from litestar import HttpMethod, Router, delete, patch, post, put, route
from litestar.types import Middleware
from msgspec import UNSET

from service.errors import Problem, task_not_found
from service.queries import Changed, Queries
from service.requests import TaskRequest, parse_list_query
from service.responses import Answer, EmptyAnswer, StreamedAnswer, encode, etag, task_answer
from service.structs import Task, decode_create, decode_toggle, decode_update

GET = [HttpMethod.GET, HttpMethod.HEAD]

# Tasks read at a time for a list without limit: what such a list holds in memory is one of these pages.
PAGE_ROWS = 250


@route("/", http_method=GET)
async def list_tasks(request: TaskRequest) -> Answer:
    """The user's tasks, newest first: a page, or all of them."""
    completed, limit, after, parameters = parse_list_query(request.query_string)
    if limit is None:
        return await _list_all(request, completed, after)
    tasks = await request.queries.list(request.user_id, completed, after, limit + 1)
    if len(tasks) <= limit:
        return Answer(200, encode(tasks))
    del tasks[limit:]
    query = urlencode([*parameters, ("after", str(tasks[-1].id))])
    return Answer(200, encode(tasks), ((b"link", f'<{request.path}?{query}>; rel="next"'.encode()),))


@post("/")
async def create_task(request: TaskRequest) -> Answer:
    """A new task."""
    new = decode_create(await request.body())
    task = await request.queries.create(request.user_id, new.title, new.description, new.completed)
    return task_answer(task, 201, ((b"location", f"{request.path}/{task.id}".encode()),))


@route("/{task_id:str}", http_method=GET)
async def get_task(request: TaskRequest) -> Answer:
    """One task."""
    task = await request.queries.get(request.user_id, request.task_id)
    if task is None:
        raise task_not_found()
    if request.has_version(task.version):
        return EmptyAnswer(304, (etag(task.version),))
    return task_answer(task)


@put("/{task_id:str}")
async def update_task(request: TaskRequest) -> Answer:
    """Changes what is sent and leaves the rest."""
    versions = request.versions()
    new = decode_update(await request.body())
    changed = await request.queries.update(
        request.user_id,
        request.task_id,
        title=None if new.title is UNSET else new.title,
        sets_description=new.description is not UNSET,
        description=None if new.description is UNSET else new.description,
        completed=None if new.completed is UNSET else new.completed,
        versions=versions,
    )
    return _changed_answer(changed)


@delete("/{task_id:str}", status_code=200)  # Litestar takes 204 for "returns None"; the answer has its own status
async def delete_task(request: TaskRequest) -> Answer:
    """Deletes a task."""
    versions = request.versions()
    deleted = await request.queries.delete(request.user_id, request.task_id, versions)
    if deleted is None:
        raise task_not_found()
    if not deleted.matched:
        raise _changed_by_another(deleted.version)
    return EmptyAnswer(204)


@patch("/{task_id:str}/complete")
async def toggle_task(request: TaskRequest) -> Answer:
    """Flips completed, or sets it."""
    versions = request.versions()
    body = await request.body()
    completed = decode_toggle(body).completed if body else None
    changed = await request.queries.toggle(request.user_id, request.task_id, completed, versions)
    return _changed_answer(changed)


def router(entrance: Middleware) -> Router:
    """The task routes behind `entrance`, which turns what ASGI gives into a TaskRequest."""
    return Router(
        "/api/{user_id:str}/tasks",
        route_handlers=[list_tasks, create_task, get_task, update_task, delete_task, toggle_task],
        middleware=[entrance],
    )


def _changed_answer(changed: Changed | None) -> Answer:
    if changed is None:
        raise task_not_found()
    if not changed.matched:
        raise _changed_by_another(changed.task.version)
    return task_answer(changed.task)


def _changed_by_another(version: int) -> Problem:
    return Problem(412, "Task was changed by another request", headers=(etag(version),))


async def _list_all(request: TaskRequest, completed: bool | None, after: int | None) -> Answer:
    """Every task: as one answer where a page holds them, else streamed page by page."""
    page = await request.queries.list(request.user_id, completed, after, PAGE_ROWS)
    if len(page) < PAGE_ROWS:
        return Answer(200, encode(page))
    return StreamedAnswer(200, _pages(request.queries, request.user_id, completed, page))


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
