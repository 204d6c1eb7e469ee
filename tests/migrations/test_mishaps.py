"""What a role, a database or the environment carries: what `check` says of it, and that migrations do not mind it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.operations import migrate
from service.operations.check import check
from service.operations.migrate import MigrationError
from tests.support.databases import applied, named
from tests.support.processes import RunningService, plain_client, wait_ready

pytestmark = pytest.mark.migrations

IDS = migrate.ids()

# Of the database: the setting, and how the line of `check` about it begins; None: it changes nothing that is promised.
SETTINGS = [
    (
        "default_transaction_read_only = on",
        "error    setting: default_transaction_read_only is on, set by",
    ),
    ("default_transaction_read_only = on", "error    statement create fails: cannot execute INSERT in a read-only"),
    (
        "default_transaction_isolation = 'serializable'",
        "warning  setting: default_transaction_isolation is serial",
    ),
    (
        "default_transaction_isolation = 'repeatable read'",
        "warning  setting: default_transaction_isolation is repeat",
    ),
    ("statement_timeout = '100ms'", "warning  setting: statement_timeout is 100ms, set by the database"),
    ("lock_timeout = '1s'", "warning  setting: lock_timeout is 1000ms"),
    ("transaction_timeout = '2s'", "warning  setting: transaction_timeout is 2000ms"),
    ("idle_session_timeout = '10s'", "warning  setting: idle_session_timeout is 10000ms"),
    ("synchronous_commit = off", "warning  setting: synchronous_commit is off"),
    ("session_replication_role = replica", "warning  setting: session_replication_role is replica"),
    ("standard_conforming_strings = off", "warning  setting: standard_conforming_strings is off"),
    ("row_security = off", "warning  setting: row_security is off"),
    ("search_path = ''", "error    The search path of role tasks names no schema that it may use"),
    ("search_path = nowhere", "error    The search path of role tasks names no schema that it may use"),
    ("statement_timeout = '1h'", None),
    ("client_encoding = 'LATIN1'", None),
    ("client_encoding = 'SQL_ASCII'", None),
    ("client_min_messages = error", None),
    ("DateStyle = 'German, DMY'", None),
    ("DateStyle = 'SQL, MDY'", None),
    ("IntervalStyle = 'iso_8601'", None),
    ("TimeZone = 'Asia/Kathmandu'", None),
    ("quote_all_identifiers = on", None),
    ("bytea_output = 'escape'", None),
    ("extra_float_digits = 0", None),
    ("transform_null_equals = on", None),
    ("backslash_quote = off", None),
    ("array_nulls = off", None),
    ("plan_cache_mode = force_generic_plan", None),
    ("jit_above_cost = 0", None),
    ("enable_indexscan = off", None),
    ("search_path = pg_catalog, public", None),
    ("search_path = nowhere, public", None),
    ("default_transaction_deferrable = on", None),
    ("lc_numeric = 'C'", None),
]

ENVIRONMENT = [
    {"PGCLIENTENCODING": "LATIN1"},
    {"PGTZ": "Asia/Kathmandu"},
    {"PGDATESTYLE": "German"},
    {"PGOPTIONS": "-c search_path=public -c statement_timeout=1h"},
    {"PGAPPNAME": "x"},
    {"PGCONNECT_TIMEOUT": "1"},
]


@pytest.fixture(scope="module")
def url(clone: Callable[[], str]) -> str:
    """A migrated database for all tests here: each leaves it as it was."""
    return clone()


@pytest.fixture
def settled(url: str) -> Iterator[Callable[[str], None]]:
    """Sets something for the database, and undoes it."""

    def settle(setting: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            text = f"ALTER DATABASE {connection.info.dbname} SET {setting}"
            connection.execute(text.encode())

    yield settle
    with psycopg.connect(named(url, "postgres"), autocommit=True) as connection:
        database = conninfo_to_dict(url)["dbname"]
        connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(str(database))))


def lines(url: str, monkeypatch: pytest.MonkeyPatch, **settings: str) -> list[str]:
    """What `check` says, without what is true of every cluster of tests and of every owner."""
    for name, value in {"DATABASE_URL": url, "AUTH_MODE": "none", **settings}.items():
        monkeypatch.setenv(name, value)
    said = CliRunner().invoke(check).stdout.splitlines()
    usual = (
        "ok",
        "warning  setting: fsync",
        "warning  setting: full_page",
        "warning  role: tasks owns",
        "         mend",
    )
    return [line for line in said if not line.startswith(usual)]


@pytest.mark.parametrize(("setting", "said"), SETTINGS)
def test_check_says_what_a_setting_of_the_database_changes(
    url: str, settled: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, setting: str, said: str | None
) -> None:
    settled(setting)
    found = lines(url, monkeypatch)
    if said is None:
        assert found == []
    else:
        assert any(line.startswith(said) for line in found), found


@pytest.mark.slow
@pytest.mark.parametrize("setting", sorted({setting for setting, said in SETTINGS if "no schema" not in (said or "")}))
def test_migrations_do_not_mind_a_setting_of_the_database(
    url: str, settled: Callable[[str], None], setting: str
) -> None:
    migrate.rollback(url, to="0005")
    settled(setting)
    assert migrate.apply(url) == IDS[5:]
    assert [state.state for state in migrate.status(url)] == ["applied"] * len(IDS)


@pytest.mark.parametrize("environment", ENVIRONMENT, ids=lambda environment: next(iter(environment)))
def test_variables_of_libpq_change_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    migrate.rollback(url, to="0006")
    assert migrate.apply(url) == IDS[6:]
    assert lines(url, monkeypatch) == []


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP", "WIN1252"])
def test_a_database_of_another_encoding_is_refused_in_a_sentence(
    cluster: object, reused: str, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    name = f"other_{encoding.lower()}"
    with psycopg.connect(named(reused, "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode())
    said = f"The database's encoding is {encoding}, and the service needs UTF8"
    for command in (migrate.status, migrate.apply, migrate.rollback, migrate.break_lock):
        with pytest.raises(MigrationError, match=said):
            command(named(reused, name))
    (error,) = lines(named(reused, name), monkeypatch)
    assert error.startswith(f"error    {said}")


def test_serve_refuses_a_database_of_another_encoding_in_a_sentence(reused: str, tmp_path: object) -> None:
    with psycopg.connect(named(reused, "postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE served_latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    service = RunningService(tmp_path, DATABASE_URL=named(reused, "served_latin"), AUTH_MODE="none")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError) as failure:
        service.start()
    assert "The database's encoding is LATIN1, and the service needs UTF8" in str(failure.value)
    assert "Traceback" not in str(failure.value)


@pytest.fixture
def beside_others(make_empty: Callable[[], str]) -> Iterator[str]:
    """A database in which another application has its tables, and ours have a schema to themselves, as documented."""
    url = make_empty()
    with psycopg.connect(url, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        connection.execute("CREATE TABLE users (id serial PRIMARY KEY, email text); CREATE SEQUENCE tasks_id_seq")
        connection.execute("INSERT INTO users (email) VALUES ('theirs@example.com')")
        connection.execute("CREATE ROLE shared_owner LOGIN CREATEROLE; CREATE ROLE shared_app LOGIN")
        connection.execute('CREATE SCHEMA "Our Tasks" AUTHORIZATION shared_owner')
        for role in ("shared_owner", "shared_app"):
            text = 'ALTER ROLE {} IN DATABASE {} SET search_path = "Our Tasks"'
            connection.execute(sql.SQL(text).format(sql.Identifier(role), database))
    yield url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY shared_owner, shared_app CASCADE; DROP ROLE shared_owner, shared_app")


def test_a_schema_of_its_own_keeps_the_service_beside_others(
    beside_others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = make_conninfo(beside_others, user="shared_owner")
    app = make_conninfo(beside_others, user="shared_app")
    with psycopg.connect(beside_others, autocommit=True) as connection:  # made in another database of the cluster
        if connection.execute("SELECT FROM pg_roles WHERE rolname = 'tasks_service'").rowcount:
            connection.execute("GRANT tasks_service TO shared_owner WITH ADMIN OPTION")
    assert migrate.apply(owner) == IDS
    with psycopg.connect(owner) as connection:
        connection.execute("GRANT tasks_service TO shared_app")
    assert lines(app, monkeypatch, MIGRATION_DATABASE_URL=owner) == []
    with psycopg.connect(beside_others) as connection:
        assert connection.execute("SELECT email FROM public.users").fetchall() == [("theirs@example.com",)]
    assert migrate.rollback(owner, to="0") == IDS[::-1]
    with psycopg.connect(beside_others) as connection:
        assert connection.execute("SELECT email FROM public.users").fetchall() == [("theirs@example.com",)]


def test_a_service_that_looks_in_another_schema_is_told_which(
    beside_others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(beside_others, autocommit=True) as connection:
        connection.execute("GRANT tasks_service TO shared_owner WITH ADMIN OPTION; GRANT tasks_service TO shared_app")
        connection.execute(f"ALTER ROLE shared_app IN DATABASE {connection.info.dbname} RESET search_path".encode())
    owner = make_conninfo(beside_others, user="shared_owner")
    migrate.apply(owner)
    app = make_conninfo(beside_others, user="shared_app")
    found = lines(app, monkeypatch, MIGRATION_DATABASE_URL=owner)
    assert "error    migrations: they make tables in schema Our Tasks, and the service looks in public" in found


def test_a_schema_of_the_roles_own_name_that_comes_later_does_not_hide_the_tables(migrated: str) -> None:
    """`"$user", public` is PostgreSQL's default search path."""
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tasks")
        try:
            assert applied(migrated) == IDS
            assert [state.state for state in migrate.status(migrated)] == ["applied"] * len(IDS)
            assert migrate.apply(migrated) == []
        finally:
            connection.execute("DROP SCHEMA tasks")


