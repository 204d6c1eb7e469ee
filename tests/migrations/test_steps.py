"""Every migration goes up, down and up again, and leaves the same schema."""

import psycopg
import pytest

from service import migrate
from tests.migrations.conftest import applied, schema

IDS = migrate.ids()

# Data that is there before a migration is taken back, by the migration that makes the place for it.
ROWS = {
    "0001.create-users": "INSERT INTO users (id) SELECT 'user-' || n FROM generate_series(1, 10) AS n",
    "0002.create-tasks": "INSERT INTO tasks (user_id, title, completed) "
    "SELECT 'user-' || (1 + n % 10), 'Task ' || n, n % 3 = 0 FROM generate_series(1, 100) AS n",
    "0004.create-idempotency-keys": "INSERT INTO idempotency_keys (user_id, operation, key, fingerprint, task_ids) "
    "SELECT 'user-' || n, 'create', 'key', '\\x00', ARRAY[n] FROM generate_series(1, 10) AS n",
}

# The migrations that can be taken back with every row still there.
LOSSLESS = {"0003.index-open-tasks", "0005.create-service-role"}


def rows(url: str) -> dict[str, list[tuple[object, ...]]]:
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND relname NOT LIKE '%yoyo%'"
        ).fetchall()
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for (name,) in tables}


@pytest.fixture
def filled(empty: str, request: pytest.FixtureRequest) -> str:
    """A database migrated up to and with the parameter, with rows in every table."""
    for name in IDS[: IDS.index(request.param) + 1]:
        migrate.apply(empty, to=name)
        if name in ROWS:
            with psycopg.connect(empty) as connection:
                connection.execute(ROWS[name])
    return empty


@pytest.mark.parametrize("filled", IDS, indirect=True)
def test_a_step_down_and_up_again_leaves_the_same_schema(filled: str) -> None:
    name = applied(filled)[-1]
    before, data = schema(filled), rows(filled)
    assert migrate.rollback(filled) == [name]
    assert schema(filled) != before
    assert migrate.apply(filled, to=name) == [name]
    assert schema(filled) == before
    after = rows(filled)
    if name in LOSSLESS:
        assert after == data
    else:
        kept = {table: content for table, content in after.items() if content}
        assert kept == {table: data[table] for table in kept}
        assert len(kept) == len(after) - 1  # the rows of the one table that was taken back are gone


@pytest.mark.parametrize("filled", IDS[-1:], indirect=True)
def test_all_the_way_down_and_up_again_leaves_the_same_schema(filled: str) -> None:
    before = schema(filled)
    assert migrate.rollback(filled, to="0") == IDS[::-1]
    assert rows(filled) == {}
    assert migrate.apply(filled) == IDS
    assert schema(filled) == before


def test_step_by_step_ends_where_one_go_ends(empty: str, undisturbed: str) -> None:
    for name in IDS:
        assert migrate.apply(empty, to=name) == [name]
    assert schema(empty) == undisturbed
