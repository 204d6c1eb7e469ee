"""The peer in FastAPI and SQLModel on asyncpg: a session for each request, models as answers.

asyncpg prepares and SQLAlchemy caches each statement. Settings: DATABASE_URL, DB_CONNECTIONS.
"""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import StringConstraints
from sqlalchemy import DateTime, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

connections = int(os.environ["DB_CONNECTIONS"])
engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"),
    pool_size=connections,
    max_overflow=0,
)
new_session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


class User(SQLModel, table=True):
    __tablename__ = "users"  # pyright: ignore[reportAssignmentType]
    id: str = Field(primary_key=True)


class Task(SQLModel, table=True):
    __tablename__ = "tasks"  # pyright: ignore[reportAssignmentType]
    id: int = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    title: str
    description: str | None
    completed: bool
    version: int
    created_at: datetime = Field(sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(sa_type=DateTime(timezone=True))


class TaskPublic(SQLModel):
    id: int
    user_id: str
    title: str
    description: str | None
    completed: bool
    version: int
    created_at: datetime
    updated_at: datetime


class TaskCreate(SQLModel):
    title: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)]
    description: str | None = Field(default=None, max_length=5000)
    completed: bool = False


async def session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(session)]
app = FastAPI(openapi_url=None)


@app.get("/api/{user_id}/tasks/{task_id}", response_model=TaskPublic)
async def get_task(user_id: str, task_id: int, session: Session) -> Task:
    return found(await session.get(Task, (task_id, user_id)))


@app.get("/api/{user_id}/tasks", response_model=list[TaskPublic])
async def list_tasks(user_id: str, limit: Annotated[int, Query(ge=1, le=1000)], session: Session) -> list[Task]:
    tasks = await session.exec(select(Task).where(Task.user_id == user_id).order_by(col(Task.id).desc()).limit(limit))
    return list(tasks)


@app.post("/api/{user_id}/tasks", response_model=TaskPublic, status_code=201)
async def create_task(user_id: str, new: TaskCreate, session: Session) -> Task:
    owner = insert(User).values(id=user_id).on_conflict_do_nothing(index_elements=["id"]).cte("owner")
    created = await session.exec(
        insert(Task).values(user_id=user_id, **new.model_dump()).returning(Task).add_cte(owner)
    )
    task = created.scalar_one()
    await session.commit()
    return task


@app.patch("/api/{user_id}/tasks/{task_id}/complete", response_model=TaskPublic)
async def toggle_task(user_id: str, task_id: int, session: Session) -> Task:
    changed = await session.exec(
        update(Task)
        .where(col(Task.user_id) == user_id, col(Task.id) == task_id)
        .values(completed=~col(Task.completed), version=Task.version + 1, updated_at=func.clock_timestamp())
        .returning(Task)
    )
    task = found(changed.scalar_one_or_none())
    await session.commit()
    return task


def found(task: Task | None) -> Task:
    if task is None:
        raise HTTPException(404, "Task not found")
    return task


@app.exception_handler(HTTPException)
async def problem(_: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, status_code=error.status_code)
