"""Small applications that each leave a part of the service out, so that subtracting tells what the part costs.

`constant` sends the bytes of a response and does not look at the request. `remembered` is the service as it is but for
its queries, which answer from memory. `framework` answers the bytes behind Litestar's own router.
`python -m tests.load.baselines NAME` serves one of them on the service's own server. `… calls OPERATION …` measures,
without HTTP, what the query functions, the loading of rows and the encoding cost.
"""

import asyncio
import os
import random
import sys
import timeit
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import starmap
from time import perf_counter, process_time
from typing import Any

import msgspec
import psycopg
import uvloop
from litestar import HttpMethod, Litestar, route
from psycopg import pq
from psycopg.adapt import Transformer

from service.app import Service
from service.database import Database, Statement
from service.http.conditional import NO_PRECONDITIONS
from service.http.limits import ID_MAX
from service.http.responses import encode
from service.server import process as server
from service.server.listener import listener_of
from service.settings import Settings, load
from service.tasks import queries
from service.tasks.queries import Changed, Queries
from service.tasks.schemas import Task, TaskCreate

_whole = server.service_of_process

MADE = datetime(2026, 1, 1, 0, 0, 1, 234567, UTC)
TASK = Task(1, "user-1", "Task number 1: buy milk & “bread”", "Before noon, before it closes.", True, 1, MADE, MADE)
TASKS = [TASK] * 51  # one more than the page: that is how the service knows of a next page
ONE, PAGE = encode(TASK), encode(TASKS[:50])
HEADERS = {
    body: [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))] for body in (ONE, PAGE)
}
CALLERS = 32


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """The bytes, straight to the server."""
    body = PAGE if scope["query_string"] else ONE
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS[body]})
    await send({"type": "http.response.body", "body": body})


def constant(settings: Settings) -> Service:
    whole = _whole(settings)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (answer if scope["type"] == "http" else whole.app)(scope, receive, send)

    return replace(whole, app=app)


ALL = [HttpMethod.GET, HttpMethod.POST, HttpMethod.PATCH]
PATHS = [
    "/api/{user_id:str}/tasks",
    "/api/{user_id:str}/tasks/{task_id:str}",
    "/api/{user_id:str}/tasks/{task_id:str}/complete",
]


@route(PATHS, http_method=ALL, status_code=200)
async def unreached() -> None:
    """Never called: the middleware behind the router answers."""


framework = Litestar([unreached], middleware=[lambda app: answer], openapi_config=None, logging_config=None)


def remembered(settings: Settings) -> Service:
    async def one(*_: object, **__: object) -> Task:
        return TASK

    async def page(*_: object, **__: object) -> list[Task]:
        return TASKS.copy()

    async def changed(*_: object, **__: object) -> Changed:
        return Changed(True, TASK)

    Queries.get = Queries.create = one
    Queries.list = page
    Queries.toggle = changed
    return _whole(settings)


APPLICATIONS: dict[str, Callable[[Settings], Service]] = {"constant": constant, "remembered": remembered}


class Costs(msgspec.Struct):
    """CPU in µs: of a call of the query function, the rows' loading included; of that alone; of the encoding."""

    call_us: float
    rows_us: float
    encode_us: float


def costs(operation: str, users: int, tasks: int, seconds: float) -> Costs:
    url = os.environ["DATABASE_URL"]
    call_us = uvloop.run(_calls(url, operation, users, tasks, seconds))
    statement, values = {
        "get": (queries.GET, ("user-1", 1)),
        "list": (queries.LIST, ("user-1", ID_MAX, 51)),
        "create": (queries.CREATE, ("user-1", "Made under load", "Before noon, please", False)),
        "toggle": (queries.FLIP, ("user-1", 1)),
    }[operation]
    with psycopg.connect(url) as connection:
        encode_us = _each(lambda: encode(TASKS[:50] if operation == "list" else TASK))
        return Costs(call_us, _rows(connection, statement, values), encode_us)


async def _calls(url: str, operation: str, users: int, tasks: int, seconds: float) -> float:
    database = Database(url, connections=int(os.environ["DB_CONNECTIONS"]))
    await database.open()
    ask = Queries(database)
    draw = random.Random(1).random

    def get() -> Awaitable[Any]:
        number = int(draw() * tasks)
        return ask.get(f"user-{number % users + 1}", number + 1)

    def toggle() -> Awaitable[Any]:
        number = int(draw() * tasks)
        return ask.toggle(f"user-{number % users + 1}", number + 1, None, NO_PRECONDITIONS)

    def owner() -> str:
        return f"user-{int(draw() * users) + 1}"

    call = {
        "get": get,
        "list": lambda: ask.list(owner(), None, None, 51),
        "create": lambda: ask.create(owner(), TaskCreate("Made under load", "Before noon, please")),
        "toggle": toggle,
    }[operation]
    done = 0

    async def caller(end: float) -> None:
        nonlocal done
        while perf_counter() < end:
            await call()
            done += 1

    async def callers(seconds: float) -> None:
        end = perf_counter() + seconds
        await asyncio.gather(*(caller(end) for _ in range(CALLERS)))

    await callers(0.5)
    done, before = 0, process_time()
    await callers(seconds)
    used = process_time() - before
    await database.close()
    return used / done * 1e6


def _rows(connection: psycopg.Connection, statement: Statement[Any], values: tuple[object, ...]) -> float:
    result = connection.pgconn.exec_params(statement.text(), statement.encode(values), result_format=pq.Format.BINARY)
    connection.rollback()
    transformer = Transformer()

    def rows() -> None:
        transformer.set_pgresult(result)
        list(starmap(statement.row_factory, transformer.load_rows(0, result.ntuples, tuple)))

    return _each(rows)


def _each(action: Callable[[], Any]) -> float:
    """µs, the least of a few rounds: what disturbs a round only makes it longer."""
    timer = timeit.Timer(action)
    number = timer.autorange()[0]
    return min(timer.repeat(5, number)) / number * 1e6


def main() -> None:
    name, *rest = sys.argv[1:]
    if name == "calls":
        operation, users, tasks, seconds = rest
        print(msgspec.json.encode(costs(operation, int(users), int(tasks), float(seconds))).decode())
        return
    server.service_of_process = APPLICATIONS[name]
    settings = load()
    server.serve(settings, [listener_of(settings.host, settings.port).socket], lambda: None)


if __name__ == "__main__":
    main()
