"""Databases of the tests' clusters: how they are made, and what tests do in them behind the service's back."""

from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from service.operations import migrate
from tests.support.partitioned import partition
from tests.support.waiting import until, wait_until

TEMPLATE = "template_tasks"
_BLOCKED = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
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
    """The user's idempotency records are 24 hours older, or some time less."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE idempotency_keys SET created_at = created_at - interval '24 hours' + %s::interval "
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
