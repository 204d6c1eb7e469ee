"""The handlers: from a task request to one call of a query function, and from its structs to a response.

Must not import the database package or authenticators.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from hashlib import blake2b

from litestar import delete, patch, post, put, route
from litestar.di import NamedDependency

from service.http import errors
from service.http.asgi import GET_AND_HEAD, Lines, line
from service.http.conditional import ANY, AnyTag
from service.http.limits import BATCH_BYTES
from service.http.responses import AnyResponse, EmptyResponse, Response, StreamedResponse, encode, encode_array, etag
from service.http.slices import Slices
from service.tasks.batch import decode_batch
from service.tasks.queries import Changed, IdempotentCreate, Queries
from service.tasks.requests import TaskRequest, parse_list_query
from service.tasks.schemas import FIELDS, Task, TaskCreate, decode_create, decode_toggle, decode_update, values_of

# A list without limit reads PAGE_ROWS tasks at a time, or fewer where they are large, but MIN_ROWS at least, and sends
# them in chunks of about CHUNK_BYTES. That bounds its memory, however slowly the client reads.
PAGE_ROWS = 250
MIN_ROWS = 16
CHUNK_BYTES = 256 * 1024
# A page that would be larger than this ends before its limit, and `Link` leads on from there. 1000 tasks of the longest
# title and description fit if they are ASCII.
PAGE_BYTES = 6 * 1024 * 1024


@route("/", http_method=GET_AND_HEAD)
async def list_tasks(task_request: NamedDependency[TaskRequest]) -> AnyResponse:
    """The user's tasks, newest first: a page, or all of them."""
    completed, limit, after, rest = parse_list_query(task_request.query_string)
    known = task_request.known_tags()
    if limit is None:
        return await _list_all(task_request, completed, after, known)
    tasks = await task_request.queries.list(task_request.user_id, completed, after, limit + 1)
    more = len(tasks) > limit
    del tasks[limit:]
    tag = page_tag(tasks, more)
    if known is not None and (known is ANY or tag in known):
        return EmptyResponse(304, _weak_etag(tag))
    page, count = encode_page(tasks, PAGE_BYTES)
    if not more and count == len(tasks):
        return Response(200, page, _weak_etag(tag))
    link = f'<{task_request.url}?{rest}&after={tasks[count - 1].id}>; rel="next"'.encode()
    return Response(200, page, _weak_etag(tag) + line(b"link", link))


@post("/")
async def create_task(task_request: NamedDependency[TaskRequest]) -> Response:
    """A new task."""
    key = task_request.idempotency_key()
    new = decode_create(await task_request.body())
    if key is None:
        task = await task_request.queries.create(task_request.user_id, new)
        return task_response(task, 201, _location(task_request, task))
    digest = await fingerprint([values_of(new)])
    created = await task_request.queries.create_idempotent(task_request.user_id, key, digest, new)
    (task,) = _made(task_request, created, [new])
    return task_response(task, 201, _location(task_request, task) + _replayed(created))


@post("/batch")
async def batch_tasks(task_request: NamedDependency[TaskRequest]) -> Response:
    """Many new tasks, all or nothing."""
    key = task_request.idempotency_key()
    items = await decode_batch(await task_request.body(BATCH_BYTES))
    values = [values_of(item) for item in items]
    array = await encode_array([dict(zip(FIELDS, item, strict=True)) for item in values])
    if key is None:
        array = await encode_array(await task_request.queries.create_many(task_request.user_id, array))
        return Response(201, array)
    digest = await fingerprint(values)
    created = await task_request.queries.create_many_idempotent(task_request.user_id, key, digest, array)
    array = await encode_array(_made(task_request, created, items))
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


async def fingerprint(tasks: Sequence[tuple[str, str | None, bool]]) -> bytes:
    """A digest of what was asked for, as decoded: white space and the order of keys do not count."""
    encoded = await encode_array(tasks)
    digest = blake2b(digest_size=16)
    slices = Slices()
    for begin in range(0, len(encoded), CHUNK_BYTES):
        digest.update(encoded[begin : begin + CHUNK_BYTES])
        await slices.pause()
    return digest.digest()


