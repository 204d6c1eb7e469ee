"""`check` says what does not fit, each thing in a line, and changes nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

import msgspec
import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.database import Statement
from service.operations import check, migrate
from service.operations.check import Finding
from service.tasks import queries
from tests.support.databases import named, relations, schema, wipe

pytestmark = pytest.mark.migrations

Run = Callable[..., Result]


@pytest.fixture
def run(migrated: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs check on `migrated`, as its owner."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", migrated)
    monkeypatch.setenv("AUTH_MODE", "none")
    return lambda *arguments: CliRunner().invoke(check.check, arguments)


@pytest.fixture
def login(migrated: str) -> Iterator[str]:
    """A login that has nothing yet."""
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute("CREATE ROLE checked LOGIN")
        yield "checked"
        connection.execute("DROP OWNED BY checked")
        connection.execute("DROP ROLE checked")


def as_role(url: str, role: str) -> str:
    return make_conninfo(url, user=role)


def errors(done: Result) -> list[str]:
    return [line.removeprefix("error").strip() for line in done.stdout.splitlines() if line.startswith("error")]


def warnings(done: Result) -> list[str]:
    """Without what is true of every cluster that tests throw away."""
    lines = [line.removeprefix("warning").strip() for line in done.stdout.splitlines() if line.startswith("warning")]
    return [line for line in lines if not line.startswith(("setting: fsync", "setting: full_page_writes"))]


def mends(done: Result) -> list[str]:
    return [
        line.strip().removeprefix("mend: ") for line in done.stdout.splitlines() if line.strip().startswith("mend: ")
    ]


def test_a_member_of_the_services_role_is_clean(
    run: Run, migrated: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute(f"GRANT tasks_service TO {login}".encode())
    monkeypatch.setenv("DATABASE_URL", as_role(migrated, login))
    monkeypatch.setenv("MIGRATION_DATABASE_URL", migrated)
    before = schema(migrated)
    done = run()
    assert done.exit_code == 0
    assert warnings(done) == []
    assert [line.split(":")[0].split() for line in done.stdout.splitlines() if line.startswith("ok")] == [
        ["ok", what] for what in ("settings", "database", "migrations", "schema", "role", "statements", "migrations")
    ]
    assert schema(migrated) == before


def test_the_owner_is_told_that_less_would_do(run: Run) -> None:
    done = run()
    assert done.exit_code == 0
    assert [line for line in warnings(done) if line.startswith("role: tasks owns the tables and may do anything")]


def test_what_a_role_lacks_or_has_too_much_is_named(
    run: Run, migrated: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute(f"GRANT tasks_service TO {login}".encode())
        connection.execute("REVOKE UPDATE (title), DELETE ON tasks FROM tasks_service")
        connection.execute(f"GRANT SELECT (email), TRUNCATE ON users TO {login}".encode())
        connection.execute(f"GRANT CREATE ON SCHEMA public TO {login}".encode())
    monkeypatch.setenv("DATABASE_URL", as_role(migrated, login))
    done = run()
    assert done.exit_code == 1
    assert errors(done) == ["role: checked lacks DELETE on tasks", "role: checked lacks UPDATE of tasks.title"]
    assert warnings(done) == [
        "schema public: checked may create objects in it, whose functions could run as the service",
        *(
            f"role: checked has {what}, which no statement needs"
            for what in ("CREATE in schema public", "SELECT of users.email", "TRUNCATE on users")
        ),
    ]
    assert mends(done) == [
        "REVOKE CREATE ON SCHEMA public FROM checked",
        "GRANT DELETE ON tasks TO tasks_service",
        "GRANT UPDATE (title) ON tasks TO tasks_service",
        "REVOKE SELECT (email) ON users FROM checked",
        "REVOKE TRUNCATE ON users FROM checked",
    ]


@pytest.mark.parametrize(
    "grant",
    [
        "GRANT SELECT ON tasks TO tasks_service",
        "GRANT INSERT, UPDATE, REFERENCES ON tasks TO tasks_service",
        "GRANT ALL ON idempotency_keys TO checked",
        "GRANT SELECT ON tasks TO PUBLIC",
        "GRANT SELECT, INSERT ON users TO PUBLIC; GRANT INSERT ON users TO tasks_service, checked",
        "GRANT USAGE, UPDATE ON SEQUENCE tasks_id_seq TO checked",
        "REVOKE tasks_service FROM checked; GRANT SELECT, INSERT, UPDATE, DELETE ON tasks, users, idempotency_keys, "
        "_yoyo_migration TO checked; GRANT USAGE ON SEQUENCE tasks_id_seq TO checked",
    ],
)
def test_what_it_prints_to_run_takes_what_is_too_much_and_leaves_what_is_needed(
    run: Run, migrated: str, login: str, monkeypatch: pytest.MonkeyPatch, grant: str
) -> None:
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute(f"GRANT tasks_service TO {login}".encode())
        before = schema(migrated)
        monkeypatch.setenv("DATABASE_URL", as_role(migrated, login))
        connection.execute(grant.encode())
        for _ in range(3):  # what a role has twice is said once, then again
            done = run()
            assert errors(done) == []
            for mend in mends(done):
                if mend.startswith(("REVOKE", "BEGIN")):
                    connection.execute(mend.encode())
                    assert run().exit_code == 0, mend
        assert warnings(run()) == []
        if "checked" not in grant:
            assert schema(migrated) == before


def test_another_schema_is_told_with_the_statement_that_names_the_role(migrated: str) -> None:
    found = next(check._migrations_url(migrated, "other", "checked"))  # pyright: ignore[reportPrivateUsage]
    assert found.what == "migrations: they make tables in schema public, and the service looks in other"
    database = conninfo_to_dict(migrated)["dbname"]
    assert found.mend == f"ALTER ROLE checked IN DATABASE {database} SET search_path = public"


ODD = """Our 'odd" 100%s {schema}"""  # as a statement, it has to be quoted


