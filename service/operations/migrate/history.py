"""What a database remembers of its migrations, read without changing anything."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import psycopg

from service.operations.migrate.files import Migration

# `to_jsonb` because yoyo's own table has no column for the checksum; it is added with the first migration applied here.
_APPLIED = """
SELECT migration_id, applied_at_utc, to_jsonb(m) ->> 'checksum' FROM _yoyo_migration AS m ORDER BY migration_id
"""


class State(msgspec.Struct, frozen=True):
    """One migration as the database sees it. `changed`: the file is not the one that was applied; `unknown`: applied,
    but this code has no such file, so the schema is ahead of it.
    """

    id: str
    state: Literal["applied", "pending", "changed", "unknown"]
    applied_at: datetime | None = None


class Applied(msgspec.Struct, frozen=True):
    at: datetime
    checksum: str | None  # None where plain yoyo applied it


def read(connection: psycopg.Connection[Any]) -> dict[str, Applied]:
    """What is applied, by id."""
    if not exists(connection, "_yoyo_migration"):
        return {}
    rows = connection.execute(_APPLIED).fetchall()
    return {name: Applied(at.replace(tzinfo=UTC), checksum) for name, at, checksum in rows}


def exists(connection: psycopg.Connection[Any], table: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return row is not None and bool(row[0])


def states(migrations: tuple[Migration, ...], applied: dict[str, Applied]) -> list[State]:
    """Every migration that the code or the database knows, in order."""
    known = {migration.id: migration for migration in migrations}
    found: list[State] = []
    for name in sorted(known.keys() | applied.keys()):
        record = applied.get(name)
        if record is None:
            found.append(State(name, "pending"))
        elif name not in known:
            found.append(State(name, "unknown", record.at))
        else:
            changed = record.checksum not in (None, known[name].checksum)
            found.append(State(name, "changed" if changed else "applied", record.at))
    return found


def compare(known: list[str], applied: list[str]) -> tuple[list[str], list[str]]:
    """The ids that are pending, and those that are ahead of the code: applied, but with no file here."""
    return [name for name in known if name not in applied], [name for name in applied if name not in known]