def _made(task_request: TaskRequest, created: IdempotentCreate, items: Sequence[TaskCreate]) -> list[Task]:
    """The tasks as they were when they were created: a keyed request carries all of it but the ids and the time."""
    if not created.same_request:
        raise errors.idempotency_key_reused()
    return [
        Task(task_id, task_request.user_id, *values_of(new), 1, created.created_at, created.created_at)
        for task_id, new in zip(created.task_ids, items, strict=True)
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


def page_tag(tasks: list[Task], more: bool) -> bytes:
    """The opaque tag of a page: a hash of the ids and versions of its tasks and of whether there are more.

    It is weak: it changes with each change through the service, but not where SQL edits a row and keeps its version.
    A page that is cut for its size has the tag of the whole, which determines where it is cut.
    """
    numbers = [task.id for task in tasks]
    numbers += [task.version for task in tasks]
    numbers.append(more)
    # Python salts the hashes of texts, not of numbers: every process computes the same. 2 µs for 50 tasks; blake2b: 5.
    return b"%016x" % (hash(tuple(numbers)) & 0xFFFF_FFFF_FFFF_FFFF)


def _weak_etag(tag: bytes) -> Lines:
    return b'etag: W/"%b"\r\n' % tag


async def _list_all(
    task_request: TaskRequest, completed: bool | None, after: int | None, known: Collection[bytes] | AnyTag | None
) -> AnyResponse:
    """Every task: as one response where a page holds them, else streamed page by page."""
    page = await task_request.queries.list(task_request.user_id, completed, after, PAGE_ROWS)
    tag = page_tag(page, more=False)
    if len(page) < PAGE_ROWS and known is not None and (known is ANY or tag in known):
        return EmptyResponse(304, _weak_etag(tag))
    chunk, count = encode_page(page, CHUNK_BYTES)
    if len(page) < PAGE_ROWS and count == len(page):
        return Response(200, chunk, _weak_etag(tag))
    last = page[count - 1].id
    return StreamedResponse(200, _chunks(task_request.queries, task_request.user_id, completed, chunk, count, last))


async def _chunks(
    queries: Queries, user_id: str, completed: bool | None, chunk: bytes, count: int, last: int
) -> AsyncIterator[bytes]:
    """A JSON array in chunks, beginning with `chunk`, which has `count` tasks of which `last` is the last one's ID. The
    next is read only when this one was taken.
    """
    size = len(chunk)
    chunk = chunk[:-1]  # one copy, however long its reader takes
    yield chunk
    while True:
        rows = max(MIN_ROWS, min(PAGE_ROWS, CHUNK_BYTES * count // size))
        page = await queries.list(user_id, completed, last, rows)
        if not page:
            break
        chunk, count = encode_page(page, CHUNK_BYTES)
        ended, last = count == len(page) < rows, page[count - 1].id
        size = len(chunk)
        chunk = b"," + chunk[1:-1]
        del page
        yield chunk
        if ended:
            break
    yield b"]"


def encode_page(tasks: list[Task], max_bytes: int) -> tuple[bytes, int]:
    """The first tasks as a JSON array, and how many they are: all, or as many as it takes to exceed `max_bytes`. Up to
    64 come back as a whole, whatever their size: they are 2 MB at the most.

    Without pauses, unlike a batch: while one page paused, the rows of others would be in memory, too.
    """
    if len(tasks) <= MIN_ROWS * 4:
        return encode(tasks), len(tasks)
    parts: list[bytes] = []
    size = count = 0
    while count < len(tasks) and size <= max_bytes:
        part = encode(tasks[count : count + MIN_ROWS])
        parts.append(part[1:-1])
        size += len(part)
        count = min(count + MIN_ROWS, len(tasks))
    return b"[%b]" % b",".join(parts), count
