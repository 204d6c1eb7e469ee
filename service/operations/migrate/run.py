"""Applying migrations, taking them back, and saying where a database stands."""

import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg

from service.operations.migrate import files, history, lock, yoyo_format
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.files import Migration
from service.operations.migrate.history import Applied, State
from service.operations.migrate.lock import Holder
from service.operations.migrate.session import SETTINGS, Session, connect, first_line

WAIT_S = 60.0
RETRY_S = 1.0  # in which those who queued behind the lock are served
Progress = Callable[[Migration, float | None], None]  # the seconds it took, None as it begins
Say = Callable[[str], None]


def status(url: str | None) -> list[State]:
    """Each migration's state; None is a database that does not exist yet. Changes nothing."""
    return history.states(files.read(), _applied(url))


def states_of(connection: psycopg.Connection[Any]) -> list[State]:
    """The same, over a connection that is there. Raises psycopg.Error."""
    return history.states(files.read(), history.read(connection))


def plan_apply(url: str | None, to: str | None = None) -> list[Migration]:
    """What `apply` would run, in order. Changes nothing."""
    return _to_apply(_applied(url), to)


def plan_rollback(url: str | None, to: str | None = None, count: int = 1) -> list[Migration]:
    """What `rollback` would take back, in order. Changes nothing."""
    return _to_roll_back(_applied(url), to, count)


def apply(
    url: str,
    *,
    to: str | None = None,
    wait_s: float = WAIT_S,
    say: Say = lambda _: None,
    progress: Progress = lambda _, __: None,
) -> list[str]:
    """Applies what is pending, up to and with `to`, and returns the ids. Where another one is at it, waits for it for
    up to `wait_s` seconds and applies what is then left. Raises MigrationError.
    """
    deadline = time.monotonic() + wait_s
    with connect(url) as session, _explained():
        plan = _to_apply(history.read(session.connection), to)
        holder = lock.look(session.connection)
        if not plan and (holder is None or holder.alive is not False):
            return []
        _refuse_unsafe(session, plan)
        with lock.held(session, deadline, say):
            if not session.pooled:
                _make_tables(session.connection)
            plan = _to_apply(history.read(session.connection), to)
            for migration in plan:
                _run(session, migration, "apply", deadline, say, progress)
            return [migration.id for migration in plan]


def rollback(
    url: str,
    *,
    to: str | None = None,
    count: int = 1,
    wait_s: float = WAIT_S,
    say: Say = lambda _: None,
    progress: Progress = lambda _, __: None,
) -> list[str]:
    """Rolls back the newest `count`, or all that came after `to` ("0": all), newest first, and returns the ids.

    Raises MigrationError.
    """
    deadline = time.monotonic() + wait_s
    with connect(url) as session, _explained():
        plan = _to_roll_back(history.read(session.connection), to, count)
        if not plan:
            return []
        _refuse_unsafe(session, plan)
        with lock.held(session, deadline, say):
            if _to_roll_back(history.read(session.connection), to, count) != plan:
                raise MigrationError("Another migration came in between: see `migrate status`, then try again")
            for migration in plan:
                _run(session, migration, "rollback", deadline, say, progress)
            return [migration.id for migration in plan]


def break_lock(url: str, *, force: bool = False) -> Holder | None:
    """Frees the lock of a dead holder and returns who it was; None where nobody has it. `force` frees also one whose
    holder cannot be known to be dead; one that is alive is never freed. Raises MigrationError.
    """
    with connect(url) as session, _explained():
        holder = lock.look(session.connection)
        if holder is None:
            return None
        if holder.alive:
            raise MigrationError(f"The lock's holder is alive: {lock.describe(holder)}; wait, or end that session")
        if holder.alive is None and not force:
            raise MigrationError(
                f"The lock is held by {lock.describe(holder)}, and the database cannot tell whether that lives: make "
                "sure that it does not, then give --yes"
            )
        session.connection.execute("DELETE FROM yoyo_lock")
        return holder


def _applied(url: str | None) -> dict[str, Applied]:
    if url is None:
        return {}
    with connect(url) as session, _explained():
        return history.read(session.connection)


def _to_apply(applied: dict[str, Applied], to: str | None) -> list[Migration]:
    migrations = files.read()
    if to is not None:
        migrations = migrations[: files.find(migrations, to) + 1]
    return [migration for migration in migrations if migration.id not in applied]


def _to_roll_back(applied: dict[str, Applied], to: str | None, count: int) -> list[Migration]:
    known = files.read()
    if unknown := sorted(applied.keys() - {migration.id for migration in known}):
        raise MigrationError(f"{unknown[-1]} is applied but has no file here: take it back with the code that has it")
    done = [migration for migration in known if migration.id in applied]
    if to is None:
        if count > len(done):
            raise MigrationError(f"There are only {len(done)} applied migrations to take back")
        plan = done[len(done) - count :]
    else:
        after = 0 if to == "0" else files.find(known, to) + 1
        plan = [migration for migration in known[after:] if migration in done]
    for migration in plan:
        if migration.rollback is None:
            raise MigrationError(f"{migration.id} has no rollback file")
    return plan[::-1]


