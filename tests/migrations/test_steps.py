"""Every migration goes up, down and up again, and leaves the same schema."""

import psycopg
import pytest

from service.operations import migrate
from tests.support.databases import schema

pytestmark = pytest.mark.migrations

IDS = migrate.ids()

# Data that is there before a migration is rolled back, by the migration that makes the place for it.
ROWS = {
    "0001.create-users": "INSERT INTO users (id) SELECT 'user-' || n FROM generate_series(1, 10) AS n",
    "0002.create-tasks": "INSERT INTO tasks (user_id, title, completed) "
    "SELECT 'user-' || (1 + n % 10), 'Task ' || n, n % 3 = 0 FROM generate_series(1, 100) AS n",
    "0004.create-idempotency-keys": "INSERT INTO idempotency_keys (user_id, operation, key, fingerprint, task_ids) "
    "SELECT 'user-' || n, 'create', 'key', '\\x00', ARRAY[n] FROM generate_series(1, 10) AS n",
}

# The migrations that can be rolled back with every row still there.
LOSSLESS = {
    "0003.index-open-tasks",
    "0005.create-service-role",
    "0006.bound-times",
    "0007.validate-times",
    "0008.drop-email-key",
}


def rows(url: str) -> dict[str, list[tuple[object, ...]]]:
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND relname NOT LIKE '%yoyo%'"
        ).fetchall()
        return {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2".encode()).fetchall() for (name,) in tables
        }


def fill(url: str, name: str) -> None:
    """Rows for the place that this migration has just made, if it makes one."""
    if name in ROWS:
        with psycopg.connect(url) as connection:
            connection.execute(ROWS[name].encode())


def test_each_step_down_and_up_again_leaves_the_same_schema(empty: str, undisturbed: str) -> None:
    below = schema(empty)
    for name in IDS:
        assert migrate.apply(empty, to=name) == [name]
        fill(empty, name)
        before, data = schema(empty), rows(empty)
        assert migrate.rollback(empty) == [name]
        assert schema(empty) == below or name == IDS[0]  # whose rollback leaves yoyo's own tables
        assert migrate.apply(empty, to=name) == [name]
        assert schema(empty) == before
        after = rows(empty)
        if name in LOSSLESS:
            assert after == data
        else:
            kept = {table: content for table, content in after.items() if content}
            assert kept == {table: data[table] for table in kept}
            assert len(kept) == len(after) - 1  # the rows of the one table that was rolled back are gone
        fill(empty, name)
        below = before
    assert below == undisturbed


def test_all_the_way_down_and_up_again_leaves_the_same_schema(migrated: str, undisturbed: str) -> None:
    for name in IDS:
        fill(migrated, name)
    assert migrate.rollback(migrated, to="0") == IDS[::-1]
    assert rows(migrated) == {}
    assert migrate.apply(migrated) == IDS
    assert schema(migrated) == undisturbed
