"""Databases that nobody migrated yet, and what a database's schema looks like from outside."""

import subprocess
from collections.abc import Callable
from typing import LiteralString

import psycopg
import pytest

from service.operations import embedded, migrate
from tests.support.databases import create

_OURS: LiteralString = "relnamespace = 'public'::regnamespace"


@pytest.fixture(scope="session")
def make_empty(cluster: embedded.Embedded) -> Callable[[], str]:
    """Makes an empty database and returns its URL."""
    return lambda: create(cluster.url)


@pytest.fixture(scope="session")
def reused(make_empty: Callable[[], str]) -> str:
    return make_empty()


@pytest.fixture
def empty(reused: str) -> str:
    """The URL of an empty database: one for all tests, since making one takes long, and emptied for each."""
    wipe(reused)
    return reused


@pytest.fixture
def migrated(empty: str) -> str:
    """The same, migrated."""
    migrate.apply(empty)
    return empty


@pytest.fixture(scope="session")
def undisturbed(clone: Callable[[], str]) -> str:
    """What `schema` should say of a database that is migrated all the way."""
    return schema(clone())


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
