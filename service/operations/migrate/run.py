"""Applies migrations, rolls them back, and frees the lock of a dead process that did."""

import time

from service.operations.migrate import files, guard, history, lock
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.guard import Consent
from service.operations.migrate.lock import Holder
from service.operations.migrate.plan import explained, is_complete, to_apply, to_roll_back
from service.operations.migrate.runner import Command, MigrationRun, Progress, Say
from service.operations.migrate.session import Session, connect

WAIT_S = 60.0


def apply(
    url: str,
    *,
    to: str | None = None,
    wait_s: float = WAIT_S,
    consent: Consent = lambda _: False,
    allow_shared_schema: bool = False,
    say: Say = lambda _: None,
    progress: Progress = lambda _, __: None,
) -> list[str]:
    """Applies pending migrations, up to and including `to`, and returns their ids. If another process applies, waits
    for it for up to `wait_s` seconds and applies the rest. `consent` is asked about statements that lock for long.
    Raises MigrationError.
    """
    deadline = time.monotonic() + wait_s
    with connect(url) as session, explained():
        holder = lock.look(session)
        past = history.read(session)
        if ((to is None and is_complete(past)) or not to_apply(past, to)) and (
            holder is None or holder.alive is not False
        ):
            return []
        with lock.held(session, deadline, say) as write_row:
            past = history.read(session)
            plan = to_apply(past, to)
            guard.before_apply(
                session,
                plan,
                files.read(),
                past,
                consent=consent,
                allow_shared_schema=allow_shared_schema,
                say=say,
            )
            write_row()
            if plan and not session.pooled:
                _make_tables(session)
            command = Command(session, url, "apply", deadline, say, progress)
            for migration in plan:
                MigrationRun(command, migration, again=migration.id in past.begun).run()
            return [migration.id for migration in plan]


def rollback(
    url: str,
    *,
    to: str | None = None,
    count: int | None = None,
    wait_s: float = WAIT_S,
    allow_shared_schema: bool = False,
    say: Say = lambda _: None,
    progress: Progress = lambda _, __: None,
) -> list[str]:
    """Rolls back the `count` (1) applied last, or all that were applied after `to` ("0": all), newest first, and
    returns the ids. Raises MigrationError.
    """
    deadline = time.monotonic() + wait_s
    with connect(url) as session, explained():
        plan = to_roll_back(history.read(session), to, count)
        if not plan:
            return []
        with lock.held(session, deadline, say) as write_row:
            past = history.read(session)
            if to_roll_back(past, to, count) != plan:
                raise MigrationError("Another migration came in between: see `migrate status`, then try again")
            guard.before_rollback(session, plan, files.read(), past, allow_shared_schema=allow_shared_schema)
            write_row()
            command = Command(session, url, "rollback", deadline, say, progress)
            for migration in plan:
                MigrationRun(command, migration, again=migration.id in past.begun).run()
            return [migration.id for migration in plan]


def break_lock(url: str, *, force: bool = False) -> Holder | None:
    """Frees the lock of a dead holder and returns who it was; None where nobody has it. `force` frees also one whose
    holder cannot be known to be dead; one that is alive is never freed. Raises MigrationError.
    """
    with connect(url) as session, explained():
        holder = lock.look(session)
        if holder is None:
            return None
        if holder.alive:
            raise MigrationError(f"The lock's holder is alive: {lock.describe(holder)}; wait, or end that session")
        if holder.alive is None and not force:
            raise MigrationError(
                f"The lock is held by {lock.describe(holder)}, and the database cannot tell whether that lives: make "
                "sure that it does not, then give --yes"
            )
        lock.free(session)
        return holder


def _make_tables(session: Session) -> None:
    """yoyo's tables, where they are not there yet."""
    if not history.is_recorded(session):
        with session.connection.transaction():
            session.execute("create_bookkeeping")
    elif session.fetch_one("relation", name="_yoyo_log", schema=session.schema) is None:
        raise MigrationError(
            "The table _yoyo_migration is of a yoyo before version 6: let yoyo 9's own command list the migrations "
            "once, which brings its tables up to date"
        )
    if "checksum" not in [
        name for (name,) in session.fetch_all("columns_of", schema=session.schema, name="_yoyo_migration")
    ]:
        session.execute("add_checksums")
