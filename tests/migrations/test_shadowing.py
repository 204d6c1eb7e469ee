"""Another login's functions and operators in the tables' schema never run as the operator.

An exact match of argument types in any schema of the search path beats pg_catalog's own form. Each foreign form here
raises an error.
"""
# pglast types every attribute of a node as optional.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalIterable=false
# pyright: reportArgumentType=false, reportReturnType=false

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from pglast import parse_sql
from psycopg import sql

from service.operations import migrate
from service.operations.cli import cli
from service.operations.migrate import MigrationError
from service.paths import root
from tests.support.parsed import Names
from tests.support.processes import RunningService, plain_client, wait_ready

pytestmark = pytest.mark.migrations

TYPES = ["text", "varchar", "name", "oid", "regclass", "integer", "bigint", "boolean", "jsonb", "timestamptz", '"char"']


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


FOREIGN = """
CREATE SCHEMA {role};
CREATE FUNCTION {role}.foreign_function() RETURNS text LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'a foreign function ran'; END $$;
CREATE VIEW {role}.tasks AS
    SELECT {role}.foreign_function() AS user_id, 1::bigint AS id, 'loot' AS title, '' AS description,
        false AS completed, 1 AS version, now() AS created_at, now() AS updated_at;
CREATE VIEW {role}.users AS SELECT {role}.foreign_function() AS id;
CREATE VIEW {role}.idempotency_keys AS SELECT {role}.foreign_function() AS user_id;
CREATE VIEW {role}._yoyo_migration AS
    SELECT {role}.foreign_function() AS migration_hash, {role}.foreign_function() AS migration_id,
        now()::timestamp AS applied_at_utc, '' AS checksum;
GRANT USAGE ON SCHEMA {role} TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA {role} TO PUBLIC;
"""


@pytest.fixture
def hijacked(database_url: str) -> Iterator[str]:
    """A migrated database in which another login may create schemas."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE mallory LOGIN")
        grant = sql.SQL("GRANT CREATE ON DATABASE {} TO mallory").format(sql.Identifier(connection.info.dbname))
        connection.execute(grant)
    yield database_url
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY mallory CASCADE; DROP ROLE mallory")


def test_another_logins_schema_of_the_roles_name_is_not_looked_into(
    hijacked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search path is "$user", public, and any role that may create schemas could make one of this role's name."""
    settings = {"DATABASE_URL": hijacked, "MIGRATION_DATABASE_URL": hijacked, "AUTH_MODE": "none"}
    with RunningService(tmp_path, **settings) as service, plain_client(service.url) as http:
        wait_ready(service.url)
        path = http.post("/api/victim/tasks", json={"title": "mine"}).headers["location"]
        with psycopg.connect(hijacked, user="mallory") as mallory, psycopg.connect(hijacked) as owner:
            mallory.execute(FOREIGN.format(role=owner.info.user).encode())
            mallory.commit()
            assert owner.execute("SELECT to_regclass('tasks')::text").fetchone() == ("tasks",)  # mallory's, unqualified
            assert owner.execute("SELECT relkind FROM pg_class WHERE oid = 'tasks'::regclass").fetchone() == ("v",)
        key = {"Idempotency-Key": "k"}
        assert http.get(path).json()["title"] == "mine"
        assert http.post("/api/victim/tasks", json={"title": "keyed"}, headers=key).status_code == 201
        assert http.post("/api/victim/tasks/batch", json=[{"title": "of a batch"}]).status_code == 201
        assert http.put(path, json={"title": "changed"}).json()["title"] == "changed"
        assert [task["title"] for task in http.get("/api/victim/tasks").json()] == ["of a batch", "keyed", "changed"]
        assert http.get("/readyz").status_code == 200
        assert http.delete(path).status_code == 204
    with RunningService(tmp_path, **settings) as service:  # and a new session
        wait_ready(service.url)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for command in (["migrate", "status"], ["migrate", "apply"], ["check"], ["user", "export", "victim"], ["prune"]):
        done = CliRunner().invoke(cli, command)
        assert (done.exit_code, "foreign" in done.output) == (0, False), done.output
    deleted = CliRunner().invoke(cli, ["user", "delete", "victim", "--yes"])
    assert (deleted.exit_code, "2 tasks" in deleted.output) == (0, True), deleted.output
    with psycopg.connect(hijacked) as owner:
        assert owner.execute("SELECT count(*) FROM public.tasks").fetchone() == (0,)


