"""Every statement that touches tasks is bound to its user: whatever a handler does, it reaches nobody else's."""

import pytest

from service.database import Statement
from service.tasks.queries import STATEMENTS
from tests.sql.ownership import OWNED, complaints

BOUND = [
    "SELECT 1 FROM tasks WHERE user_id = $1",
    "SELECT 1 FROM tasks WHERE $1 = user_id AND id = $2",
    "SELECT 1 FROM tasks AS t WHERE t.user_id = $1::text AND (t.completed OR t.id = $2)",
    "SELECT 1 FROM users",
    "SELECT 1 FROM tasks a JOIN tasks b ON a.id = b.id WHERE a.user_id = $1 AND b.user_id = $1",
    "UPDATE tasks SET title = $2 WHERE user_id = $1 AND (id = $3 AND completed)",
    "DELETE FROM tasks WHERE user_id = $1",
    "INSERT INTO tasks (title, user_id) VALUES ($2, $1), ($3, $1)",
    "INSERT INTO tasks (user_id, title) SELECT $1, x FROM unnest($2) AS x",
    "WITH a AS (DELETE FROM tasks WHERE user_id = $1 RETURNING id) SELECT * FROM a",
    "INSERT INTO idempotency_keys (user_id, key) VALUES ($1, $2) ON CONFLICT (user_id, key) DO UPDATE SET key = $2",
]

LOOSE = [
    "SELECT 1 FROM tasks",
    "SELECT 1 FROM tasks WHERE id = $2",
    "SELECT 1 FROM tasks WHERE user_id = $2",
    "SELECT 1 FROM tasks WHERE user_id = 'anna'",
    "SELECT 1 FROM tasks WHERE user_id <> $1",
    "SELECT 1 FROM tasks WHERE user_id >= $1",
    "SELECT 1 FROM tasks WHERE user_id LIKE $1",
    "SELECT 1 FROM tasks WHERE user_id = ANY ($1)",
    "SELECT 1 FROM tasks WHERE user_id IN ($1, 'anna')",
    "SELECT 1 FROM tasks WHERE user_id = $1 || ''",
    "SELECT 1 FROM tasks WHERE lower(user_id) = $1",
    "SELECT 1 FROM tasks WHERE title = $1",
    "SELECT 1 FROM tasks WHERE NOT user_id = $1",
    "SELECT 1 FROM tasks WHERE user_id = $1 OR id = $2",
    "SELECT 1 FROM tasks WHERE (user_id = $1 AND completed) OR id = $2",
    "SELECT 1 FROM tasks WHERE user_id = user_id AND $1 = $1",
    "SELECT user_id = $1 FROM tasks",
    "SELECT 1 FROM tasks HAVING bool_and(user_id = $1)",
    "SELECT 1 FROM public.tasks",
    "SELECT 1 FROM ONLY tasks",
    "TABLE tasks",
    "SELECT 1 FROM users, tasks WHERE user_id = $1",  # whose user_id that is depends on the schema
    "SELECT 1 FROM users AS tasks2, tasks WHERE tasks2.user_id = $1",
    "SELECT 1 FROM tasks a JOIN tasks b ON a.id = b.id WHERE a.user_id = $1",
    "SELECT 1 FROM tasks a LEFT JOIN tasks b ON b.user_id = $1 WHERE a.user_id = $1",
    "SELECT 1 FROM users JOIN LATERAL (SELECT 1 FROM tasks) AS t ON users.id = $1",
    "SELECT (SELECT count(*) FROM tasks) FROM tasks WHERE user_id = $1",
    "SELECT 1 FROM tasks WHERE user_id = $1 AND id IN (SELECT id FROM tasks)",
    "SELECT 1 FROM tasks WHERE user_id = $1 UNION ALL SELECT 1 FROM tasks",
    "SELECT 1 FROM tasks WHERE user_id = $1 ORDER BY (SELECT max(id) FROM tasks)",
    "WITH a AS (SELECT 1 FROM tasks) SELECT 1 FROM tasks WHERE user_id = $1",
    "WITH tasks AS (SELECT $1 AS user_id) SELECT 1 FROM tasks WHERE user_id = $1",
    "UPDATE tasks SET title = $2 WHERE id = $3",
    "UPDATE tasks SET user_id = $2 WHERE user_id = $1",
    "UPDATE tasks SET title = t.title FROM tasks AS t WHERE tasks.user_id = $1",
    "DELETE FROM tasks",
    "DELETE FROM tasks WHERE id = $2 RETURNING user_id = $1",
    "DELETE FROM tasks USING users WHERE users.id = $1",
    "INSERT INTO tasks (user_id, title) VALUES ($2, $1)",
    "INSERT INTO tasks (user_id, title) VALUES ($1, $2), ('anna', $2)",
    "INSERT INTO tasks (title) VALUES ($1)",
    "INSERT INTO tasks VALUES ($1, $2)",
    "INSERT INTO tasks DEFAULT VALUES",
    "INSERT INTO tasks (user_id, title) SELECT id, $1 FROM users",
    "INSERT INTO tasks (user_id, title) SELECT $1, title FROM tasks",
    "INSERT INTO tasks (user_id, title) SELECT $1, 'x' UNION ALL SELECT 'anna', 'x'",
    "INSERT INTO tasks (user_id, id) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET title = $3",
    "INSERT INTO tasks (user_id, id) VALUES ($1, $2) ON CONFLICT ON CONSTRAINT tasks_pkey DO UPDATE SET title = $3",
    "INSERT INTO tasks (user_id, id) VALUES ($1, $2) ON CONFLICT (user_id, id) DO UPDATE SET user_id = $3",
    "MERGE INTO tasks USING users ON user_id = $1 WHEN MATCHED THEN DELETE",
    "TRUNCATE tasks",
    "LOCK TABLE tasks",
    "SELECT 1 FROM tasks WHERE user_id = $1; DELETE FROM tasks",
    "DELETE FROM idempotency_keys WHERE key = $2",
]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_each_statement_is_bound_to_its_user(statement: Statement[object]) -> None:
    assert any(table in statement.sql for table in OWNED)
    assert complaints(statement.text().decode(), statement.parameters.index("user_id") + 1) == []


@pytest.mark.parametrize("sql", BOUND)
def test_the_proof_accepts_what_is_bound(sql: str) -> None:
    assert complaints(sql, 1) == []


@pytest.mark.parametrize("sql", LOOSE)
def test_the_proof_refuses_what_is_not(sql: str) -> None:
    assert complaints(sql, 1) != []


def test_maintenance_touches_no_task() -> None:
    from service.operations.prune import PRUNE

    assert "tasks" not in PRUNE.sql
