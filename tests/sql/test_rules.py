"""Every statement keeps the rules of rules.py: Citus accepts it, and it calls functions of pg_catalog only."""

from collections.abc import Callable

import psycopg
import pytest

from service.database import Statement
from service.tasks.queries import STATEMENTS
from tests.sql.rules import Volatility, broken

KEPT = [
    "UPDATE tasks SET updated_at = greatest(updated_at, pg_catalog.statement_timestamp()) WHERE user_id = $1",
    "UPDATE tasks SET title = pg_catalog.lower(title) WHERE user_id = $1",
    "UPDATE tasks SET updated_at = pg_catalog.statement_timestamp() - interval '1 hour' WHERE user_id = $1",
    "INSERT INTO idempotency_keys AS kept (user_id, operation, key, fingerprint, task_ids) "
    "VALUES ($1, 'create', $2, 'x', '{}') ON CONFLICT (user_id, operation, key) DO UPDATE "
    "SET key = CASE WHEN excluded.created_at - kept.created_at < interval '24 hours' THEN $2 END",
    "INSERT INTO tasks (user_id, title) SELECT $1, pg_catalog.now()::text",
    "SELECT id FROM tasks WHERE user_id = $1 FOR SHARE",
]
BROKEN = {
    "UPDATE tasks SET updated_at = pg_catalog.clock_timestamp() WHERE user_id = $1": "the volatile clock_timestamp()",
    "UPDATE tasks SET completed = true WHERE user_id = $1 AND pg_catalog.random() > 0.5": "the volatile random()",
    "UPDATE tasks SET title = pg_catalog.to_char(created_at, 'Y') WHERE user_id = $1": "stable to_char() with a column",
    "UPDATE tasks SET updated_at = updated_at + interval '1 hour' WHERE user_id = $1": "adds an interval to a column",
    "UPDATE tasks SET version = 1 WHERE user_id = $1 AND created_at < created_at - $2::interval": "adds an interval",
    "UPDATE tasks SET user_id = $2 WHERE user_id = $1": "the distribution column user_id",
    "UPDATE users SET id = $2 WHERE id = $1": "the distribution column id",
    "WITH a AS (UPDATE tasks SET updated_at = pg_catalog.clock_timestamp() WHERE user_id = $1 RETURNING id) "
    "SELECT id FROM a": "the volatile clock_timestamp()",
    "INSERT INTO users (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET created_at = "
    "pg_catalog.now()": "now(), which is not immutable",
    "INSERT INTO users (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET created_at = "
    "CURRENT_TIMESTAMP": "current_timestamp(), which is not immutable",
    "INSERT INTO users (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET created_at = "
    "excluded.created_at - interval '1 day'": "adds an interval, which is not immutable",
    "INSERT INTO users (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET id = $2": "DO UPDATE "
    "changes the distribution column",
    "INSERT INTO tasks (user_id, title) VALUES ($1, (SELECT 'x'))": "a subquery within",
    "INSERT INTO tasks (user_id) VALUES ($1) RETURNING pg_catalog.now()": "RETURNING calls now()",
    "SELECT lower(title) FROM tasks WHERE user_id = $1": "write pg_catalog.lower()",
    "INSERT INTO tasks (user_id, id) VALUES ($1, nextval('tasks_id_seq'))": "write pg_catalog.nextval()",
}


@pytest.fixture(scope="module")
def volatility(clone: Callable[[], str]) -> Callable[[str], Volatility]:
    """The least favourable volatility among pg_catalog's functions of a name."""
    with psycopg.connect(clone()) as connection:
        rows = connection.execute(
            "SELECT proname, max(CASE provolatile WHEN 'i' THEN 0 WHEN 's' THEN 1 ELSE 2 END) FROM pg_catalog.pg_proc "
            "WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY proname"
        ).fetchall()
    kinds: tuple[Volatility, ...] = ("immutable", "stable", "volatile")
    found = {name: kinds[rank] for name, rank in rows}
    return found.__getitem__


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_statement_keeps_every_rule(statement: Statement[object], volatility: Callable[[str], Volatility]) -> None:
    assert broken(statement.text().decode(), volatility) == []


@pytest.mark.parametrize("sql", KEPT)
def test_rules_accept_what_citus_accepts(sql: str, volatility: Callable[[str], Volatility]) -> None:
    assert broken(sql, volatility) == []


@pytest.mark.parametrize(("sql", "complaint"), BROKEN.items())
def test_rules_name_what_breaks_them(sql: str, complaint: str, volatility: Callable[[str], Volatility]) -> None:
    assert any(complaint in sentence for sentence in broken(sql, volatility))


def test_locking_clause_over_several_shards_breaks_a_rule(volatility: Callable[[str], Volatility]) -> None:
    sql = "SELECT key FROM idempotency_keys WHERE created_at < $1 FOR UPDATE SKIP LOCKED"
    assert broken(sql, volatility, single_shard=False) == ["a locking clause covers several shards"]
