"""Which migrations a database has recorded. Changes nothing."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

from service.operations.migrate.files import Migration
from service.operations.migrate.session import Session

Kind = Literal["applied", "pending", "changed", "incomplete", "unknown"]


class State(msgspec.Struct, frozen=True):
    """One migration, by the database's record. `changed`: the file is not the one that was applied; `incomplete`: begun
    outside a transaction and not finished; `unknown`: applied, but there is no such file here, so the schema is ahead.
    """

    id: str
    state: Kind
    applied_at: datetime | None = None


class Applied(msgspec.Struct, frozen=True):
    at: datetime
    checksum: str | None  # None where plain yoyo applied it


class History(msgspec.Struct, frozen=True):
    """`applied` by id, oldest first. `begun`: what was begun outside a transaction and not finished, and in which
    direction. `failed`: the migration that the last command failed to apply, and that left nothing behind; a rollback
    that failed so leaves it applied.
    """

    applied: dict[str, Applied] = {}
    begun: dict[str, str] = {}  # "applying" or "reverting"
    failed: str | None = None


def is_recorded(session: Session) -> bool:
    """Whether yoyo's tables are there."""
    return session.fetch_one("relation", name="_yoyo_migration", schema=session.schema) is not None


def read(session: Session) -> History:
    """Raises psycopg.Error."""
    if not is_recorded(session):
        return History()
    rows = session.fetch_all("applied_migrations")
    applied = {name: Applied(at.replace(tzinfo=UTC), checksum) for name, at, checksum in rows}
    # The service's role may read which migrations are applied, and not the log.
    if session.fetch_one("relation", name="_yoyo_log", schema=session.schema) != (True,):
        return History(applied)
    operations = session.fetch_all("last_operations")
    begun = {name: operation for name, operation in operations if operation in ("applying", "reverting")}
    failed = next((name for name, operation in operations[:1] if operation == "failed" and name not in applied), None)
    return History(applied, begun, failed)


def states(migrations: tuple[Migration, ...], history: History) -> list[State]:
    """Every migration that the files or the database hold, in order."""
    known = {migration.id: migration for migration in migrations}
    found: list[State] = []
    for name in sorted(known.keys() | history.applied.keys()):
        record = history.applied.get(name)
        if name in history.begun:
            found.append(State(name, "incomplete", record and record.at))
        elif record is None:
            found.append(State(name, "pending"))
        elif name not in known:
            found.append(State(name, "unknown", record.at))
        else:
            same = record.checksum is None or record.checksum in (known[name].checksum, *known[name].replaces)
            found.append(State(name, "applied" if same else "changed", record.at))
    return found
