"""The list: a page, or all tasks of a user, each read and encoded in parts that do not keep the event loop busy.

Must not import the database package or authenticators.
"""

from collections.abc import AsyncIterator, Collection
from sys import getsizeof

from service.http.asgi import Lines, line
from service.http.conditional import ANY, AnyTag
from service.http.place import Place
from service.http.responses import AnyResponse, EmptyResponse, Response, StreamedResponse, encode, join_array
from service.tasks.requests import TaskRequest, parse_list_query
from service.tasks.schemas import Task

# A list without limit, or with a larger one than PAGE_ROWS, reads so many tasks at a time: fewer where they are more
# than CHUNK_BYTES, but MIN_ROWS at least. Without limit it sends each of these chunks before it reads the next, which
# bounds its memory, however slowly the client reads.
PAGE_ROWS = 250
MIN_ROWS = 16
SMALL_ROWS = 64  # are read and encoded as a whole, unless they are large and others wait
CHUNK_BYTES = 256 * 1024
# A page that would be larger than this ends before its limit, and `Link` leads on from there. 1000 tasks of the longest
# title and description fit if they are ASCII.
PAGE_BYTES = 6 * 1024 * 1024
# Of the event loop's time (measured): to take a row, and to take or encode a byte.
ROW_S = 8e-6
ENCODE_S = 1.5e-9


async def respond_list(task_request: TaskRequest) -> AnyResponse:
    """The response to a list. Raises ApiError."""
    completed, limit, after, rest = parse_list_query(task_request.query_string)
    known = task_request.known_tags()
    if limit is None:
        return await _list_all(task_request, completed, after, known)
    if limit > PAGE_ROWS:
        return await _large_page(task_request, completed, limit, after, rest, known)
    tasks = await _read(task_request, completed, after, limit + 1)
    more = len(tasks) > limit
    del tasks[limit:]
    tag = page_tag(tasks, more)
    if known is not None and (known is ANY or tag in known):
        return EmptyResponse(304, _weak_etag(tag))
    page, count = await encode_page(task_request.record.place, tasks, PAGE_BYTES)
    if not more and count == len(tasks):
        return Response(200, page, _weak_etag(tag))
    return Response(200, page, _weak_etag(tag) + _next_page(task_request, rest, tasks[count - 1].id))


async def _read(
    task_request: TaskRequest, completed: bool | None, after: int | None, rows: int, *, check: bool = True
) -> list[Task]:
    """Up to so many tasks. Raises ApiError, unless told not to check, where too many reads of large pages wait."""
    queries, place = task_request.queries, task_request.record.place
    if not place.reads_much:
        return await queries.list(task_request.user_id, completed, after, rows)
    async with place.large_read(check=check):
        await place.slices.begin()
        return await queries.list(task_request.user_id, completed, after, rows)


def page_tag(tasks: list[Task], more: bool) -> bytes:
    """The opaque tag of a page: a hash of the ids and versions of its tasks and of whether there are more.

    It is weak: it changes with each change through the service, but not where SQL edits a row and keeps its version.
    A page that is cut for its size has the tag of the tasks that were read: they determine where it is cut.
    """
    numbers = [task.id for task in tasks]
    numbers += [task.version for task in tasks]
    return _tag_of(numbers, more)


def _tag_of(numbers: list[int], more: bool) -> bytes:
    numbers.append(more)
    # Python salts the hashes of texts, not of numbers: every process computes the same. 2 µs for 50 tasks; blake2b: 5.
    return b"%016x" % (hash(tuple(numbers)) & 0xFFFF_FFFF_FFFF_FFFF)


def _next_page(task_request: TaskRequest, rest: str, last: int) -> Lines:
    return line(b"link", f'<{task_request.url}?{rest}&after={last}>; rel="next"'.encode())