def test_views_with_the_bookkeepings_names_are_not_read(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first migration, in a schema that others may create in."""
    with psycopg.connect(shared, user="mallory") as mallory:
        body = "RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a foreign function ran'; END $$"
        mallory.execute(f"CREATE FUNCTION public.foreign_function() {body}".encode())
        for name in ("_yoyo_migration", "_yoyo_log", "yoyo_lock", "users", "tasks", "idempotency_keys"):
            mallory.execute(f"CREATE VIEW public.{name} AS SELECT public.foreign_function() AS id".encode())
            mallory.execute(f"GRANT ALL ON public.{name} TO PUBLIC".encode())
    for name, value in {"DATABASE_URL": shared, "MIGRATION_DATABASE_URL": shared, "AUTH_MODE": "none"}.items():
        monkeypatch.setenv(name, value)
    for command in (
        *(["migrate", "status"], ["migrate", "apply", "--dry-run"], ["migrate", "apply"], ["check"], ["prune"]),
        *(["user", "export", "victim"], ["user", "delete", "victim", "--yes"]),
    ):
        assert "foreign function ran" not in CliRunner().invoke(cli, command).output


MADE_BY_MALLORY = {
    "a table with a trigger": """
        CREATE TABLE public.{name} (id text, user_id text, operation text, key text, created_at timestamptz);
        INSERT INTO public.{name} VALUES ('victim', 'victim', '', '', '2000-01-01');
        CREATE TRIGGER foreign_trigger BEFORE DELETE ON public.{name} EXECUTE FUNCTION public.foreign_trigger()
    """,
    "a view that can be written": """
        CREATE VIEW public.{name} AS SELECT 'victim' AS id, 'victim' AS user_id, '' AS operation, '' AS key,
            '2000-01-01'::timestamptz AS created_at;
        CREATE TRIGGER foreign_trigger INSTEAD OF DELETE ON public.{name}
        FOR EACH ROW EXECUTE FUNCTION public.foreign_trigger()
    """,
}


@pytest.mark.parametrize("made", MADE_BY_MALLORY)
@pytest.mark.parametrize("yoyo", [False, True], ids=["", "with the bookkeeping of another application"])
def test_what_has_the_tables_names_before_the_first_migration_is_not_deleted_from(
    shared: str, monkeypatch: pytest.MonkeyPatch, made: str, *, yoyo: bool
) -> None:
    with psycopg.connect(shared, user="mallory") as mallory:
        body = "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a foreign function ran'; END $$"
        mallory.execute(f"CREATE FUNCTION public.foreign_trigger() {body}".encode())
        for name in ("users", "tasks", "idempotency_keys"):
            mallory.execute(MADE_BY_MALLORY[made].format(name=name).encode())
            mallory.execute(f"GRANT ALL ON public.{name} TO PUBLIC".encode())
        if yoyo:
            columns = "migration_hash text, migration_id text, applied_at_utc timestamp, checksum text"
            mallory.execute(f"CREATE TABLE public._yoyo_migration ({columns})".encode())
            mallory.execute("INSERT INTO public._yoyo_migration VALUES ('x', '0001.theirs', now(), NULL)")
    for name, value in {"DATABASE_URL": shared, "MIGRATION_DATABASE_URL": shared, "AUTH_MODE": "none"}.items():
        monkeypatch.setenv(name, value)
    for command in (["prune"], ["user", "export", "victim"], ["user", "delete", "victim", "--yes"]):
        done = CliRunner().invoke(cli, command)
        assert (done.exit_code, done.output.splitlines()[-1]) == (
            1,
            "Error: 0001.create-users is not applied in schema public, so what is there may be another application's: "
            "run `tasks-service migrate apply`",
        ), command