def _refuse_unsafe(session: Session, plan: list[Migration]) -> None:
    """Through a transaction-mode pooler, only what fits into one transaction is safe."""
    if not session.pooled:
        return
    alone = next((migration.id for migration in plan if not migration.transactional), None)
    reason = f"{alone} runs outside a transaction" if alone else None
    if reason is None and not history.exists(session.connection, "_yoyo_migration"):
        reason = "the first migration makes the bookkeeping"
    if reason:
        raise MigrationError(
            f"This connection goes through a pooler and {reason}: set MIGRATION_DATABASE_URL to the direct endpoint "
            "(Neon: the host without -pooler)"
        )


def _make_tables(connection: psycopg.Connection[Any]) -> None:
    yoyo_format.make_tables(connection)
    connection.execute("ALTER TABLE _yoyo_migration ADD COLUMN IF NOT EXISTS checksum text")


def _run(
    session: Session,
    migration: Migration,
    direction: Literal["apply", "rollback"],
    deadline: float,
    say: Say,
    progress: Progress,
) -> None:
    """Runs one migration and records it. Where it gives up waiting for a lock it is tried again until `deadline`:
    a short lock_timeout, so that requests do not queue behind it for long, and some patience instead.
    """
    progress(migration, None)
    begin = time.monotonic()
    statements = migration.statements if direction == "apply" else migration.rollback or ()
    while True:
        try:
            _run_once(session.connection, migration, direction, statements)
        except psycopg.errors.LockNotAvailable as error:
            # Through a pooler, the transaction around keeps the locks of the migrations before.
            if session.pooled or time.monotonic() > deadline:
                raise MigrationError(
                    f"{migration.id} gave up waiting for a lock that others hold: see pg_locks, or try when there is "
                    "less going on"
                ) from error
            say(f"{migration.id} waits for a lock that others hold; trying again")
            time.sleep(RETRY_S)
        except psycopg.Error as error:
            left = "nothing of it was applied" if migration.transactional else "it can be run again as it is"
            raise MigrationError(
                f"{migration.id} failed: {first_line(error)} (SQLSTATE {error.sqlstate}); {left}"
            ) from error
        else:
            progress(migration, time.monotonic() - begin)
            return


def _run_once(
    connection: psycopg.Connection[Any],
    migration: Migration,
    direction: Literal["apply", "rollback"],
    statements: tuple[str, ...],
) -> None:
    """In one transaction with its record or, where it runs outside of one, recorded last."""
    if migration.transactional:
        with connection.transaction():
            _execute(connection, statements)
            _record(connection, migration, direction)
    else:
        _execute(connection, statements)
        with connection.transaction():
            _record(connection, migration, direction)


def _execute(connection: psycopg.Connection[Any], statements: tuple[str, ...]) -> None:
    connection.execute(
        "SELECT set_config(name, value, false) FROM unnest(%s::text [], %s::text []) AS settings (name, value)",
        (list(SETTINGS), list(SETTINGS.values())),
    )
    # A statement whose client was killed would otherwise run to its end, and keep the lock for as long. Not every
    # server's system can look for that.
    with suppress(psycopg.errors.InvalidParameterValue), connection.transaction():
        connection.execute("SET client_connection_check_interval = '1s'")
    for statement in statements:
        connection.execute(statement.encode())
    connection.execute("RESET ALL")


def _record(connection: psycopg.Connection[Any], migration: Migration, direction: str) -> None:
    """Writes yoyo's two tables as yoyo does."""
    now = datetime.now(UTC).replace(tzinfo=None)
    name, digest = migration.id, yoyo_format.digest(migration.id)
    if direction == "apply":
        connection.execute(
            "INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc, checksum) "
            "VALUES (%s, %s, %s, %s)",
            (digest, name, now, migration.checksum),
        )
    else:
        connection.execute("DELETE FROM _yoyo_migration WHERE migration_hash = %s", (digest,))
    connection.execute(
        "INSERT INTO _yoyo_log (id, migration_hash, migration_id, operation, username, hostname, created_at_utc) "
        "VALUES (gen_random_uuid()::text, %s, %s, %s, %s, %s, %s)",
        (digest, name, direction, lock.username(), socket.gethostname(), now),
    )


@contextmanager
def _explained() -> Generator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise MigrationError(f"The database refused: {first_line(error)} (SQLSTATE {error.sqlstate})") from error
