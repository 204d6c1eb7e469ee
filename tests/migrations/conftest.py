"""Databases that nobody migrated yet, and what a database's schema looks like from outside."""

import subprocess
from collections.abc import Callable
from itertools import count

import psycopg
import pytest

from service import embedded
from tests.conftest import named

_numbers = count(1)


@pytest.fixture(scope="session")
def make_empty(cluster: embedded.Embedded) -> Callable[[], str]:
    """Makes an empty database and returns its URL."""

    def make() -> str:
        name = f"empty_{next(_numbers)}"
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return named(cluster.url, name)

    return make


@pytest.fixture
def empty(make_empty: Callable[[], str]) -> str:
    """The URL of an empty database."""
    return make_empty()


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
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname"
        ).fetchall()
    return [row[0] for row in rows]