def test_what_it_prints_to_run_quotes_the_names_that_need_it(
    run: Run, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema and a table with such a name, from the first migration on, and a role."""
    with psycopg.connect(empty, autocommit=True) as connection:

        def execute(text: LiteralString) -> None:
            names = {"us": connection.info.user, "here": connection.info.dbname, "odd": ODD, "app": f"{ODD} app"}
            connection.execute(sql.SQL(text).format(**{name: sql.Identifier(text) for name, text in names.items()}))

        try:
            execute("CREATE SCHEMA {odd}; ALTER ROLE {us} IN DATABASE {here} SET search_path = {odd}")
            migrate.apply(empty)
            execute("CREATE ROLE {app} LOGIN IN ROLE tasks_service; ALTER ROLE {app} SET statement_timeout = '1s'")
            execute("GRANT CREATE ON SCHEMA {odd} TO {app}; CREATE TABLE {odd}.{odd} ({odd} integer)")
            execute("GRANT DELETE, UPDATE ({odd}) ON {odd}.{odd} TO {app}")
            monkeypatch.setenv("MIGRATION_DATABASE_URL", empty)
            monkeypatch.setenv("DATABASE_URL", as_role(empty, f"{ODD} app"))
            with psycopg.connect(empty, autocommit=True) as owner:
                for level in (errors, warnings):  # that it looks in another schema is an error, and hides the rest
                    done = run()
                    assert level(done) != []
                    for mend in mends(done):
                        if not mend.startswith("tasks-service"):
                            owner.execute(mend.encode())
            assert (run().exit_code, warnings(run())) == (0, [])
        finally:
            execute("DROP SCHEMA {odd} CASCADE; DROP OWNED BY {app}; DROP ROLE {app}")
            execute("ALTER ROLE {us} IN DATABASE {here} RESET search_path")


def test_a_role_with_nothing_is_told_in_a_line(
    run: Run, migrated: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", as_role(migrated, login))
    done = run()
    assert done.exit_code == 1
    assert errors(done) == [
        "the database refused: permission denied for table _yoyo_migration (SQLSTATE 42501); is the role a member of "
        "tasks_service?"
    ]


def test_a_database_that_nobody_migrated_is_left_as_it_is(run: Run, empty: str) -> None:
    wipe(empty)
    done = run()
    assert done.exit_code == 1
    assert errors(done) == [f"migration {name} is pending" for name in migrate.ids()]
    assert set(mends(done)) == {"tasks-service migrate apply"}
    assert relations(empty) == []


def test_a_schema_behind_or_ahead_or_changed_is_told(run: Run, migrated: str) -> None:
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute("UPDATE _yoyo_migration SET checksum = 'other' WHERE migration_id = '0002.create-tasks'")
        connection.execute("INSERT INTO _yoyo_migration VALUES ('hash', '9999.newer', now())")
    done = run()
    assert errors(done) == ["migration 0002.create-tasks was applied from a file with other SQL than the one here"]
    assert "migration 9999.newer is applied and has no file here: the schema is ahead of the code" in warnings(done)
    last = migrate.ids()[-1]
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute("ALTER TABLE tasks ADD COLUMN newer text")
    assert "schema: not made by a migration: column tasks.newer text" in warnings(run())
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute("DELETE FROM _yoyo_migration WHERE migration_id = '9999.newer'")
    migrate.rollback(migrated)
    assert f"migration {last} is pending" in errors(run())


def test_drift_is_told(run: Run, migrated: str) -> None:
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute("DROP INDEX tasks_open_idx")
    done = run()
    assert done.exit_code == 1
    assert errors(done) == [
        "schema: missing: index tasks.tasks_open_idx using btree (user_id, id) WHERE (NOT completed)"
    ]
    assert mends(done) == [
        "CREATE INDEX CONCURRENTLY tasks_open_idx ON tasks USING btree (user_id, id) WHERE (NOT completed)"
    ]


def test_a_statement_that_fails_is_told(run: Run, migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Statement(
        "broken", "-- Asks for what is not there.\nSELECT nothing FROM tasks", {}, lambda *columns: columns
    )
    monkeypatch.setattr(queries, "STATEMENTS", [*queries.STATEMENTS, broken])
    done = run()
    assert done.exit_code == 1
    assert errors(done) == ['statement broken fails: column "nothing" does not exist (SQLSTATE 42703)']
    with psycopg.connect(migrated) as connection:
        assert connection.execute("SELECT FROM pg_prepared_statements").fetchall() == []


def test_an_old_server_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "OLDEST_VERSION", 99)
    done = run()
    assert done.exit_code == 1
    (error,) = errors(done)
    assert error.startswith("database: PostgreSQL 18, older than 99, the oldest that is supported; a round trip takes ")


def test_another_encoding_is_told(run: Run, migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    monkeypatch.setenv("DATABASE_URL", named(migrated, "latin"))
    (error,) = errors(run())
    assert error.startswith("The database's encoding is LATIN1, and the service needs UTF8: ")


def test_a_database_that_is_away_is_told_without_its_password(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/tasks")
    done = run()
    assert done.exit_code == 1
    (error,) = errors(done)
    assert error.startswith("The database cannot be reached: ")
    assert "hunter2" not in done.output


def test_settings_that_cannot_be_used_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    monkeypatch.setenv("PORT", "many")
    done = run()
    assert done.exit_code == 1
    assert len(errors(done)) == 2
    assert all(line.startswith("settings: ") for line in errors(done))


def test_an_embedded_database_is_not_made_by_checking(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("TASKS_DATA_DIR", str(tmp_path / "data"))
    done = run()
    assert done.exit_code == 0
    assert "holds none yet; `tasks-service serve` makes it" in done.stdout
    assert not (tmp_path / "data").exists()


def test_as_json(run: Run) -> None:
    found = msgspec.json.decode(run("--json").stdout, type=list[Finding])
    assert found[0] == Finding("ok", "settings: can be used")
