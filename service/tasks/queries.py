"""What the service asks of the database: one typed function for each file under sql/tasks, loaded once at import.

Must not import HTTP's requests or responses, or connections. Each function raises service.database.Failure.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from service.database import Database, Json, Statement, StatementError, Unavailable, read
from service.http.conditional import NO_PRECONDITIONS, Preconditions
from service.http.limits import ID_MAX
from service.paths import root
from service.tasks.schemas import Task, TaskCreate, TaskUpdate, values_of

Row = TypeVar("Row")
Written = TypeVar("Written", "Changed", "Deleted")

FOLDER = root() / "sql" / "tasks"
STATEMENTS: list[Statement[Any]] = []


class Changed(msgspec.Struct, frozen=True, gc=False):
    """A task after a write. `applied` is false if it was not written: it does not meet the preconditions, or another
    write was faster. `_write` sends the latter again, so that the caller of `Queries` gets the former only.
    """

    applied: bool
    task: Task

    @property
    def version(self) -> int:
        return self.task.version


class Deleted(msgspec.Struct, frozen=True, gc=False):
    """A task that was deleted or, with `applied` false, kept. `version` is its last or its present one."""

    applied: bool
    user_id: str
    id: int
    version: int


class Created(msgspec.Struct, frozen=True, gc=False):
    """One task of a batch. The rest of it is as it was sent."""

    id: int
    user_id: str
    title: str
    created_at: datetime


class IdempotentCreate(msgspec.Struct, frozen=True, gc=False):
    """What a create or batch under an idempotency key made, now or the first time.

    `same_request`: the key was first used with the same request. `replayed`: nothing was created now.
    """

    user_id: str
    same_request: bool
    replayed: bool
    task_ids: list[int]
    created_at: datetime


Arguments = Sequence[Any]  # of a call, in the order of the statement's parameters


def _statement(
    name: str,
    parameters: dict[str, type],
    row_factory: Callable[..., Row],
    owns: Callable[[Sequence[Row], Arguments], bool],
    *,
    key: tuple[str, ...] = (),
    lock_order: tuple[str, ...] = (),
) -> Statement[Row]:
    statement = Statement(name, read(FOLDER, name), parameters, row_factory, key=key, lock_order=lock_order, owns=owns)
    STATEMENTS.append(statement)
    return statement


def _changed(applied: bool, *task: Any) -> Changed:
    return Changed(applied, Task(*task))


# A fault between PostgreSQL and here (a proxy that repeats or loses a message) must never show a user another user's
# task. So each row names its owner, and is compared with the call's arguments before the caller gets it.


def _of_task(rows: Sequence[Task | Deleted], arguments: Arguments) -> bool:
    for task in rows:  # noqa: SIM110 -- there is one, or none, and a comprehension costs three times as much
        if task.id != arguments[1] or task.user_id != arguments[0]:
            return False
    return True


def _of_user(rows: Sequence[Task | Created], arguments: Arguments) -> bool:
    user_id = arguments[0]
    for row in rows:  # noqa: SIM110 -- a page has many, and this costs 0.9 µs for 50; a generator costs 2
        if row.user_id != user_id:
            return False
    return True


def _of_page(rows: Sequence[Task], arguments: Arguments) -> bool:
    newest, max_rows = arguments[1:]
    return _of_user(rows, arguments) and len(rows) <= max_rows and (not rows or rows[0].id <= newest)


def _of_create(rows: Sequence[Task], arguments: Arguments) -> bool:
    return len(rows) == 1 and rows[0].user_id == arguments[0] and rows[0].title == arguments[1]


def _of_key(rows: Sequence[IdempotentCreate], arguments: Arguments) -> bool:
    return len(rows) == 1 and rows[0].user_id == arguments[0]


def _of_batch(rows: Sequence[Created], arguments: Arguments) -> bool:
    sent = _decode_titles(arguments[1])
    return _of_user(rows, arguments) and sorted(task.title for task in rows) == sorted(one.title for one in sent)


def _of_change(rows: Sequence[Changed], arguments: Arguments) -> bool:
    return _of_task([changed.task for changed in rows], arguments)


class _Titled(msgspec.Struct):
    title: str


_decode_titles = msgspec.json.Decoder(list[_Titled]).decode

_PAGE = {"user_id": str, "newest": int, "rows": int}
_NEW = {"title": str, "description": str, "completed": bool}  # `values_of` a TaskCreate
_ROW = ("user_id", "task_id")  # what a write locks
_PRECONDITIONS = {"versions": list, "excluded_versions": list}
MAX_OVERTAKEN = 10

GET = _statement("get", {"user_id": str, "task_id": int}, Task, _of_task)
LIST = _statement("list", _PAGE, Task, _of_page)
LIST_OPEN = _statement("list_open", _PAGE, Task, _of_page)
LIST_COMPLETED = _statement("list_completed", _PAGE, Task, _of_page)
# Creates lock the user's row, so they may share a commit with other writes. The keyed ones and the batch may not: they
# wait for other transactions by design, or take long.
CREATE = _statement("create", {"user_id": str, **_NEW}, Task, _of_create, lock_order=("user_id",))
CREATE_IDEMPOTENT = _statement(
    "create_idempotent",
    {"user_id": str, "key": str, "fingerprint": bytes, **_NEW},
    IdempotentCreate,
    _of_key,
)
CREATE_MANY = _statement("create_many", {"user_id": str, "tasks": Json}, Created, _of_batch)
CREATE_MANY_IDEMPOTENT = _statement(
    "create_many_idempotent",
    {"user_id": str, "key": str, "fingerprint": bytes, "tasks": Json},
    IdempotentCreate,
    _of_key,
)
UPDATE = _statement(
    "update",
    {
        "user_id": str,
        "task_id": int,
        "title": str,
        "description": str,
        "sets_description": bool,
        "completed": bool,
        **_PRECONDITIONS,
    },
    _changed,
    _of_change,
    key=_ROW,
)
FLIP = _statement("flip", {"user_id": str, "task_id": int}, Task, _of_task, key=_ROW)
TOGGLE = _statement(
    "toggle", {"user_id": str, "task_id": int, "completed": bool, **_PRECONDITIONS}, _changed, _of_change, key=_ROW
)
DELETE = _statement("delete", {"user_id": str, "task_id": int, **_PRECONDITIONS}, Deleted, _of_task, key=_ROW)

if unused := {path.stem for path in FOLDER.glob("*.sql")} - {statement.name for statement in STATEMENTS}:
    raise StatementError(f"nothing calls {', '.join(sorted(unused))}")


_id = attrgetter("id")


def _row(row: Row | None) -> Row:
    """The row of a statement that always returns one."""
    assert row is not None
    return row


class Queries:
    """The statements, bound to a database. `required`: what a write requires of the task's version."""

    __slots__ = ("database",)

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, user_id: str, task_id: int) -> Awaitable[Task | None]:
        """The user's task, or None."""
        return self.database.fetch_one(GET, user_id, task_id)

    def list(self, user_id: str, completed: bool | None, after: int | None, rows: int) -> "Awaitable[list[Task]]":
        """At most `rows` of the user's tasks, newest first: those older than the task `after`, if given."""
        statement = LIST if completed is None else LIST_COMPLETED if completed else LIST_OPEN
        return self.database.fetch_all(statement, user_id, ID_MAX if after is None else after - 1, rows)

    async def create(self, user_id: str, new: TaskCreate) -> Task:
        """The task as it was created."""
        # Not `values_of`, which would cost the most frequent write 1 % more.
        return _row(await self.database.fetch_one(CREATE, user_id, new.title, new.description, new.completed))

    async def create_idempotent(self, user_id: str, key: str, fingerprint: bytes, new: TaskCreate) -> IdempotentCreate:
        """Creates a task, unless the key did so within its 24 hours."""
        return _row(await self.database.fetch_one(CREATE_IDEMPOTENT, user_id, key, fingerprint, *values_of(new)))

    async def create_many(self, user_id: str, tasks: bytes) -> "list[Created]":
        """What was created, in the order of the JSON array `tasks`."""
        return sorted(await self.database.fetch_all(CREATE_MANY, user_id, tasks), key=_id)

    async def create_many_idempotent(
        self, user_id: str, key: str, fingerprint: bytes, tasks: bytes
    ) -> IdempotentCreate:
        """Creates the tasks of the JSON array `tasks`, unless the key did so within its 24 hours."""
        return _row(await self.database.fetch_one(CREATE_MANY_IDEMPOTENT, user_id, key, fingerprint, tasks))

    async def update(self, user_id: str, task_id: int, new: TaskUpdate, required: Preconditions) -> Changed | None:
        """Changes the fields that are given. None: there is no such task."""
        # For the statement, NULL is a field that is not given. A description may become NULL, so it has a flag.
        title = None if new.title is UNSET else new.title
        description = None if new.description is UNSET else new.description
        completed = None if new.completed is UNSET else new.completed
        return await self._write(
            UPDATE, user_id, task_id, title, description, new.description is not UNSET, completed, required=required
        )

    async def toggle(
        self, user_id: str, task_id: int, completed: bool | None, required: Preconditions
    ) -> Changed | None:
        """Flips completed, or sets it where it is given. None: there is no such task."""
        if completed is None and required == NO_PRECONDITIONS:
            task = await self.database.fetch_one(FLIP, user_id, task_id)
            return Changed(True, task) if task else None
        return await self._write(TOGGLE, user_id, task_id, completed, required=required)

    async def delete(self, user_id: str, task_id: int, required: Preconditions) -> Deleted | None:
        """Deletes the task. None: there is no such task."""
        return await self._write(DELETE, user_id, task_id, required=required)

    async def _write(self, statement: Statement[Written], *values: object, required: Preconditions) -> Written | None:
        """A write. Run again if another transaction changed the task while the statement waited for the row's lock:
        PostgreSQL evaluates the condition on the row as it was when the statement began, so nothing was written, but
        the row's version now meets the preconditions.
        """
        for _ in range(MAX_OVERTAKEN):
            written = await self.database.fetch_one(statement, *values, *required)
            if written is None or written.applied or not required.met_by(written.version):
                return written
        raise Unavailable("the task went on changing")
