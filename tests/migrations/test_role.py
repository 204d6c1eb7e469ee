"""The service's role: each statement runs with what tasks_service has, fails without any part of it, and nothing else
is allowed.
"""

from collections.abc import Callable, Iterator
from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg import pq, sql

from service.database import Statement
from service.monitoring.expired_records import EXPIRED_RECORDS
from service.operations import catalog, embedded
from service.operations.prune import CITUS, PRUNE, PRUNE_CITUS
from service.tasks.queries import STATEMENTS
from tests.support.databases import named

pytestmark = pytest.mark.migrations

SNAPSHOT = catalog.snapshot()
GRANTS = SNAPSHOT.grants if SNAPSHOT else set[str]()
ALL: list[Statement[Any]] = [*STATEMENTS, CITUS, PRUNE, PRUNE_CITUS, EXPIRED_RECORDS]

# A value for each parameter that any statement has. Task 1 of user u is there, and a record of the key `old`.
VALUES: dict[str, object] = {
    "user_id": "u",
    "task_id": 1,
    "newest": 10,
    "rows": 10,
    "title": "New title",
    "description": "New description",
    "completed": True,
    "sets_description": True,
    "versions": None,
    "excluded_versions": None,
    "key": "old",
    "fingerprint": b"\x01",
    "tasks": b'[{"title": "a", "description": null, "completed": false}]',
}


@pytest.fixture(scope="module")
def member(cluster: embedded.Embedded) -> Iterator[str]:
    """A login that is a member of tasks_service."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE tasks_app LOGIN IN ROLE tasks_service")
        yield "tasks_app"
        connection.execute("DROP ROLE tasks_app")


@pytest.fixture(scope="module")
def url(clone: Callable[[], str]) -> str:
    """A database with a task in it, an old idempotency record, and a table that is none of the service's."""
    url = clone()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE secrets (secret text)")
        connection.execute("INSERT INTO users (id, email) VALUES ('u', 'u@example.com')")
        connection.execute("INSERT INTO tasks (user_id, title) VALUES ('u', 'Title')")
        connection.execute(
            "INSERT INTO idempotency_keys (user_id, operation, key, fingerprint, task_ids, created_at) "
            "VALUES ('u', 'create', 'old', '\\x00', ARRAY[1], now() - interval '2 days')"
        )
    return url


@pytest.fixture
def service(url: str, member: str) -> Iterator[psycopg.Connection[Any]]:
    """The service's connection, on which nothing lasts."""
    with psycopg.connect(url, user=member) as connection:
        yield connection
        connection.rollback()


def run(connection: psycopg.Connection[Any], statement: Statement[Any]) -> str | None:
    """Runs it as the lanes do, in the transaction that is open. Its SQLSTATE, None where it went well."""
    values = statement.encode(tuple(VALUES[name] for name in statement.parameters))
    result = connection.pgconn.exec_params(statement.text(), values)
    if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        return None
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    assert state
    return state.decode()


@pytest.mark.parametrize("statement", ALL, ids=[statement.name for statement in ALL])
def test_each_statement_runs(service: psycopg.Connection[Any], statement: Statement[Any]) -> None:
    service.execute("SELECT 1")  # begins the transaction
    assert run(service, statement) is None


# To read which migrations are applied is for `check` and for the start, not for a statement.
@pytest.mark.parametrize("grant", sorted(GRANTS - {"SELECT on _yoyo_migration"}))
def test_no_privilege_is_more_than_a_statement_needs(url: str, member: str, grant: str) -> None:
    privilege, _, what = grant.split(" ")
    table, _, column = what.partition(".")
    revoke = sql.SQL("REVOKE {} {} ON {} {} FROM tasks_service").format(
        sql.SQL(cast(LiteralString, privilege)),
        sql.SQL("({})").format(sql.Identifier(column)) if column else sql.SQL(""),
        sql.SQL("SEQUENCE" if table.endswith("_seq") else "TABLE"),
        sql.Identifier(table),
    )
    with psycopg.connect(url) as owner:
        owner.execute(revoke)
        owner.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(member)))
        refused = set[str | None]()
        for statement in ALL:
            owner.execute("SAVEPOINT before")
            refused.add(run(owner, statement))
            owner.execute("ROLLBACK TO before")
        owner.rollback()
    assert refused == {None, "42501"}


@pytest.mark.parametrize(
    "attempt",
    [
        "SELECT email FROM users",
        "SELECT created_at FROM users",
        "SELECT secret FROM secrets",
        "SELECT operation FROM _yoyo_log",
        "SELECT holder FROM yoyo_lock",
        "SELECT last_value FROM tasks_id_seq",
        "SELECT setval('tasks_id_seq', 1)",
        "INSERT INTO users (id, email) VALUES ('v', 'v@example.com')",
        "INSERT INTO tasks (user_id, title, version) VALUES ('u', 'a', 9)",
        "INSERT INTO tasks (user_id, title, created_at) VALUES ('u', 'a', now())",
        "INSERT INTO _yoyo_migration (migration_hash) VALUES ('x')",
        "UPDATE tasks SET user_id = 'v' WHERE user_id = 'u'",
        "UPDATE tasks SET created_at = now() WHERE user_id = 'u'",
        "UPDATE users SET email = null WHERE id = 'u'",
        "DELETE FROM users WHERE id = 'u'",
        "DELETE FROM _yoyo_migration",
        "TRUNCATE tasks",
        "DROP TABLE tasks",
        "ALTER TABLE tasks ADD COLUMN a text",
        "CREATE TABLE mine (n int)",
        "CREATE INDEX ON tasks (title)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "GRANT tasks_service TO tasks",
        "SET ROLE tasks",
        "SET session_replication_role = replica",
        "COPY tasks (title) TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)
def test_everything_else_is_refused(service: psycopg.Connection[Any], attempt: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        service.execute(attempt.encode())


def test_the_role_cannot_log_in(url: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(url, user="tasks_service")


def test_a_role_that_is_there_already_is_used(cluster: embedded.Embedded, clone: Callable[[], str]) -> None:
    """Every database of this cluster was migrated with the one role that the first of them made."""
    with psycopg.connect(named(cluster.url, "tasks")) as connection:
        count = connection.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'tasks_service'").fetchone()
    assert count == (1,)
