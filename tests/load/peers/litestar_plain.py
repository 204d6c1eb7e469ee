"""The peer in plain Litestar: handlers that return structs, psycopg's pool, its cursors and its row factories.

psycopg prepares a statement by itself once it was executed five times. Settings: DATABASE_URL, DB_CONNECTIONS.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec
from litestar import Litestar, Request, Response, get, patch, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException, NotFoundException
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

COLUMNS = "id, user_id, title, description, completed, version, created_at, updated_at"
GET = f"SELECT {COLUMNS} FROM tasks WHERE user_id = %s AND id = %s"
LIST = f"SELECT {COLUMNS} FROM tasks WHERE user_id = %s ORDER BY id DESC LIMIT %s"
CREATE = f"""
    WITH owner AS (INSERT INTO users (id) VALUES (%(user_id)s) ON CONFLICT (id) DO NOTHING)
    INSERT INTO tasks (user_id, title, description, completed)
    VALUES (%(user_id)s, %(title)s, %(description)s, %(completed)s) RETURNING {COLUMNS}"""
TOGGLE = f"""
    UPDATE tasks SET completed = NOT completed, version = version + 1, updated_at = clock_timestamp()
    WHERE user_id = %s AND id = %s RETURNING {COLUMNS}"""


class Task(msgspec.Struct):
    id: int
    user_id: str
    title: str
    description: str | None
    completed: bool
    version: int
    created_at: datetime
    updated_at: datetime


class TaskCreate(msgspec.Struct):
    title: str
    description: str | None = None
    completed: bool = False


@get("/api/{user_id:str}/tasks/{task_id:int}")
async def get_task(user_id: str, task_id: int, state: State) -> Task:
    async with state.pool.connection() as connection:
        cursor = await connection.execute(GET, (user_id, task_id), binary=True)
        return found(await cursor.fetchone())


@get("/api/{user_id:str}/tasks")
async def list_tasks(user_id: str, limit: int, state: State) -> list[Task]:
    async with state.pool.connection() as connection:
        cursor = await connection.execute(LIST, (user_id, limit), binary=True)
        return await cursor.fetchall()


@post("/api/{user_id:str}/tasks")
async def create_task(user_id: str, data: TaskCreate, state: State) -> Task:
    parameters = {
        "user_id": user_id,
        "title": data.title.strip(),
        "description": data.description,
        "completed": data.completed,
    }
    async with state.pool.connection() as connection:
        cursor = await connection.execute(CREATE, parameters, binary=True)
        return await cursor.fetchone()


@patch("/api/{user_id:str}/tasks/{task_id:int}/complete")
async def toggle_task(user_id: str, task_id: int, state: State) -> Task:
    async with state.pool.connection() as connection:
        cursor = await connection.execute(TOGGLE, (user_id, task_id), binary=True)
        return found(await cursor.fetchone())


def found(task: Task | None) -> Task:
    if task is None:
        raise NotFoundException("Task not found")
    return task


def problem(_: Request, error: HTTPException) -> Response:
    return Response({"error": error.detail}, status_code=error.status_code)


@asynccontextmanager
async def pool(app: Litestar) -> AsyncIterator[None]:
    connections = int(os.environ["DB_CONNECTIONS"])
    async with AsyncConnectionPool(
        os.environ["DATABASE_URL"],
        min_size=connections,
        max_size=connections,
        kwargs={"autocommit": True, "row_factory": class_row(Task), "options": "-c timezone=UTC"},
        open=False,
    ) as app.state.pool:
        yield


app = Litestar(
    [get_task, list_tasks, create_task, toggle_task],
    lifespan=[pool],
    exception_handlers={HTTPException: problem},
    openapi_config=None,
)
