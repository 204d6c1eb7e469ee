"""With `tasks` partitioned by hash of its user, schema and statements stay as they are, and each touches one partition.

The API's tests run on such a database with TASKS_TEST_PARTITIONED=1.
"""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from service.database import Statement
from service.operations import catalog
from service.operations.migrate import session
from service.tasks.queries import STATEMENTS
from tests.migrations.test_role import VALUES
from tests.support.partitioned import PARTS, partition

pytestmark = pytest.mark.migrations

USERS = [f"user-{n}" for n in range(20)]


@pytest.fixture(scope="module")
def url(clone: Callable[[], str]) -> str:
    """A partitioned database with a few tasks of some users, spread over all partitions."""
    url = clone()
    partition(url)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO users (id) SELECT unnest(%s::text [])", (USERS,))
        connection.execute(
            "INSERT INTO tasks (user_id, title, completed) "
            "SELECT 'user-' || n %% %s, 'Task ' || n, n %% 3 = 0 FROM generate_series(1, 400) AS n",
            (len(USERS),),
        )
        parts = connection.execute("SELECT count(DISTINCT tableoid) FROM tasks").fetchone()
        assert parts == (PARTS,)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")
    return url


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection on which nothing lasts."""
    with psycopg.connect(url) as connection:
        yield connection
        connection.rollback()


def test_the_schema_is_the_same(url: str) -> None:
    snapshot = catalog.snapshot()
    assert snapshot
    with session.connect(url) as connected:
        assert catalog.drift(catalog.facts(connected), snapshot.facts) == []
        assert catalog.missing(catalog.privileges(connected, catalog.ROLE), snapshot.grants) == []


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("statement", STATEMENTS, ids=[statement.name for statement in STATEMENTS])
def test_each_statement_touches_one_partition(
    connection: psycopg.Connection[Any], statement: Statement[Any], plan: str
) -> None:
    connection.execute(f"SET plan_cache_mode = {plan}".encode())
    connection.execute(b"PREPARE asked AS " + statement.text())
    for user in USERS:
        (home,) = partitions(connection, user)
        (task,) = connection.execute("SELECT max(id) FROM tasks WHERE user_id = %s", (user,)).fetchone() or (None,)
        values = VALUES | {"user_id": user, "task_id": task, "newest": task, "key": f"key of {user}"}
        sent = statement.encode(tuple(values[name] for name in statement.parameters))
        literals = ", ".join(map(literal, sent))
        row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked ({literals})".encode()).fetchone()
        assert row
        assert touched(row[0][0]["Plan"]) <= {home}
        if "INSERT INTO {schema}.tasks" not in statement.sql:
            assert touched(row[0][0]["Plan"]) == {home}
        assert partitions(connection, user) <= {home}  # where what it wrote is


def partitions(connection: psycopg.Connection[Any], user: str) -> set[str]:
    rows = connection.execute("SELECT DISTINCT tableoid::regclass::text FROM tasks WHERE user_id = %s", (user,))
    return {row[0] for row in rows.fetchall()}


def touched(node: dict[str, Any]) -> set[str]:
    """The partitions that the plan's nodes really read or wrote."""
    found = {node["Relation Name"]} if node.get("Actual Loops") and "Relation Name" in node else set()
    below = [touched(child) for child in node.get("Plans", [])]
    return {name for name in found.union(*below) if name.startswith("tasks_")}


def literal(value: bytes | None) -> str:
    return "NULL" if value is None else "'" + value.decode().replace("'", "''") + "'"