async def _large_page(
    task_request: TaskRequest,
    completed: bool | None,
    limit: int,
    after: int | None,
    rest: str,
    known: Collection[bytes] | AnyTag | None,
) -> Response:
    """A page of more than PAGE_ROWS. Each part is encoded before the next is read: as one, 1000 large tasks kept the
    event loop busy for 40 ms.
    """
    place = task_request.record.place
    ids, versions, chunks = list[int](), list[int](), list[bytes]()
    rows, size, more = PAGE_ROWS, 0, False
    while True:
        left = limit - len(ids)
        full = size > PAGE_BYTES
        wanted = 1 if full else min(rows, left + 1)  # one more row tells whether another page follows
        part = await _read(task_request, completed, after, wanted)
        ended = len(part) < wanted
        more = bool(part) if full else len(part) > left
        del part[left:]
        if full or not part:
            break
        chunk, count = await encode_page(place, part, PAGE_BYTES - size)
        ids += [task.id for task in part[:count]]
        versions += [task.version for task in part[:count]]
        place.hold(len(chunk))  # raises ApiError where memory is used up
        chunks.append(chunk[1:-1])
        size += len(chunk)
        after = ids[-1]
        more = more or count < len(part)
        if ended or more:
            break
        rows = _next_rows(count, len(chunk))
        del part, chunk  # not kept while the next one is read
    place.drop(size)  # the response counts its body itself
    tag = _tag_of(ids + versions, more)
    if known is not None and (known is ANY or tag in known):
        return EmptyResponse(304, _weak_etag(tag))
    next_page = _next_page(task_request, rest, ids[-1]) if more else b""
    return Response(200, await join_array(chunks, place.slices), _weak_etag(tag) + next_page)


def _next_rows(count: int, size: int) -> int:
    """How many tasks to read after so many, which were so many bytes."""
    return max(MIN_ROWS, min(PAGE_ROWS, CHUNK_BYTES * count // size))


def _weak_etag(tag: bytes) -> Lines:
    return b'etag: W/"%b"\r\n' % tag


async def _list_all(
    task_request: TaskRequest, completed: bool | None, after: int | None, known: Collection[bytes] | AnyTag | None
) -> AnyResponse:
    """Every task: as one response where a page holds them, else streamed page by page."""
    page = await _read(task_request, completed, after, PAGE_ROWS)
    tag = page_tag(page, more=False)
    if len(page) < PAGE_ROWS and known is not None and (known is ANY or tag in known):
        return EmptyResponse(304, _weak_etag(tag))
    chunk, count = await encode_page(task_request.record.place, page, CHUNK_BYTES)
    if len(page) < PAGE_ROWS and count == len(page):
        return Response(200, chunk, _weak_etag(tag))
    last = page[count - 1].id
    return StreamedResponse(200, _chunks(task_request, completed, chunk, count, last))


async def _chunks(
    task_request: TaskRequest, completed: bool | None, chunk: bytes, count: int, last: int
) -> AsyncIterator[bytes]:
    """A JSON array in chunks, beginning with `chunk`, which has `count` tasks of which `last` is the last one's ID. The
    next is read only when this one was taken.
    """
    place = task_request.record.place
    size = len(chunk)
    chunk = chunk[:-1]  # one copy, however long its reader takes
    yield chunk
    while True:
        rows = _next_rows(count, size)
        page = await _read(task_request, completed, last, rows, check=False)  # the response has begun
        if not page:
            break
        chunk, count = await encode_page(place, page, CHUNK_BYTES, check=False)
        ended, last = count == len(page) < rows, page[count - 1].id
        size = len(chunk)
        chunk = b"," + chunk[1:-1]
        del page
        yield chunk
        if ended:
            break
    yield b"]"


async def encode_page(place: Place, tasks: list[Task], max_bytes: int, *, check: bool = True) -> tuple[bytes, int]:
    """The first tasks as a JSON array, and how many they are: all, or as many as it takes to exceed `max_bytes`. Up to
    64 come back as a whole where no other large work waits, whatever their size: they are 2 MB at the most.

    More may take pauses, in which the tasks of others are in memory, too. So they count: raises ApiError (503) where
    memory is used up, unless told not to check.
    """
    small = len(tasks) <= SMALL_ROWS
    if small and not place.must_wait:
        page = encode(tasks)
        if len(page) > CHUNK_BYTES:
            place.count_read(len(tasks) * ROW_S + len(page) * ENCODE_S)
        return page, len(tasks)
    held = sum([getsizeof(task.description) for task in tasks])
    if small and held < CHUNK_BYTES:
        return encode(tasks), len(tasks)
    slices = place.slices
    place.hold(held, check=check)
    place.count_read(len(tasks) * ROW_S + held * ENCODE_S)
    await slices.begin()
    parts: list[bytes] = []
    size = count = 0
    while count < len(tasks) and size <= max_bytes:
        part = encode(tasks[count : count + MIN_ROWS])
        parts.append(part[1:-1])
        size += len(part)
        count = min(count + MIN_ROWS, len(tasks))
        await slices.pause()
    page = await join_array(parts, slices)
    place.drop(held)
    return page, count
