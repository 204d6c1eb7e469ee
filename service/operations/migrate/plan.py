"""Which migrations a database has, and which ones `apply` and `rollback` would run. Changes nothing."""

from collections.abc import Generator
from contextlib import contextmanager

import psycopg

from service.operations.migrate import files, history
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.files import Migration
from service.operations.migrate.history import History, State
from service.operations.migrate.session import Session, connect, first_line

# What finishes what was begun outside a transaction.
FINISH = {"apply": "tasks-service migrate apply", "rollback": "tasks-service migrate rollback --count 1"}


def status(url: str | None) -> list[State]:
    """Each migration's state; None is a database that does not exist yet."""
    return history.states(files.read(), _past(url))


def differences(url: str) -> tuple[list[str], list[str]]:
    """The ids that are not applied (pending or incomplete), and those that are applied and have no file here.

    Reads no file: that takes 50 ms of CPU, which a start can do without.
    """
    ids, past = files.ids(), _past(url)
    return [name for name in ids if name not in past.applied], [name for name in past.applied if name not in ids]


def begun(url: str) -> dict[str, str]:
    """The ids of what was begun outside a transaction and not finished, each with the command that finishes it.

    Only a role that may read the log sees them; for the service's own, they are pending or applied.
    """
    past = _past(url)
    return {name: FINISH["rollback" if name in past.applied else "apply"] for name in past.begun}


def is_complete(past: History) -> bool:
    """Whether nothing is pending. Reads no file, either."""
    return not past.begun and past.applied.keys() >= set(files.ids())


def states_of(session: Session) -> list[State]:
    """The same, over a session that is there. Raises psycopg.Error."""
    return history.states(files.read(), history.read(session))


def require_applied(session: Session) -> None:
    """Raises MigrationError where a migration is pending: what has the tables' names may then be another role's, whose
    triggers would run as this one.
    """
    with explained():
        past = history.read(session)
    pending = next((name for name in files.ids() if name not in past.applied), None)
    if pending is not None:
        raise MigrationError(
            f"{pending} is not applied in schema {session.schema}, so what is there may be another application's: "
            "run `tasks-service migrate apply`"
        )


def plan_apply(url: str | None, to: str | None = None) -> list[Migration]:
    """What `apply` would run, in order."""
    return to_apply(_past(url), to)


def plan_rollback(url: str | None, to: str | None = None, count: int | None = None) -> list[Migration]:
    """What `rollback` would roll back, in order."""
    return to_roll_back(_past(url), to, count)


def _past(url: str | None) -> History:
    if url is None:
        return History()
    with connect(url) as session, explained():
        return history.read(session)


def to_apply(past: History, to: str | None) -> list[Migration]:
    migrations = files.read()
    if to is not None:
        migrations = migrations[: files.find(migrations, to) + 1]
    if reverting := [name for name, begun in past.begun.items() if begun == "reverting"]:
        raise MigrationError(f"{reverting[0]} is rolled back half-way: finish it with `migrate rollback --count 1`")
    return [migration for migration in migrations if migration.id not in past.applied]


def to_roll_back(past: History, to: str | None, count: int | None) -> list[Migration]:
    """Newest first by the time they were applied: after a merge, that is not the order of the numbers."""
    known = {migration.id: migration for migration in files.read()}
    if unknown := [name for name in past.applied if name not in known]:
        raise MigrationError(f"{unknown[-1]} is applied but has no file here: roll it back with the code that has it")
    if applying := [name for name, begun in past.begun.items() if begun == "applying"]:
        raise MigrationError(
            f"{applying[0]} is applied half-way, so nothing is rolled back: finish it with `migrate apply`, then roll "
            "it back"
        )
    done = [known[name] for name in past.applied]
    if to is None:
        if count is None and past.failed is not None and done:
            raise MigrationError(
                f"The last command failed to apply {past.failed} and nothing of that is there; to roll back "
                f"{done[-1].id}, which was applied before it, give --count 1"
            )
        count = count or 1
        if count > len(done):
            raise MigrationError(f"There are only {len(done)} applied migrations to roll back")
        plan = done[len(done) - count :]
    elif to == "0":
        plan = done
    else:
        last = tuple(known.values())[files.find(tuple(known.values()), to)]
        if last not in done:
            raise MigrationError(f"{last.id} is not applied: see `migrate status`")
        plan = done[done.index(last) + 1 :]
    for migration in plan:
        if migration.rollback is None:
            raise MigrationError(f"{migration.id} has no rollback file")
    return plan[::-1]


@contextmanager
def explained() -> Generator[None]:
    """An error of the database becomes a MigrationError."""
    try:
        yield
    except psycopg.Error as error:
        raise MigrationError(f"The database refused: {first_line(error)} (SQLSTATE {error.sqlstate})") from error
