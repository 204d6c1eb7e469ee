"""All that is taken from yoyo: how a file is read, and the tables that its own command reads, too."""
# yoyo has no type hints.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from pathlib import Path
from typing import Any

import psycopg
from yoyo import internalmigrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import default_migration_table, get_migration_hash, read_sql_migration


def split(path: Path) -> tuple[dict[str, str], list[str]]:
    """A file's directives (`depends`, `transactional`) and its statements."""
    directives, _, statements = read_sql_migration(str(path))
    return directives, statements


def digest(migration_id: str) -> str:
    """The key of a migration in yoyo's tables: of its id, not of what is in it."""
    return str(get_migration_hash(migration_id))


def make_tables(connection: psycopg.Connection[Any]) -> None:
    """Makes yoyo's tables, or brings those of an older yoyo up to date."""
    backend = _Backend(connection)
    if internalmigrations.needs_upgrading(backend):
        internalmigrations.upgrade(backend)


class _Backend(PostgresqlPsycopgBackend):
    """yoyo on a connection that is there already, which spares its probe tables, too."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._ours = connection
        super().__init__(DatabaseURI("postgresql+psycopg", None, None, None, None, None, {}), default_migration_table)

    def connect(self, dburi: object) -> psycopg.Connection[Any]:
        return self._ours
