"""Another login's functions and operators in the tables' schema never run in a statement, nor are its tables used.

PostgreSQL prefers an exact match of the argument types in any schema of the search path to a form of pg_catalog that
needs a conversion. So for every operator and function that a statement uses, this database holds a form for each pair
of types that could match exactly. Each form raises an error.
"""

# pglast types every field of every node as one that may be None.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Callable
from itertools import product

import psycopg
import pytest
from pglast import parse_sql
from psycopg import sql

from service.database import Statement
from service.monitoring.expired_records import EXPIRED_RECORDS
from service.operations.prune import PRUNE, PRUNE_CITUS
from service.tasks.queries import STATEMENTS
from tests.support.parsed import Names

TYPES = [
    *("text", "varchar", "bpchar", "name", "smallint", "integer", "bigint", "numeric", "boolean", "bytea", "interval"),
    *("timestamptz", "timestamp", "date", "json", "jsonb", "regclass", "oid", "bigint[]", "integer[]", "text[]"),
]
VALUES = {
    "get": "'u', 1",
    "list": "'u', 9, 5",
    "list_open": "'u', 9, 5",
    "list_completed": "'u', 9, 5",
    "create": "'u', 't', NULL, false",
    "create_many": """'u', '[{"title": "t", "completed": false}]'""",
    "create_idempotent": "'u', 'k', '\\x00', 't', NULL, false",
    "create_many_idempotent": """'u', 'k', '\\x00', '[{"title": "t", "completed": false}]'""",
    "update": "'u', 1, 'x', 'y', true, true, '{1}', '{9}'",
    "flip": "'u', 1",
    "toggle": "'u', 1, true, '{1,2,3}', '{9}'",
    "delete": "'u', 1, '{1,2,3,4}', '{9}'",
}


def shadows() -> list[str]:
    names = Names()
    for statement in STATEMENTS:
        names(parse_sql(statement.text().decode())[0].stmt)
    body = "RETURNS {} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a foreign function ran'; END $$"
    ddl = [f"CREATE FUNCTION public.shadow({a}, {b}) {body.format('boolean')}" for a, b in product(TYPES, TYPES)]
    ddl += [
        f"CREATE OPERATOR public.{operator} (FUNCTION = public.shadow, LEFTARG = {a}, RIGHTARG = {b})"
        for operator in sorted(names.operators)
        for a, b in product(TYPES, TYPES)
    ]
    for function in sorted(names.functions):
        ddl.append(f"CREATE FUNCTION public.{function}() {body.format('timestamptz')}")
        ddl += [f"CREATE FUNCTION public.{function}({kind}) {body.format('bigint')}" for kind in TYPES]
    return ddl


@pytest.fixture(scope="module")
def hostile(clone: Callable[[], str]) -> str:
    """A database whose schema `public` also holds another login's functions and operators."""
    url = clone()
    with psycopg.connect(url) as connection:
        for statement in shadows():
            connection.execute(statement.encode())
    return url


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_statement_calls_nothing_of_another_login(hostile: str, statement: Statement[object]) -> None:
    with psycopg.connect(hostile) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('u')")
        connection.execute("INSERT INTO tasks (user_id, title) OVERRIDING SYSTEM VALUE VALUES ('u', 't')")
        connection.execute("ALTER SEQUENCE tasks_id_seq RESTART WITH 100")
        connection.execute("UPDATE tasks SET id = DEFAULT")
        connection.execute(b"PREPARE wanted AS " + statement.text())
        connection.execute(f"EXECUTE wanted({VALUES[statement.name]})".encode())
        connection.rollback()


def test_shadows_do_run_where_a_name_is_not_qualified(hostile: str) -> None:
    """The attack is real: without `pg_catalog.`, an exact match wins."""
    with psycopg.connect(hostile) as connection, pytest.raises(psycopg.errors.RaiseException, match="foreign function"):
        connection.execute("SELECT nextval('tasks_id_seq')")


ODD = ["""Our 'odd" tasks""", "{schema}", "100%s", "größe", "select", "x" * 63]


@pytest.fixture(scope="module", params=ODD)
def renamed(request: pytest.FixtureRequest, clone: Callable[[], str]) -> tuple[str, str]:
    """A database whose tables are in a schema with a name that has to be quoted everywhere, and that name."""
    url = clone()
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL("ALTER SCHEMA public RENAME TO {}").format(sql.Identifier(request.param)))
    return url, request.param


@pytest.mark.parametrize(
    "statement", [*STATEMENTS, PRUNE, PRUNE_CITUS, EXPIRED_RECORDS], ids=lambda statement: statement.name
)
def test_statement_finds_its_tables_without_a_search_path(
    renamed: tuple[str, str], statement: Statement[object]
) -> None:
    url, schema = renamed
    with psycopg.connect(url) as connection:
        connection.execute("SET search_path = ''")
        connection.execute(b"PREPARE wanted AS " + statement.text(schema=schema))
