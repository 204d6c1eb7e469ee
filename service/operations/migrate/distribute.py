"""`tasks-service migrate distribute`: the tables over the nodes of a Citus cluster, as sql/README.md describes.

Each step looks first whether it is done, so the command can be repeated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from service.operations.migrate import files, history, lock
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.session import Session
from service.operations.sql import query

USERS, BY_USER, REFERENCE = "users", ("tasks", "idempotency_keys"), "_yoyo_migration"

# What the service's role needs where Citus writes defaults out (sql/operations/distribute_grants.sql).
GRANTS = {
    "INSERT of users.created_at",
    "INSERT of idempotency_keys.created_at",
    "INSERT of tasks.version",
    "INSERT of tasks.created_at",
    "INSERT of tasks.updated_at",
}


class Placement(NamedTuple):
    """How Citus holds a table: `method` h (by hash of `column`) or n (a reference table). `on_workers`: a worker has a
    shard of it.
    """

    method: str
    column: str | None
    colocation: int
    on_workers: bool


class Step(NamedTuple):
    """One statement: the name of its file, and its parameters."""

    what: str
    name: str
    parameters: dict[str, Any]


def is_installed(session: Session) -> bool:
    """Whether the database has the extension citus."""
    return bool(session.fetch_one("citus")[0])


def placements(session: Session) -> dict[str, Placement]:
    """How Citus holds each of its tables. Only where the extension is installed."""
    rows = session.fetch_all("distributed_tables", schema=session.schema)
    return {name: Placement(*rest) for name, *rest in rows}


def misplaced(found: dict[str, Placement]) -> list[str]:
    """What Citus holds in another way than the service needs, a sentence each."""
    said: list[str] = []
    for name, column in ((USERS, "id"), *((table, "user_id") for table in BY_USER)):
        placed = found.get(name)
        if placed is not None and (placed.method, placed.column) != ("h", column):
            said.append(f"{name} is not distributed by {column}")
        elif placed is not None and USERS in found and placed.colocation != found[USERS].colocation:
            said.append(f"{name} is not colocated with {USERS}")
    if REFERENCE in found and found[REFERENCE].method != "n":
        said.append(f"{REFERENCE} is not a reference table")
    return said


def missing(found: dict[str, Placement]) -> list[str]:
    """The tables that Citus does not hold and should."""
    return [name for name in (USERS, *BY_USER, REFERENCE) if name not in found]


def steps(session: Session) -> list[Step]:
    """What is still to be done, in order. Raises MigrationError where it cannot be."""
    if not is_installed(session):
        raise MigrationError(
            f"Database {session.connection.info.dbname} does not have the extension citus, so nothing was distributed: "
            "CREATE EXTENSION citus on the coordinator and its workers first"
        )
    if session.pooled:
        raise MigrationError(
            "This connection goes through a pooler: set MIGRATION_DATABASE_URL to the coordinator's direct endpoint"
        )
    if pending := [
        state.id for state in history.states(files.read(), history.read(session)) if state.state != "applied"
    ]:
        raise MigrationError(f"{pending[0]} is not applied as its file is here: run `migrate apply` first")
    found = placements(session)
    if wrong := misplaced(found):
        raise MigrationError(f"{wrong[0]}: undo that with undistribute_table, then try again")
    plan: list[Step] = []
    absent = missing(found)
    if USERS in absent:
        plan.append(_by(session, USERS, "id", "none"))
    plan += [_by(session, name, "user_id", _name(session, USERS)) for name in BY_USER if name in absent]
    if REFERENCE in absent:
        plan.append(
            Step(f"copied {REFERENCE} to every node", "distribute_as_reference", {"table": _name(session, REFERENCE)})
        )
    plan.append(Step("granted the service's role what Citus needs", "distribute_grants", {}))
    plan.append(Step("granted the sequence on the workers", "distribute_sequence", {"schema": session.schema}))
    return plan


def distribute(session: Session, deadline: float, say: Callable[[str], None], done: Callable[[str], None]) -> None:
    """Does each step and says so. Raises MigrationError."""
    with lock.held(session, deadline, say) as write_row:
        plan = steps(session)
        write_row()
        for step in plan:
            try:
                rows = session.execute(step.name, **step.parameters)
                answers = rows.fetchall() if step.name == "distribute_sequence" else []
            except psycopg.Error as error:
                detail = f"; DETAIL: {error.diag.message_detail}" if error.diag.message_detail else ""
                raise MigrationError(
                    f"Not {step.what}: {error.diag.message_primary or error} (SQLSTATE {error.sqlstate}){detail}; "
                    "mend the cause and run `migrate distribute` again"
                ) from error
            for node, port, success, result in answers:
                if not success:
                    raise MigrationError(f"Not {step.what}: worker {node}:{port} answered {result}")
            done(step.what)


def text(session: Session, step: Step) -> str:
    """The statement as psql would take it."""
    cursor = psycopg.ClientCursor(session.connection)
    return cursor.mogrify(query(step.name, session.schema), step.parameters).strip() + ";"


def _by(session: Session, table: str, column: str, colocated: str) -> Step:
    what = f"distributed {table} by {column}"
    return Step(what, "distribute_by", {"table": _name(session, table), "by_column": column, "with": colocated})


def _name(session: Session, table: str) -> str:
    return sql.Identifier(session.schema, table).as_string(session.connection)
