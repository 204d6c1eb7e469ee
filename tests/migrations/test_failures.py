"""What an operator reads when a migration fails, waits or takes long, and what is left behind: nothing, or its name."""

import re
import shlex
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest
from click import ClickException
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.operations import embedded, migrate, serve
from service.operations.check import check
from service.operations.cli import cli as cli_of_all
from service.operations.in_use import settings_of
from service.operations.migrate import MigrationError, cli, watch
from service.operations.migrate.cli import migrate as command
from service.paths import root
from tests.support.databases import applied, relations, schema
from tests.support.migrations import write
from tests.support.waiting import wait_until

pytestmark = pytest.mark.migrations

IDS = migrate.ids()
UNIQUE = "-- transactional: false\nCREATE UNIQUE INDEX CONCURRENTLY tasks_title_key ON tasks (title);"
DROP_UNIQUE = "-- transactional: false\nDROP INDEX CONCURRENTLY tasks_title_key;"


def execute(url: str, text: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in text.split(";"):
            connection.execute(statement.encode())


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """In a folder without `.env`, with no database named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return CliRunner()


def refuse(*_: object) -> NoReturn:
    raise embedded.EmbeddedError("not here")


@pytest.fixture
def duplicates(own: Path, empty: str) -> str:
    """A database with two tasks of one title, and a pending migration that makes titles unique."""
    migrate.apply(empty)
    execute(empty, "INSERT INTO users (id) VALUES ('u')")
    execute(empty, "INSERT INTO tasks (user_id, title) VALUES ('u', 'same'), ('u', 'same')")
    write(own, "0003.unique-titles", UNIQUE, DROP_UNIQUE)
    return empty


def test_the_invalid_index_of_a_failed_build_is_dropped_and_the_cause_is_shown(duplicates: str) -> None:
    with pytest.raises(MigrationError) as failure:
        migrate.apply(duplicates)
    assert str(failure.value) == (
        '0003.unique-titles failed: could not create unique index "tasks_title_key" (SQLSTATE 23505); DETAIL: Key '
        "(title)=(same) is duplicated; at line 3 of 0003.unique-titles.sql: CREATE UNIQUE INDEX CONCURRENTLY "
        'tasks_title_key ON tasks (title); the invalid index "tasks_title_key" that it left was dropped; mend the '
        "cause and run `migrate apply` again"
    )
    assert "tasks_title_key" not in relations(duplicates)
    assert [state.state for state in migrate.status(duplicates)] == ["applied", "applied", "pending"]
    execute(duplicates, "DELETE FROM tasks WHERE id = 2")
    assert migrate.apply(duplicates) == ["0003.unique-titles"]
    assert migrate.rollback(duplicates) == ["0003.unique-titles"]


def test_an_invalid_index_that_was_left_behind_is_built_anew(duplicates: str) -> None:
    """By a version that recorded nothing before it began, or by hand."""
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute(duplicates, "CREATE UNIQUE INDEX CONCURRENTLY tasks_title_key ON tasks (title)")
    execute(duplicates, "DELETE FROM tasks WHERE id = 2")
    said: list[str] = []
    assert migrate.apply(duplicates, say=said.append) == ["0003.unique-titles"]
    assert said == ["dropping the invalid index tasks_title_key, which a build that was cut short left behind"]


@pytest.fixture
def half(duplicates: str) -> str:
    """A migration that was killed between its index and its record."""
    execute(duplicates, "DELETE FROM tasks WHERE id = 2")
    execute(duplicates, "CREATE UNIQUE INDEX CONCURRENTLY tasks_title_key ON tasks (title)")
    execute(
        duplicates,
        "INSERT INTO _yoyo_log (id, migration_id, operation, created_at_utc) "
        "VALUES ('1', '0003.unique-titles', 'applying', now() AT TIME ZONE 'UTC')",
    )
    return duplicates


def test_what_is_half_applied_is_said_and_finished_and_nothing_is_rolled_back_meanwhile(half: str) -> None:
    assert [state.state for state in migrate.status(half)] == ["applied", "applied", "incomplete"]
    with pytest.raises(MigrationError, match=r"0003\.unique-titles is applied half-way, so nothing is rolled back"):
        migrate.rollback(half, count=1)
    assert applied(half) == IDS[:2]
    assert migrate.apply(half) == ["0003.unique-titles"]
    assert [state.state for state in migrate.status(half)] == ["applied"] * 3


TWO = (
    "-- transactional: false\nSET lock_timeout = '5s';\nALTER TABLE tasks ADD COLUMN due_at timestamptz;\n"
    "CREATE UNIQUE INDEX CONCURRENTLY tasks_title_key ON tasks (title);"
)
TWO_BACK = "-- transactional: false\nDROP INDEX CONCURRENTLY tasks_title_key;\nALTER TABLE tasks DROP COLUMN due_at;"


def test_what_fails_behind_its_first_statement_is_incomplete_and_goes_on_there(own: Path, duplicates: str) -> None:
    write(own, "0003.unique-titles", "-- depends: 0002.create-tasks\n" + TWO, TWO_BACK)
    with pytest.raises(MigrationError) as failure:
        migrate.apply(duplicates)
    assert str(failure.value).endswith(
        "; done before that, and still there: ALTER TABLE tasks ADD COLUMN due_at timestamptz; left to do: CREATE "
        'UNIQUE INDEX CONCURRENTLY tasks_title_key ON tasks (title); the invalid index "tasks_title_key" that it left '
        "was dropped; mend the cause and run `migrate apply` again, which does what is left"
    )
    assert [state.state for state in migrate.status(duplicates)] == ["applied", "applied", "incomplete"]
    with pytest.raises(MigrationError, match=r"0003\.unique-titles is applied half-way, so nothing is rolled back"):
        migrate.rollback(duplicates)
    with pytest.raises(MigrationError, match="done before that, and still there: ALTER TABLE tasks ADD COLUMN due_at"):
        migrate.apply(duplicates)
    assert [state.state for state in migrate.status(duplicates)] == ["applied", "applied", "incomplete"]
    execute(duplicates, "DELETE FROM tasks WHERE id = 2")
    assert migrate.apply(duplicates) == ["0003.unique-titles"]
    assert migrate.rollback(duplicates) == ["0003.unique-titles"]


def test_a_rollback_that_fails_behind_its_first_statement_is_incomplete_and_goes_on(own: Path, empty: str) -> None:
    migrate.apply(empty)
    write(own, "0003.two", TWO, TWO_BACK)
    migrate.apply(empty)
    execute(empty, "CREATE VIEW due AS SELECT due_at FROM tasks")
    with pytest.raises(
        MigrationError, match="done before that, and still there: DROP INDEX CONCURRENTLY tasks_title_key"
    ):
        migrate.rollback(empty)
    assert [state.state for state in migrate.status(empty)] == ["applied", "applied", "incomplete"]
    execute(empty, "DROP VIEW due")
    assert migrate.rollback(empty) == ["0003.two"]
    assert [state.state for state in migrate.status(empty)] == ["applied", "applied", "pending"]


def test_what_waits_for_a_lock_behind_its_first_statement_does_not_repeat_that(own: Path, empty: str) -> None:
    """And what its own attempts leave behind is no news."""
    migrate.apply(empty)
    write(own, "0003.two", TWO.replace("5s", "50ms"), TWO_BACK)
    said: list[str] = []
    with psycopg.connect(empty) as reader:
        # A snapshot holds up the build, and not the column.
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM users")
        with pytest.raises(MigrationError, match=r"gave up waiting for a lock .*; done before that, .* due_at"):
            migrate.apply(empty, wait_s=1.5, say=said.append)
    assert [line for line in said if "invalid index" in line] == []
    assert "tasks_title_key" not in relations(empty)
    assert migrate.apply(empty) == ["0003.two"]


def test_a_rollback_whose_first_statement_fails_leaves_it_applied(empty: str) -> None:
    migrate.apply(empty)
    execute(empty, "INSERT INTO users (id, email) VALUES ('a', 'one@example.com'), ('b', 'one@example.com')")
    with pytest.raises(MigrationError, match="is duplicated"):
        migrate.rollback(empty)
    assert {state.state for state in migrate.status(empty)} == {"applied"}
    assert migrate.apply(empty) == []


def test_check_says_what_finishes_an_incomplete_migration(
    half: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", half)
    monkeypatch.setenv("AUTH_MODE", "none")
    done = CliRunner().invoke(check, [])
    assert done.exit_code == 1
    assert "migration 0003.unique-titles is incomplete: its SQL was begun and not finished" in done.stdout
    assert "mend: tasks-service migrate apply\n" in done.stdout
    migrate.apply(half)
    execute(
        half,
        "INSERT INTO _yoyo_log (id, migration_id, operation, created_at_utc) "
        "VALUES ('2', '0003.unique-titles', 'reverting', now() AT TIME ZONE 'UTC')",
    )
    done = CliRunner().invoke(check, [])
    assert done.exit_code == 1
    assert "migration 0003.unique-titles is incomplete: its rollback was begun and not finished" in done.stdout
    assert "mend: tasks-service migrate rollback --count 1\n" in done.stdout


def test_a_rollback_that_was_cut_short_is_finished(half: str) -> None:
    migrate.apply(half)
    execute(half, "DROP INDEX CONCURRENTLY tasks_title_key")
    execute(
        half,
        "INSERT INTO _yoyo_log (id, migration_id, operation, created_at_utc) "
        "VALUES ('2', '0003.unique-titles', 'reverting', now() AT TIME ZONE 'UTC')",
    )
    with pytest.raises(MigrationError, match=r"0003\.unique-titles is rolled back half-way: finish it"):
        migrate.apply(half)
    assert migrate.rollback(half) == ["0003.unique-titles"]
    assert applied(half) == IDS[:2]


def test_after_a_failed_apply_a_rollback_does_not_take_the_migration_before_it(own: Path, empty: str) -> None:
    write(own, "0003.broken", "SELECT 1 / 0;")
    with pytest.raises(MigrationError, match="division by zero"):
        migrate.apply(empty)
    with pytest.raises(
        MigrationError, match=r"failed to apply 0003\.broken and nothing of that is there; to roll back 00"
    ):
        migrate.rollback(empty)
    assert applied(empty) == IDS[:2]
    assert migrate.rollback(empty, count=1) == [IDS[1]]


def test_rollback_goes_by_the_time_of_applying(own: Path, empty: str) -> None:
    """Two branches: the one with the higher number was applied first."""
    migrate.apply(empty)
    write(own, "0004.first-branch", "-- depends: 0002.create-tasks\nCREATE TABLE a (n int);", "DROP TABLE a;")
    migrate.apply(empty)
    write(own, "0003.second-branch", "-- depends: 0002.create-tasks\nCREATE TABLE b (n int);", "DROP TABLE b;")
    assert migrate.apply(empty) == ["0003.second-branch"]
    assert [migration.id for migration in migrate.plan_rollback(empty)] == ["0003.second-branch"]
    assert migrate.rollback(empty, to="0004") == ["0003.second-branch"]
    migrate.apply(empty)
    assert migrate.rollback(empty, count=2) == ["0003.second-branch", "0004.first-branch"]
    with pytest.raises(MigrationError, match=r"0004\.first-branch is not applied"):
        migrate.rollback(empty, to="0004")


def test_rollback_says_first_what_is_lost(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.apply(empty, to="0002")
    monkeypatch.setenv("DATABASE_URL", empty)
    done = CliRunner().invoke(command, ["rollback", "--to", "0", "--yes"])
    host = conninfo_to_dict(empty)["host"]
    assert done.stderr.splitlines() == [
        f"database: {conninfo_to_dict(empty)['dbname']} on {host}:5432",
        "to roll back: 0002.create-tasks: every task is lost",
        "to roll back: 0001.create-users: every user is lost",
    ]
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        "rolled back 0002.create-tasks",
        "rolled back 0001.create-users",
    ]


def test_a_failure_names_the_line_the_detail_and_the_hint(own: Path, empty: str) -> None:
    write(
        own, "0003.misspelt", "CREATE TABLE a (n int);\n\nALTER TABLE tasks\n    ADD COLUMN b text DEFAULT lenght('a');"
    )
    with pytest.raises(MigrationError) as failure:
        migrate.apply(empty)
    assert re.fullmatch(
        r"0003\.misspelt failed: function lenght\(unknown\) does not exist \(SQLSTATE 42883\); "
        r"HINT: .*; at line 4 of 0003\.misspelt\.sql: ALTER TABLE tasks; nothing of it was applied",
        str(failure.value),
    )
    write(own, "0003.misspelt", "CREATE TABLE a (n int);\n\nSELECT\n    count(*),\n    titel FROM tasks; nothing")
    with pytest.raises(MigrationError, match=r"at line 5 of 0003\.misspelt\.sql: titel FROM tasks; nothing"):
        migrate.apply(empty)


def test_notices_are_passed_on(own: Path, empty: str) -> None:
    write(own, "0003.talks", "DO $$ BEGIN RAISE NOTICE 'three rows'; RAISE WARNING 'look at them'; END $$;")
    said: list[str] = []
    migrate.apply(empty, say=said.append)
    assert said == ["NOTICE: three rows", "WARNING: look at them"]


def test_the_session_that_holds_a_lock_is_named_with_its_query(own: Path, empty: str) -> None:
    migrate.apply(empty)
    write(own, "0003.alters", "SET lock_timeout = '50ms'; ALTER TABLE tasks ADD COLUMN extra text;")
    with psycopg.connect(empty, application_name="report") as reader:
        reader.execute("SELECT count(*) FROM tasks")
        with pytest.raises(MigrationError) as failure:
            migrate.apply(empty, wait_s=0)
        pid = reader.info.backend_pid
    assert re.fullmatch(
        rf"0003\.alters gave up waiting for a lock that others hold: session {pid} \(tasks, report; "
        r"idle in transaction, in a transaction for \d s\): SELECT count\(\*\) FROM tasks\. "
        r"End it with pg_terminate_backend, or try when there is less going on",
        str(failure.value),
    )


def test_a_long_statement_says_how_far_it_is(own: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index whose build waits for a transaction: the phase, and the session that it waits for."""
    monkeypatch.setattr(watch, "EVERY_S", 0.05)
    migrate.apply(empty)
    write(
        own,
        "0003.index",
        "-- transactional: false\nSET lock_timeout = '10min';\nCREATE INDEX CONCURRENTLY i ON tasks (title);",
    )
    said: list[str] = []
    with psycopg.connect(empty) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM tasks")
        thread = threading.Thread(target=lambda: migrate.apply(empty, say=said.append))
        thread.start()
        wait_until(lambda: len(said) > 2)
        reader.rollback()
    thread.join()
    assert re.fullmatch(
        r"0003\.index: \d s, waiting for old snapshots, waits for session \d+ \(tasks; .*"
        r"SELECT count\(\*\) FROM tasks",
        said[1],
    )


def test_apply_names_its_database(
    own: Path, empty: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command_line: CliRunner
) -> None:
    monkeypatch.setenv("TASKS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(embedded, "using", lambda _: nullcontext(empty))
    said = command_line.invoke(command, ["apply"]).stderr
    assert said == f"database: embedded, new, in {tmp_path / 'data'}\n"
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/shop")
    said = command_line.invoke(command, ["apply"]).stderr
    assert said.startswith("database: shop on 127.0.0.1:1\n")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        "check",
        *(f"migrate {name}" for name in ("status", "apply", "rollback --yes", "distribute", "break-lock", "lint")),
        "prune",
        "psql -c ''",
        "user export u",
        "dump file",
        "token u",
    ],
)
def test_every_command_warns_of_a_name_that_is_near_to_a_settings(
    arguments: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command_line: CliRunner
) -> None:
    monkeypatch.setenv("DATABSE_URL", "x")
    monkeypatch.setenv("TASKS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(embedded, "using", refuse)
    said = command_line.invoke(cli_of_all, shlex.split(arguments)).output
    assert re.search(
        r"(?m)^warning\W+(settings: )?DATABSE_URL in the environment is not a setting: did you mean DATABASE_URL\?$",
        said,
    ), said


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        ("check", "DATABASE_URL"),
        ("prune", "DATABASE_URL"),
        ("migrate status", "MIGRATION_DATABASE_URL"),
        ("migrate apply", "MIGRATION_DATABASE_URL"),
        ("migrate rollback --yes", "MIGRATION_DATABASE_URL"),
        ("user export u", "MIGRATION_DATABASE_URL"),
        ("dump file", "MIGRATION_DATABASE_URL"),
    ],
)
def test_of_a_database_that_cannot_be_reached_the_setting_is_named(
    arguments: str, variable: str, monkeypatch: pytest.MonkeyPatch, command_line: CliRunner
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@127.0.0.1:1/shop")
    monkeypatch.setenv("AUTH_MODE", "none")
    if variable != "DATABASE_URL":
        said = command_line.invoke(cli_of_all, shlex.split(arguments)).output
        assert re.search(r"(?m)[Tt]he database cannot be reached.* \(DATABASE_URL\)$", said), said
    monkeypatch.setenv("MIGRATION_DATABASE_URL", "postgresql://u@127.0.0.1:2/shop")
    said = command_line.invoke(cli_of_all, shlex.split(arguments)).output
    assert re.search(rf"(?m)[Tt]he database cannot be reached.* \({variable}\)$", said), said


def test_the_services_role_is_told_what_is_incomplete(
    cluster: embedded.Embedded, empty: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may not read the log; the migrations' role may."""
    migrate.apply(empty)
    execute(
        empty,
        "CREATE ROLE looks LOGIN IN ROLE tasks_service;"
        f"DELETE FROM _yoyo_migration WHERE migration_id = '{IDS[-1]}';"
        "INSERT INTO _yoyo_log (id, migration_id, operation, created_at_utc) "
        f"VALUES ('1', '{IDS[-1]}', 'applying', clock_timestamp() AT TIME ZONE 'UTC')",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", make_conninfo(empty, user="looks"))
    monkeypatch.setenv("MIGRATION_DATABASE_URL", empty)
    monkeypatch.setenv("AUTH_MODE", "none")
    try:
        said = CliRunner().invoke(check, []).stdout
        assert f"migration {IDS[-1]} is incomplete: its SQL was begun and not finished" in said
        assert "is pending" not in said
        with pytest.raises(ClickException, match=rf"the schema is behind: {IDS[-1]} incomplete; run `tasks-service"):
            serve._migrate(settings_of(serves=True))  # pyright: ignore[reportPrivateUsage]
    finally:
        execute(empty, "DROP ROLE looks")


def test_status_check_has_an_exit_status(own: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", empty)
    exits: list[int] = []

    def look() -> None:
        exits.append(CliRunner().invoke(command, ["status", "--check"]).exit_code)

    look()
    migrate.apply(empty)
    look()
    path = own / "0001.create-users.sql"
    path.write_text(path.read_text().replace("255", "256"))
    look()
    assert exits == [1, 0, 1]
    assert CliRunner().invoke(command, ["status"]).exit_code == 0


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"0003.a": "SELECT 1;", "0003.b": "-- depends: 0003.a\nSELECT 1;"}, "0003.b has the same number as 0003.a"),
        ({"0003.a": "SELECT 1;", "0004.b": "-- depends: 0002.create-tasks\nSELECT 1;"}, "0004.b leaves 2 heads"),
    ],
)
def test_apply_and_new_say_what_does_not_fit(
    own: Path, empty: str, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        write(own, name, text)
    heard: list[str] = []
    migrate.apply(empty, say=heard.append)
    assert any(line.startswith(f"warning: {said}") for line in heard), heard
    monkeypatch.setenv("DATABASE_URL", empty)
    monkeypatch.setattr(cli, "_refresh_snapshot", lambda: True)  # a cluster for it takes seconds
    done = CliRunner().invoke(command, ["new", "next"])
    assert f"warning: {said}" in done.stderr


def test_a_missing_rollback_is_said_before_it_is_missed(own: Path, empty: str) -> None:
    write(own, "0003.one-way", "CREATE TABLE a (n int);", rollback=None)
    said: list[str] = []
    migrate.apply(empty, say=said.append)
    assert said == ["warning: 0003.one-way has no rollback: write 0003.one-way.rollback.sql"]
    with pytest.raises(MigrationError, match=r"0003\.one-way has no rollback file"):
        migrate.rollback(empty)


def test_a_new_migration_follows_every_head(own: Path) -> None:
    write(own, "0003.a", "SELECT 1;")
    write(own, "0004.b", "-- depends: 0002.create-tasks\nSELECT 1;")
    up, _ = migrate.new("merge")
    assert "-- depends: 0003.a 0004.b\n" in up.read_text()


def test_what_failed_and_was_mended_leaves_what_a_first_success_does(
    duplicates: str, make_empty: Callable[[], str]
) -> None:
    with pytest.raises(MigrationError):
        migrate.apply(duplicates)
    execute(duplicates, "DELETE FROM tasks")
    migrate.apply(duplicates)
    fresh = make_empty()
    migrate.apply(fresh)
    assert schema(fresh) == schema(duplicates)


def test_rolling_back_a_dropped_key_says_what_is_double_and_can_be_finished(empty: str) -> None:
    migrate.apply(empty)
    execute(empty, "INSERT INTO users (id, email) VALUES ('a', 'one@example.com'), ('b', 'one@example.com')")
    with pytest.raises(
        MigrationError, match=r"Key \(email\)=\(one@example\.com\) is duplicated; .* that it left was dropped"
    ):
        migrate.rollback(empty)
    execute(empty, "DELETE FROM users WHERE id = 'b'")
    assert migrate.rollback(empty) == ["0008.drop-email-key"]


def test_rows_that_a_later_constraint_forbids_are_found_before_it_counts(empty: str) -> None:
    migrate.apply(empty, to="0005")
    execute(empty, "INSERT INTO users (id, created_at) VALUES ('a', 'infinity')")
    with pytest.raises(
        MigrationError, match=r"^0007\.validate-times failed: check constraint \"users_times_shown\" of rel"
    ):
        migrate.apply(empty)
    execute(empty, "UPDATE users SET created_at = now()")
    assert migrate.apply(empty) == ["0007.validate-times", "0008.drop-email-key"]


@pytest.mark.slow
def test_the_snapshot_belongs_to_the_migrations(own: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` names a stale one as such, and `lint` writes it anew."""
    for path in own.glob("*.sql"):
        path.unlink()
    for path in (root() / "migrations").glob("*"):
        (own / path.name).write_text(path.read_text())
    text = (own / "0003.index-open-tasks.sql").read_text()
    text = text.replace("tasks_open_idx ON tasks (user_id, id) WHERE NOT completed", "tasks_title_idx ON tasks (title)")
    text = text.replace("depends: 0002.create-tasks", "depends: 0008.drop-email-key").replace("-- replaces", "--")
    (own / "0009.index-titles.sql").write_text(text)
    back = (own / "0003.index-open-tasks.rollback.sql").read_text()
    (own / "0009.index-titles.rollback.sql").write_text(back.replace("0003", "0009").replace("_open_", "_title_"))
    migrate.apply(empty)
    monkeypatch.setenv("DATABASE_URL", empty)
    monkeypatch.setenv("AUTH_MODE", "none")
    said = CliRunner().invoke(check, []).stdout
    assert "warning  schema: schema.txt was made from other migrations than those here" in said
    assert "mend: tasks-service migrate lint" in said
    assert "error" not in said
    done = CliRunner().invoke(command, ["lint"])
    assert (done.exit_code, done.stdout) == (0, "nothing found\n"), done.output
    assert done.stderr == f"wrote {own / 'schema.txt'}\n"
    assert "ok       schema: as the migrations make it" in CliRunner().invoke(check, []).stdout
