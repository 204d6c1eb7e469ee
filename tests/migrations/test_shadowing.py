"""Another login's functions and operators in the tables' schema never run as the operator.

An exact match of argument types in any schema of the search path beats pg_catalog's own form. Each foreign form here
raises an error.
"""
# pglast types every attribute of a node as optional.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalIterable=false
# pyright: reportArgumentType=false, reportReturnType=false

from collections.abc import Callable, Iterator
from itertools import product

import psycopg
import pytest
from click.testing import CliRunner
from pglast import ast, parse_sql
from pglast.visitors import Visitor
from psycopg import sql

from service.operations import migrate
from service.operations.cli import cli
from service.operations.migrate import MigrationError
from service.paths import root

pytestmark = pytest.mark.migrations

TYPES = ["text", "varchar", "name", "oid", "regclass", "integer", "bigint", "boolean", "jsonb", "timestamptz", '"char"']


class Names(Visitor):
    """The operators and functions that a text names."""

    def __init__(self) -> None:
        self.operators: set[str] = set()
        self.functions: set[str] = set()

    def visit_A_Expr(self, _: object, node: ast.A_Expr) -> None:
        self.operators.add(node.name[-1].sval)

    def visit_FuncCall(self, _: object, node: ast.FuncCall) -> None:
        self.functions.add(node.funcname[-1].sval)


def names() -> Names:
    """What the operators' commands and the migrations use."""
    found = Names()
    for path in (root() / "sql" / "operations").glob("*.sql"):
        text = path.read_text().replace("{schema}", "public").replace("%%", "%")
        text = migrate_parameters(text)
        for raw in parse_sql(text):
            found(raw.stmt)
    found.functions |= {"format", "char_length", "btrim", "now", "current_schema"}
    return found


def migrate_parameters(text: str) -> str:
    """With $1 in place of each %(name)s."""
    before, *rest = text.split("%(")
    return before + "".join("$1" + part.partition(")s")[2] for part in rest)


def shadows() -> list[str]:
    body = "RETURNS {} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a foreign function ran'; END $$"
    ddl = [f"CREATE FUNCTION public.shadow({a}, {b}) {body.format('boolean')}" for a, b in product(TYPES, TYPES)]
    ddl += [
        f"CREATE OPERATOR public.{operator} (FUNCTION = public.shadow, LEFTARG = {a}, RIGHTARG = {b})"
        for operator in sorted(names().operators)
        for a, b in product(TYPES, TYPES)
    ]
    for function in sorted(names().functions):
        ddl += [f"CREATE FUNCTION public.{function}({kind}) {body.format('text')}" for kind in TYPES]
        ddl += [f"CREATE FUNCTION public.{function}(text, {kind}) {body.format('text')}" for kind in TYPES]
    return ddl


@pytest.fixture
def shared(make_empty: Callable[[], str]) -> Iterator[str]:
    """An empty database in whose schema another login has made its functions and operators."""
    url = make_empty()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE mallory LOGIN")
        connection.execute("GRANT CREATE ON SCHEMA public TO mallory")
    with psycopg.connect(url, user="mallory") as connection:
        for text in shadows():
            connection.execute(text.encode())
    yield url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY mallory CASCADE")
        connection.execute("DROP ROLE mallory")


def test_a_schema_that_others_may_create_in_is_refused_unless_told(shared: str) -> None:
    with pytest.raises(
        MigrationError, match=r"Schema public is open to others than its owner \(mallory\).*REVOKE CREATE"
    ):
        migrate.apply(shared)
    with psycopg.connect(shared) as connection:
        assert connection.execute("SELECT to_regclass('_yoyo_migration'), to_regclass('yoyo_lock')").fetchone() == (
            None,
            None,
        )
        connection.execute("REVOKE CREATE ON SCHEMA public FROM mallory")
    assert migrate.apply(shared) == migrate.ids()


@pytest.mark.parametrize(
    ("grants", "others"),
    [
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", ["PUBLIC"]),
        ("CREATE ROLE alone; GRANT CREATE ON SCHEMA public TO alone", ["alone"]),
        ("CREATE ROLE crew; GRANT CREATE ON SCHEMA public TO crew; GRANT crew TO eve", ["crew"]),
        ("CREATE ROLE crew; GRANT CREATE ON SCHEMA public TO crew; GRANT crew TO tasks", None),
        ("GRANT CREATE ON SCHEMA public TO eve", ["eve"]),
        ("GRANT USAGE ON SCHEMA public TO eve", None),
        ("ALTER SCHEMA public OWNER TO eve", None),
    ],
)
def test_who_may_create_is_found_whatever_the_way(empty: str, grants: str, others: list[str] | None) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("CREATE ROLE eve LOGIN")
        try:
            connection.execute(grants.encode())
            if others is None:
                assert migrate.apply(empty, to="0001")
            else:
                with pytest.raises(MigrationError, match=rf"\({', '.join(others)}\)"):
                    migrate.apply(empty)
        finally:
            connection.execute("ALTER SCHEMA public OWNER TO pg_database_owner")
            connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            for role in ("eve", "alone", "crew"):
                if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).rowcount:
                    connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def test_no_command_runs_a_foreign_function_where_it_is_told_to_go_on(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"DATABASE_URL": shared, "AUTH_MODE": "none"}.items():
        monkeypatch.setenv(name, value)
    allow = "--allow-shared-schema"
    for arguments in (
        ["migrate", "status"],
        ["migrate", "apply", allow],
        ["migrate", "status", "--check"],
        ["check"],
        ["migrate", "rollback", "--yes", allow],
        ["migrate", "apply", allow],
        ["migrate", "break-lock"],
        ["migrate", "rollback", "--to", "0", "--yes", allow],
    ):
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0, (arguments, done.output)


def test_check_says_that_others_may_create_in_the_schema(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.apply(shared, allow_shared_schema=True)
    for name, value in {"DATABASE_URL": shared, "AUTH_MODE": "none"}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(cli, ["check"])
    assert "warning  schema public: mallory may create objects in it" in done.stdout
    assert "mend: REVOKE CREATE ON SCHEMA public FROM mallory" in done.stdout