def test_another_applications_yoyo_in_the_search_path_is_not_taken_for_ours(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        columns = "migration_hash text, migration_id text, applied_at_utc timestamp"
        connection.execute(f"CREATE TABLE _yoyo_migration ({columns})".encode())
        connection.execute("INSERT INTO _yoyo_migration VALUES ('x', '0001.theirs', now())")
        connection.execute("CREATE SCHEMA tasks")
        try:
            assert migrate.apply(empty) == IDS
            tables = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'users'").fetchall()
            assert tables == [("tasks",)]
        finally:
            connection.execute("DROP SCHEMA tasks CASCADE; DROP TABLE public._yoyo_migration")


def test_no_table_is_made_in_the_sessions_own_schema(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose tables end with the session."""
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET search_path = pg_temp, public".encode())
        assert migrate.apply(empty) == applied(empty) == IDS
        connection.execute("SET search_path = pg_temp; CREATE TABLE tasks (); CREATE TABLE idempotency_keys ()")
        assert lines(empty, monkeypatch) == []


def test_a_service_that_may_not_use_the_schema_is_told_so(beside_others: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app, owner = (make_conninfo(beside_others, user=user) for user in ("shared_app", "shared_owner"))
    with psycopg.connect(beside_others, autocommit=True) as connection:
        connection.execute("GRANT tasks_service TO shared_owner WITH ADMIN OPTION")
        migrate.apply(owner)
        connection.execute(
            f'ALTER ROLE shared_app IN DATABASE {connection.info.dbname} SET search_path = "Our Tasks", public'.encode()
        )
        connection.execute('REVOKE USAGE ON SCHEMA "Our Tasks" FROM tasks_service')
        for mend in ("GRANT tasks_service TO shared_app", 'GRANT USAGE ON SCHEMA "Our Tasks" TO tasks_service'):
            found = lines(app, monkeypatch, MIGRATION_DATABASE_URL=owner)
            said = "error    migrations: they make tables in schema Our Tasks, which role shared_app may not use"
            assert said in found
            assert f"mend: {mend}" in CliRunner().invoke(check).stdout
            connection.execute(mend.encode())
        assert lines(app, monkeypatch, MIGRATION_DATABASE_URL=owner) == []


def test_another_applications_tables_in_front_are_not_taken_for_ours(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tables have the names of ours, and yoyo makes them, too."""
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tasks")
        try:
            assert migrate.apply(empty) == IDS
            columns = "migration_hash text, migration_id text, applied_at_utc timestamp"
            connection.execute(f"CREATE SCHEMA app; CREATE TABLE app._yoyo_migration ({columns})".encode())
            connection.execute("CREATE TABLE app.users (id text); CREATE TABLE app.tasks (user_id text, id bigint)")
            connection.execute("CREATE SCHEMA keys; CREATE TABLE keys.idempotency_keys (key text)")
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET search_path = app, keys, tasks".encode())
            assert [state.state for state in migrate.status(empty)] == ["applied"] * len(IDS)
            assert lines(empty, monkeypatch) == []
            with RunningService(tmp_path, DATABASE_URL=empty, AUTH_MODE="none") as service:
                wait_ready(service.url)
                with plain_client(service.url) as http:
                    assert http.post("/api/u/tasks", json={"title": "x"}).status_code == 201
            assert connection.execute("SELECT title FROM tasks.tasks").fetchall() == [("x",)]
        finally:
            connection.execute("DROP SCHEMA IF EXISTS tasks, app, keys CASCADE")
