"""The plans that the statements get: as prepared (generic, whatever the values), on 100,000 tasks of 1000 users.

A statement that reads a table from end to end, or sorts what an index has in order, fails here and not in production.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from service.database import Statement
from service.monitoring.expired_records import EXPIRED_RECORDS
from service.operations.prune import PRUNE
from service.tasks.queries import STATEMENTS

USERS = 1000
TASKS = 100_000

FILL = f"""
INSERT INTO users (id) SELECT 'user-' || n FROM generate_series(1, {USERS}) AS n;
INSERT INTO tasks (user_id, title, completed)
SELECT 'user-' || (n % {USERS} + 1), 'task ' || n, n % 10 < 7 FROM generate_series(1, {TASKS}) AS n;
INSERT INTO idempotency_keys (user_id, operation, key, fingerprint, task_ids, created_at)
SELECT 'user-' || (n % {USERS} + 1), 'create', 'key-' || n, '\\x00', ARRAY[n], now() - n * interval '10 seconds'
FROM generate_series(1, 20000) AS n;
"""


class Use(NamedTuple):
    """How a plan comes by a table's rows."""

    table: str
    node: str
    by: str


TASK = Use("tasks", "Index Scan", "tasks_pkey")

# What each statement reads, in any order. An INSERT looks for conflicts by another index: see CONFLICTS.
READS: dict[str, set[Use]] = {
    "get": {TASK},
    "list": {TASK},
    "list_open": {Use("tasks", "Index Scan", "tasks_open_idx")},
    "list_completed": {TASK},
    "update": {TASK},
    "toggle": {TASK},
    "flip": {TASK},
    "delete": {TASK},
    "create": set(),
    "create_idempotent": set(),
    "create_many": set(),
    "create_many_idempotent": set(),
}
CONFLICTS = {
    "create": {"users_pkey"},
    "create_idempotent": {"users_pkey", "idempotency_keys_pkey"},
    "create_many": {"users_pkey"},
    "create_many_idempotent": {"users_pkey", "idempotency_keys_pkey"},
}


@pytest.fixture(scope="module")
def connection(clone: Callable[[], str]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(clone(), autocommit=True) as connection:
        connection.execute(FILL.encode())
        connection.execute("VACUUM ANALYZE")
        connection.execute("SET plan_cache_mode = force_generic_plan")
        yield connection


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explain(connection: psycopg.Connection[Any], statement: Statement[Any]) -> list[dict[str, Any]]:
    """The nodes of the statement's generic plan, which the service's statements get from their sixth execution on."""
    values = ", ".join(["NULL"] * len(statement.parameters))
    connection.execute(b"PREPARE wanted AS " + statement.text())
    try:
        row = connection.execute(f"EXPLAIN (FORMAT JSON) EXECUTE wanted({values})".encode()).fetchone()
    finally:
        connection.execute("DEALLOCATE wanted")
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return list(nodes(plan[0]["Plan"]))


def test_every_statement_has_its_plan_pinned() -> None:
    assert set(READS) == {statement.name for statement in STATEMENTS}


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_each_statement_reads_by_its_index(connection: psycopg.Connection[Any], statement: Statement[Any]) -> None:
    plan = explain(connection, statement)
    scans = {
        Use(node["Relation Name"], node["Node Type"], node.get("Index Name", ""))
        for node in plan
        if "Relation Name" in node and node["Node Type"] != "ModifyTable"
    }
    assert scans == READS[statement.name]
    assert {name for node in plan for name in node.get("Conflict Arbiter Indexes", [])} == CONFLICTS.get(
        statement.name, set()
    )


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_every_condition_on_a_key_is_one_of_the_index(
    connection: psycopg.Connection[Any], statement: Statement[Any]
) -> None:
    """user_id and id narrow the index itself: a filter would read and throw away."""
    for node in explain(connection, statement):
        if node.get("Index Name") in ("tasks_pkey", "tasks_open_idx"):
            assert "user_id = " in node["Index Cond"]
            assert "id " in node["Index Cond"].replace("user_id", "")
            assert "user_id" not in node.get("Filter", "")


@pytest.mark.parametrize("name", ["list", "list_open", "list_completed"])
def test_a_list_is_read_in_order_and_not_sorted(connection: psycopg.Connection[Any], name: str) -> None:
    (statement,) = (statement for statement in STATEMENTS if statement.name == name)
    plan = explain(connection, statement)
    assert [node["Node Type"] for node in plan] == ["Limit", "Index Scan"]
    assert plan[1]["Scan Direction"] == "Backward"


def test_pruning_finds_what_is_old_by_its_index(connection: psycopg.Connection[Any]) -> None:
    assert "idempotency_keys_created_at_idx" in [node.get("Index Name") for node in explain(connection, PRUNE)]


def test_records_to_prune_are_counted_in_their_index_alone(connection: psycopg.Connection[Any]) -> None:
    (scan,) = [node for node in explain(connection, EXPIRED_RECORDS) if "Relation Name" in node]
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Only Scan", "idempotency_keys_created_at_idx")
