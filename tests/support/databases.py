"""Databases of the tests' clusters: how they are made, and what tests do in them behind the service's back."""

import subprocess
from itertools import count
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from service.operations import embedded, migrate
from tests.support.partitioned import partition
from tests.support.waiting import until, wait_until

TEMPLATE = "template_tasks"
_BLOCKED = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_OURS: LiteralString = "relnamespace = 'public'::regnamespace"
_numbers = count(1)


def named(url: str, database: str) -> str:
    """A conninfo of another database of the same cluster."""
    return make_conninfo(url, dbname=database)


def create(cluster_url: str, name: str = "", template: str = "") -> str:
    """Makes a database, empty or a copy of `template`, under a new name where none is given. Returns its conninfo."""
    name = name or f"test_{next(_numbers)}"
    statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template:
        statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
    with psycopg.connect(cluster_url, autocommit=True) as connection:
        connection.execute(statement)
    return named(cluster_url, name)


def create_template(cluster_url: str, *, partitioned: bool = False) -> str:
    """Makes the migrated database that others are copied from; nobody stays connected to it. Returns its name."""
    url = create(cluster_url, TEMPLATE)
    migrate.apply(url)
    if partitioned:
        partition(url)
    return TEMPLATE


def terminate(connection: psycopg.Connection[Any]) -> None:
    """Ends every other connection to this database."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def a_day_passes(url: str, user: str, less: str = "0 s") -> None:
    """The user's idempotency records are 24 hours old, or some time less."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE idempotency_keys SET created_at = statement_timestamp() - interval '24 hours' + %s::interval "
            "WHERE user_id = %s",
            (less, user),
        )


async def until_blocked(url: str, sessions: int = 1) -> None:
    """Returns when so many sessions of this database wait for another session's lock."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def blocked() -> bool:
            return (await connection.execute(_BLOCKED)).rowcount >= sessions

        await until(blocked)


def wait_until_blocked(url: str, sessions: int = 1) -> None:
    """The same without an event loop."""
    with psycopg.connect(url, autocommit=True) as connection:
        wait_until(lambda: connection.execute(_BLOCKED).rowcount >= sessions)


def wipe(url: str) -> None:
    """Leaves nothing of what migrations and tests make in a database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        tables = connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND " + _OURS).fetchall()
        if tables:
            connection.execute(f"DROP TABLE {', '.join(name for (name,) in tables)} CASCADE".encode())
        if connection.execute("SELECT FROM pg_roles WHERE rolname = 'tasks_service'").fetchone() is not None:
            connection.execute("REVOKE ALL ON SCHEMA public FROM tasks_service")
        connection.execute(f"ALTER DATABASE {connection.info.dbname} RESET ALL".encode())


def schema(url: str) -> str:
    """The database's schema as pg_dump writes it, and the migrations that it says are applied."""
    command = [embedded.bin_dir() / "pg_dump", "--schema-only", "--restrict-key=same", url]
    dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dump + "\n".join(applied(url))


def applied(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT to_regclass('_yoyo_migration') IS NULL").fetchone()
        if row == (True,):
            return []
        rows = connection.execute("SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc").fetchall()
    return [row[0] for row in rows]


def relations(url: str) -> list[str]:
    """Every table, index and sequence in the database."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT relname FROM pg_class WHERE " + _OURS + " ORDER BY relname").fetchall()
    return [row[0] for row in rows]
